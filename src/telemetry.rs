//! Logs, metrics and traces.

pub mod log_on_change;
pub mod logs;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "telemetry/otlp_disabled.rs"]
pub mod otlp;

/// The field manager of our writes, by which the apiserver tells whose fields are whose. It stands here because `tls` and `writes` may
/// not name each other.
pub(crate) const FIELD_MANAGER: &str = env!("CARGO_PKG_NAME");
