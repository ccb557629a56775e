//! PURE: the rules of the DaemonSet controller about its pods, their nodes and rolling updates.

pub mod daemon_pod;
pub mod namespace_selector;
pub mod placement;
pub mod update_strategy;
