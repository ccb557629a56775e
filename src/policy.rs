//! PURE: the configuration of the operator, typed and checked, with its defaults. `command/config.rs` reads it from YAML.

pub mod opt_out;
pub mod startup_taints;

use std::collections::BTreeMap;
use std::time::Duration;

use enum_map::Enum;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use strum::{IntoStaticStr, VariantNames};

use crate::api::meta::GroupKind;

/// All settings of an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The kinds that are treated as DaemonSets; `apps` `DaemonSet` by default.
    pub daemon_set_kinds: Vec<GroupKind>,
    /// Names of the users whose daemon pods may get the default priority class.
    pub trusted_controllers: Vec<String>,
    /// Settings of the webhooks.
    pub admission: AdmissionPolicy,
    /// Settings of holds and nominations.
    pub reservation: ReservationPolicy,
    /// Settings of gates.
    pub readiness_gates: ReadinessGatePolicy,
    /// The protection of daemon pods when the scheduler chooses victims.
    pub protect_daemon_pods: ProtectDaemonPods,
}

/// The settings of gates.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadinessGatePolicy {
    /// Namespaces whose DaemonSets may keep ordinary pods off a node until their daemon pod on it is Ready.
    pub namespace_selector: LabelSelector,
    /// The longest time for which a gate refuses bindings to a node. A scheduler that no extender steers tries the same node again,
    /// so pods wait that could run elsewhere.
    pub bind_timeout: Duration,
}

/// The settings of the webhooks.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionPolicy {
    /// Levels by rule id; a rule that is not here has its own default. Every id exists: the reader checks that.
    pub rules: BTreeMap<String, Level>,
    /// The scheduler that pods get in place of the name that legacy DaemonSet controllers wrote.
    pub scheduler_name: String,
    /// The priority class for daemon pods that name none; empty to give none.
    pub default_priority_class_name: String,
    /// Namespaces whose daemon pods `/mutate` gives no tolerations; `None` for no namespace.
    pub skip_tolerations: Option<LabelSelector>,
    /// The answer for a DaemonSet that is too large to be checked.
    pub oversized: Oversized,
}

/// The answer for an object that is too large to be checked, where a rule could refuse it. Metrics have it as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
pub enum Oversized {
    /// The webhook refuses the object: no rule is bypassed by padding.
    #[strum(serialize = "denied")]
    Deny,
    /// The webhook allows the object, with a warning that it has not been checked.
    #[strum(serialize = "allowed")]
    Allow,
}

/// The consequence of breaking a policy rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The webhook refuses the object.
    Deny,
    /// The webhook warns the user and allows the object.
    Warn,
    /// The rule is not checked.
    Off,
}

/// The settings of holds: room that is reserved for missing daemon pods.
#[derive(Debug, Clone, PartialEq)]
pub struct ReservationPolicy {
    /// `Enforce` by default.
    pub mode: ReservationMode,
    /// The longest time that a hold lasts on a node that has enough room for the daemon pod.
    pub hold_timeout: Duration,
    /// The longest time that a hold lasts on a node that does not have enough room yet.
    pub wait_timeout: Duration,
    /// Namespaces whose DaemonSets may have holds.
    pub namespace_selector: LabelSelector,
    /// A node that any of these matches gets no holds.
    pub ignore_nodes: Vec<LabelSelector>,
    /// Keys of further taints that controllers remove while a node starts, besides Kubernetes' own.
    pub startup_taints: Vec<String>,
    /// True to nominate a daemon pod that the scheduler could not place to the node that has a hold for it.
    pub nominate: bool,
}

impl ReservationPolicy {
    /// Returns true if daemon pods are nominated: `nominate` is set and holds are enforced.
    pub fn nominates(&self) -> bool {
        self.nominate && self.mode == ReservationMode::Enforce
    }
}

/// The effect of holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationMode {
    /// The extender refuses an ordinary pod on a node where it would take reserved room.
    Enforce,
    /// The extender only counts what it would refuse.
    Audit,
    /// No holds are computed.
    Off,
}

/// The extent to which daemon pods are protected from preemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtectDaemonPods {
    /// The scheduler may pick daemon pods as victims only if no other node helps.
    PreferOthers,
    /// Ordinary pods never preempt daemon pods.
    Always,
    /// Daemon pods have no protection: the scheduler decides alone.
    Never,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            daemon_set_kinds: vec![GroupKind { group: "apps".into(), kind: "DaemonSet".into() }],
            trusted_controllers: vec![
                "system:serviceaccount:kube-system:daemon-set-controller".into(),
                "system:kube-controller-manager".into(),
            ],
            admission: AdmissionPolicy::default(),
            reservation: ReservationPolicy::default(),
            readiness_gates: ReadinessGatePolicy::default(),
            protect_daemon_pods: ProtectDaemonPods::PreferOthers,
        }
    }
}

impl Default for ReadinessGatePolicy {
    fn default() -> Self {
        Self {
            namespace_selector: match_label("kubernetes.io/metadata.name", "kube-system"),
            bind_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for AdmissionPolicy {
    fn default() -> Self {
        Self {
            rules: BTreeMap::new(),
            scheduler_name: "default-scheduler".into(),
            default_priority_class_name: String::new(),
            skip_tolerations: None,
            // A hundred times the largest DaemonSet that is known: whoever writes such a one tries to get around a rule.
            oversized: Oversized::Deny,
        }
    }
}

impl Default for ReservationPolicy {
    fn default() -> Self {
        Self {
            mode: ReservationMode::Enforce,
            hold_timeout: Duration::from_secs(10 * 60),
            wait_timeout: Duration::from_secs(60 * 60),
            namespace_selector: LabelSelector::default(),
            ignore_nodes: vec![
                match_label("type", "virtual-kubelet"),
                match_label("eks.amazonaws.com/compute-type", "fargate"),
            ],
            startup_taints: Vec::new(),
            nominate: true,
        }
    }
}

fn match_label(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        match_expressions: None,
    }
}
