//! PURE: Kubernetes' own rules, ported and cited; nothing of ours.
//!
//! Everything here takes values and returns values: no I/O, no clock, no log. It never names [`crate::daemonset`].

pub mod host_ports;
pub mod int_or_percent;
pub mod label_selector;
pub mod names;
pub mod node;
pub mod node_affinity;
pub mod object;
pub mod pod;
pub mod quantity;
pub mod resources;
pub mod toleration;
