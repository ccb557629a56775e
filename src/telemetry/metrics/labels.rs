//! The labels and their values: closed sets, never a name, a namespace or a message.

use enum_map::Enum;
use strum::{IntoStaticStr, VariantNames};

use crate::policy::Oversized;
use crate::reservation::filter_reason::FilterReason;
use crate::reservation::hold::EndReason;
use crate::reservation::preemption::PreemptionReason;

/// A label and all of its values.
pub(super) type LabelValues = (&'static str, &'static [&'static str]);

/// An enum whose variants are a label's values. The word that strum gives a variant is the value.
pub(super) trait Label: Enum + VariantNames + Into<&'static str> {
    const NAME: &'static str;
    const LABEL: LabelValues = (Self::NAME, Self::VARIANTS);
}

/// Gives enums of this crate's own their label's name, and a method for its value.
macro_rules! label {
    ($($type:ident = $name:literal),+ $(,)?) => { $(
        impl Label for $type {
            const NAME: &'static str = $name;
        }

        impl $type {
            /// Returns the label's value.
            pub fn as_str(self) -> &'static str {
                self.into()
            }
        }
    )+ };
}
pub(super) use label;

label! {
    Webhook = "webhook",
    RegisteredWebhook = "webhook",
    Operation = "operation",
    AdmissionOutcome = "outcome",
    ExtenderVerb = "verb",
    ExtenderOutcome = "outcome",
    ShedReason = "reason",
    CloseReason = "reason",
    Port = "port",
    CertificateKind = "certificate",
    SpanOutcome = "outcome",
    LogSource = "source",
}

impl Label for Oversized {
    const NAME: &'static str = "outcome";
}

impl Label for FilterReason {
    const NAME: &'static str = "reason";
}

impl Label for PreemptionReason {
    const NAME: &'static str = "reason";
}

impl Label for EndReason {
    const NAME: &'static str = "reason";
}

/// A webhook of the kind that reviews whole objects; `/bind` has metrics of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Webhook {
    /// `/validate`
    Validate,
    /// `/mutate`
    Mutate,
}

/// A webhook that a configuration registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum RegisteredWebhook {
    /// `/validate`
    Validate,
    /// `/mutate`
    Mutate,
    /// `/bind`
    Bind,
}

/// The operation of a request that is reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Operation {
    /// `CREATE` of an object.
    Create,
    /// `UPDATE` of an object.
    Update,
    /// `DELETE` of an object.
    Delete,
    /// `CONNECT` to a subresource.
    Connect,
    /// Any other operation, or a request that is no review.
    Other,
}

impl Operation {
    /// Returns the label for the `operation` of an AdmissionReview; `Other` for an unknown one.
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

/// A webhook's answer to a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum AdmissionOutcome {
    /// Allowed as it is.
    Allowed,
    /// Allowed with warnings.
    Warned,
    /// Allowed with a patch.
    Patched,
    /// Refused.
    Denied,
    /// A request that is no review that could be answered: a 4xx.
    Bad,
}

/// A verb of the scheduler extender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ExtenderVerb {
    /// `/scheduler/filter`
    Filter,
    /// `/scheduler/preempt`
    Preempt,
}

/// The extender's answer to the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ExtenderOutcome {
    /// No node was refused.
    Passed,
    /// Some nodes were refused.
    Refused,
    /// A call without arguments that could be answered: a 400.
    Bad,
}

/// The limit that a request or a connection was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ShedReason {
    /// Too many bodies were being read.
    Requests,
    /// Too many connections.
    Connections,
    /// Too many bytes of bodies and responses.
    Memory,
}

/// The reason for which the server closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum CloseReason {
    /// The TLS handshake took too long.
    HandshakeTime,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// A request's head took too long.
    HeaderTime,
    /// The client stopped reading a response.
    WriteTime,
    /// No request for a long time; harmless.
    Idle,
    /// A newer connection needed the place, and this one had waited for the longest.
    GaveWay,
    /// The client's certificate has expired, or its CA is in use no longer.
    ClientCertificate,
}

/// A port of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Port {
    /// HTTPS.
    Secure,
    /// Metrics and health.
    Metrics,
}

/// A certificate with a validity to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum CertificateKind {
    /// The certificate that the server shows to clients.
    Serving,
    /// The development CA; 0 if there is none.
    DevelopmentCa,
    /// The CA that replicas share in a Secret; 0 if there is none.
    Ca,
}

/// The outcome of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum SpanOutcome {
    /// The collector has taken the span.
    Exported,
    /// The collector could not be reached, or refused the span.
    Failed,
    /// Too many spans waited before this one.
    Dropped,
}

/// The folder of the code that a log line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum LogSource {
    /// The routes, and the connections with their handshakes.
    Server,
    /// The watches and their objects.
    Watch,
    /// The writes to the apiserver.
    Writes,
    /// Certificates, and the Secret and the webhook configurations that they are kept in.
    Tls,
    /// Traces, metrics and panics.
    Telemetry,
    /// The start and the end of the process.
    Command,
    /// Libraries.
    Other,
}

impl LogSource {
    /// Returns the source of a line with this target, which is a path of modules; `Other` for a library's.
    pub fn of_target(target: &str) -> Self {
        let folder = target.strip_prefix("daemonset_warden::").and_then(|path| path.split("::").next());
        match folder {
            Some("server") => Self::Server,
            Some("watch") => Self::Watch,
            Some("writes") => Self::Writes,
            Some("tls") => Self::Tls,
            Some("telemetry") => Self::Telemetry,
            Some("command") => Self::Command,
            _ => Self::Other,
        }
    }
}

/// The status codes of responses that are errors, and one value for all others.
pub(super) const CODE_LABEL: LabelValues =
    ("code", &["400", "401", "403", "404", "405", "408", "413", "415", "500", "503", "504", "other"]);
