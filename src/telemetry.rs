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

use crate::api::meta::FIELD_MANAGER;

/// Returns the parameters of the warden's patches: the field manager. It stands here because `tls` and `writes` may not name each
/// other.
pub(crate) fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// The settings of traces: the collector, the sampling rate, and the names of this pod.
#[derive(Debug, Clone)]
pub struct OtlpSettings {
    /// The collector's URL.
    pub endpoint: otlp::Endpoint,
    /// The number of requests to sample, of a million without a `traceparent`.
    pub sampling_rate_per_million: u32,
    /// The name of this pod; `None` if the server does not run in a pod.
    pub pod: Option<String>,
    /// The namespace of this pod; `None` if the server does not run in a pod.
    pub namespace: Option<String>,
}
