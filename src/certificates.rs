//! The release's own CA and serving certificate, kept in one Secret that all replicas share.
//!
//! ```text
//! webhook configurations ──read──┐
//!                                ├─▶ plan ─▶ issue ─▶ Secret (optimistic locking: the loser takes the winner's)
//! Secret, and the time ────read──┘                      │
//!                                                       ├─▶ caBundle of the webhook configurations
//!                                                       └─▶ then, once clients trust it: the pair that TLS serves
//! ```
//! [`plan`] decides and does nothing else; [`issue`] makes keys and certificates; [`secret`] and [`webhooks`] talk to the
//! apiserver; [`keeper`] is the loop around them.
//!
//! The order matters. Webhook configurations are read *before* the Secret: a CA is in the Secret before it is in any
//! configuration, so whoever sees a configuration of another replica's making also sees the Secret that it was made from,
//! and never patches it back. And a certificate of a new CA is served only after the configurations have had that CA for a
//! while, because apiservers hear of it late.

pub mod issue;
pub mod keeper;
pub mod names;
pub mod plan;
pub mod secret;
pub mod validity;
pub mod webhooks;
