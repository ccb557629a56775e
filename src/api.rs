//! PURE: Kubernetes' objects and wire formats, trimmed to the fields that this program reads.

pub mod admission_v1;
pub mod binding;
pub mod daemonset;
pub mod decode_budget;
pub mod event;
pub mod extender_v1;
pub mod field;
pub mod int_or_percent;
pub mod json;
pub mod meta;
pub mod node;
pub mod pod;
pub mod policy_objects;
pub mod quantity;
