//! HTTP on one port: listeners, connections, request bodies and the memory that they share.

pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod connection;
pub(crate) mod connection_state;
pub mod limits;
pub mod listener;
pub mod open_files;
pub(crate) mod response;
pub(crate) mod workers;
