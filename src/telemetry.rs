//! Logs, metrics and traces.

pub mod log_on_change;
pub mod logs;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "telemetry/otlp_disabled.rs"]
pub mod otlp;

use kube::api::PatchParams;

/// The field manager of our writes, by which the apiserver tells whose fields are whose. It stands here because `tls` and `writes` may
/// not name each other.
pub(crate) const FIELD_MANAGER: &str = env!("CARGO_PKG_NAME");

/// The parameters of our patches.
pub(crate) fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// The collector, the sampling rate, and the names of this pod.
#[derive(Debug, Clone)]
pub struct OtlpSettings {
    /// The collector's URL.
    pub endpoint: otlp::Endpoint,
    /// Of a million requests without a `traceparent`, this many are sampled.
    pub sampling_rate_per_million: u32,
    /// The name of this pod, unless the server runs elsewhere.
    pub pod: Option<String>,
    /// The pod's namespace.
    pub namespace: Option<String>,
}
