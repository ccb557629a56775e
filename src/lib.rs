//! daemonset-warden: daemon pods always land.
//!
//! Data flows one way: `command -> server -> {watch, writes, tls} -> telemetry -> {admission, explain} -> reservation -> cache ->
//! daemonset -> {scheduling, policy} -> api`.
//! See ARCHITECTURE.md for the path of a request.

pub mod admission;
pub mod api;
pub mod cache;
pub mod cli;
pub mod command;
pub mod daemonset;
pub mod explain;
pub mod policy;
pub mod reservation;
pub mod scheduling;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod watch;
pub mod writes;
