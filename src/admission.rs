//! PURE: the reviews of `/validate` and `/mutate`.

pub mod default_priority;
pub mod mutation;
pub mod patch;
pub mod review_head;
pub mod validation;
