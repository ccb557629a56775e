//! daemonset-warden: daemon pods always land.
//!
//! Data flows one way: `command -> {server, watch, events, config} -> daemonset -> scheduling`.
//! See ARCHITECTURE.md for the path of a request.

pub mod certificates;
pub mod cli;
pub mod command;
pub mod config;
pub mod daemonset;
pub mod events;
pub mod live;
mod log_on_change;
pub mod logs;
pub mod metrics;
pub mod scheduling;
pub mod server;
pub mod traces;
pub mod watch;
