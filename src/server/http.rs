//! HTTP on one port: listeners, connections, request bodies and the memory that they share.

pub mod body;
pub mod budget;
pub mod connection;
pub mod connection_state;
pub mod limits;
pub mod listener;
pub mod open_files;
pub mod response;
pub mod workers;
