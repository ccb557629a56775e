//! PURE: room on nodes for daemon pods that have not landed yet.
//!
//! What is missing on a node, and what it needs, does not depend on the extender, so that room can be kept by other doors too.

pub mod assumed;
pub mod cluster_write;
pub mod feasibility;
pub mod filter;
pub mod filter_reason;
pub mod gate;
pub mod hold;
pub mod nomination;
pub mod preemption;
pub mod refusal;
pub mod refusal_clock;
pub mod stale_refusals;
pub mod token_bucket;
