//! PURE: the rules of the DaemonSet controller: its pods, where they go, how it updates them.

pub mod daemon_pod;
pub mod namespace_selector;
pub mod placement;
pub mod update_strategy;
