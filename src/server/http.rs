//! HTTP on one port: listeners, connections, request bodies and the memory that they share.

pub mod body;
pub mod budget;
pub mod connection;
pub mod connection_state;
pub mod connection_table;
pub mod limits;
pub mod listener;
pub mod open_files;
pub mod places;
pub mod response;
pub mod workers;
