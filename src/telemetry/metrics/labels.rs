//! The labels and their values: closed sets, never a name, a namespace or a message.

label!(
    /// Which webhook.
    Webhook, "webhook", {
        /// `/validate`
        Validate = "validate",
        /// `/mutate`
        Mutate = "mutate",
    }
);

label!(
    /// What the user does.
    Operation, "operation", {
        /// A new object.
        Create = "create",
        /// A changed one.
        Update = "update",
        /// One that goes.
        Delete = "delete",
        /// A subresource that is connected to.
        Connect = "connect",
        /// None of these, or the request was no review.
        Other = "other",
    }
);

impl Operation {
    /// From an AdmissionReview's `operation`.
    pub fn from_review(operation: &str) -> Self {
        match operation {
            "CREATE" => Self::Create,
            "UPDATE" => Self::Update,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

label!(
    /// What a webhook answered.
    Outcome, "outcome", {
        /// Allowed as it is.
        Allowed = "allowed",
        /// Allowed with warnings.
        Warned = "warned",
        /// Allowed with a patch.
        Patched = "patched",
        /// Refused.
        Denied = "denied",
        /// No review that could be answered: a 4xx.
        Bad = "bad",
    }
);

label!(
    /// What the scheduler asks.
    Verb, "verb", {
        /// `/scheduler/filter`
        Filter = "filter",
        /// `/scheduler/preempt`
        Preempt = "preempt",
    }
);

label!(
    /// What the extender answered.
    Filtered, "outcome", {
        /// Nothing was refused.
        Passed = "passed",
        /// Some nodes were refused.
        Refused = "refused",
        /// No arguments that could be answered: a 400.
        Bad = "bad",
    }
);

/// Why a node was refused, by `daemonset::filter::FilterReason::index`.
pub(super) const REFUSALS: (&str, &[&str]) =
    ("reason", &["not_target", "node_selector", "taint", "reserved", "not_ready", "stale"]);

/// Why a node was dropped from a preemption, by `daemonset::preemption::PreemptionReason::index`.
pub(super) const DROPS: (&str, &[&str]) =
    ("reason", &["predecessor_leaves", "reserved", "daemon_pod_victim"]);

label!(
    /// Why a request or a connection was shed.
    Shed, "reason", {
        /// Too many requests in work.
        Requests = "requests",
        /// Too many connections.
        Connections = "connections",
        /// Too many bytes of bodies.
        Memory = "memory",
        /// Too many TLS handshakes.
        Handshakes = "handshakes",
    }
);

label!(
    /// Why a connection was cut off by us.
    Cut, "reason", {
        /// The TLS handshake took too long.
        HandshakeTime = "handshake_time",
        /// The TLS handshake failed.
        HandshakeFailed = "handshake_failed",
        /// A request's head took too long.
        HeaderTime = "header_time",
        /// The client stopped reading an answer.
        WriteTime = "write_time",
        /// No request for a long time; harmless.
        Idle = "idle",
    }
);

label!(
    /// Which port.
    Port, "port", {
        /// HTTPS.
        Secure = "secure",
        /// Metrics and health.
        Metrics = "metrics",
    }
);

label!(
    /// Which certificate.
    CertificateKind, "certificate", {
        /// The one that is shown to clients.
        Serving = "serving",
        /// The development CA; 0 if there is none.
        DevelopmentCa = "development_ca",
        /// The CA that replicas share in a Secret; 0 if there is none.
        Ca = "ca",
    }
);

label!(
    /// What became of a span.
    SpanOutcome, "outcome", {
        /// The collector has it.
        Exported = "exported",
        /// The collector was not there, or refused it.
        Failed = "failed",
        /// Too many waited before it.
        Dropped = "dropped",
    }
);

/// The status codes of answers that are errors.
pub(super) const CODES: [u16; 11] = [400, 401, 403, 404, 405, 408, 413, 415, 500, 503, 504];
pub(super) const CODE_LABEL: (&str, &[&str]) =
    ("code", &["400", "401", "403", "404", "405", "408", "413", "415", "500", "503", "504", "other"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reservation::filter_reason::FilterReason;
    use crate::reservation::preemption::PreemptionReason;

    #[test]
    fn refusals_are_in_the_order_of_their_index() {
        assert_eq!(REFUSALS.1, FilterReason::ALL.map(FilterReason::label));
        assert_eq!(DROPS.1, PreemptionReason::ALL.map(PreemptionReason::label));
    }
}
