//! daemonset-warden: daemon pods always land.
//!
//! Data flows one way: `command -> {server, watch, events, config} -> daemonset -> scheduling`.
//! See ARCHITECTURE.md for the path of a request.

pub mod daemonset;
pub mod scheduling;
