//! PURE: what the operator decides: the typed, checked configuration and its defaults. `command/config.rs` reads it.

pub mod opt_out;
pub mod startup_taints;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::api::meta::GroupKind;

/// Everything that an operator can decide.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Which kinds are DaemonSets; `apps` `DaemonSet` unless configured otherwise.
    pub daemon_set_kinds: Vec<GroupKind>,
    /// User names whose daemon pods may get a default priority class.
    pub trusted_controllers: Vec<String>,
    /// What the webhooks do.
    pub admission: AdmissionPolicy,
    /// How room is kept.
    pub reservation: ReservationPolicy,
    /// Namespaces whose DaemonSets may keep ordinary pods off a node until their pod there is Ready.
    pub readiness_gate_namespaces: LabelSelector,
    /// Whether preemption may pick daemon pods.
    pub protect_daemon_pods: ProtectDaemonPods,
}

/// What the webhooks do.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionPolicy {
    /// Levels that differ from the rule's default, by rule id; only ids that exist.
    pub rules: BTreeMap<String, Level>,
    /// Who places pods that name the scheduler of legacy DaemonSet controllers.
    pub scheduler_name: String,
    /// The class that daemon pods without one get; empty for none.
    pub default_priority_class_name: String,
    /// Namespaces where no tolerations are injected; `None` for nowhere.
    pub skip_tolerations: Option<LabelSelector>,
}

/// What a policy rule's fault leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The object is refused.
    Deny,
    /// The user is warned.
    Warn,
    /// The rule is not looked at.
    Off,
}

/// How room is kept for missing daemon pods.
#[derive(Debug, Clone, PartialEq)]
pub struct ReservationPolicy {
    /// Whether to refuse, only count, or do neither.
    pub mode: ReservationMode,
    /// For how long room that would suffice is kept while the daemon pod does not come.
    pub hold_timeout: Duration,
    /// For how long room is kept while it does not suffice yet.
    pub wait_timeout: Duration,
    /// Namespaces whose DaemonSets may hold.
    pub namespace_selector: LabelSelector,
    /// Nodes matched by any of these are left alone.
    pub ignore_nodes: Vec<LabelSelector>,
    /// Keys of taints that will go by themselves, besides Kubernetes' own.
    pub startup_taints: Vec<String>,
    /// Nominates daemon pods that the scheduler has failed to the node where room is held for them.
    pub nominate: bool,
}

impl ReservationPolicy {
    /// True if daemon pods are nominated: asked for, and others are refused for them.
    pub fn nominates(&self) -> bool {
        self.nominate && self.mode == ReservationMode::Enforce
    }
}

/// Whether room is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationMode {
    /// Ordinary pods are refused where they would take the room.
    Enforce,
    /// What would be refused is only counted.
    Audit,
    /// Nothing is computed.
    Off,
}

/// Whether preemption may pick daemon pods as victims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtectDaemonPods {
    /// Only where no other node will do.
    PreferOthers,
    /// Never by ordinary pods.
    Always,
    /// As the scheduler likes.
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
            readiness_gate_namespaces: label("kubernetes.io/metadata.name", "kube-system"),
            protect_daemon_pods: ProtectDaemonPods::PreferOthers,
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
                label("type", "virtual-kubelet"),
                label("eks.amazonaws.com/compute-type", "fargate"),
            ],
            startup_taints: Vec::new(),
            nominate: true,
        }
    }
}

fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        match_expressions: None,
    }
}
