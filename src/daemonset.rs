//! PURE: what the warden decides.
//!
//! Everything here takes values and returns values: no I/O, no clock, no log.

pub mod admission;
pub mod admission_v1_response;
pub mod cluster;
pub mod daemon_pod;
pub mod daemon_set;
pub mod default_priority;
pub mod event;
pub mod explanation;
pub mod extender;
pub mod field;
pub mod filter;
pub mod json;
pub mod mutation;
pub mod namespace_selector;
mod node_names;
pub mod opt_out;
pub mod patch;
pub mod placement;
mod plain_text;
pub mod policy;
pub mod policy_objects;
pub mod preemption;
pub mod preemption_args;
pub mod quota;
pub mod reservation;
pub mod shortage;
pub mod startup_taints;
pub mod token_bucket;
pub mod update_strategy;
pub mod validation;
