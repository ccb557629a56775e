//! PURE: the rules of kube-scheduler and of the API's names and selectors, ported and cited by function and version.

pub mod host_ports;
pub mod label_selector;
pub mod names;
pub mod node_affinity;
pub mod obstacle;
pub mod quota;
pub mod resources;
pub mod shortage;
pub mod taints;
