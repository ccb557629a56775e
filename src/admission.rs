//! PURE: the reviews of `/validate` and `/mutate`. Each takes an AdmissionRequest and returns what the server answers.

pub mod default_priority;
pub mod mutation;
pub mod patch;
pub mod review_head;
pub mod validation;
