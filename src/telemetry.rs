//! Logs, metrics and traces.

pub(crate) mod log_on_change;
pub mod logs;
pub mod metrics;
pub mod otlp;
