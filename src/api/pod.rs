//! A pod, reduced to what placing it needs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, Toleration};
use serde::Deserialize;

use super::meta::{Metadata, or_default, string_map};
use super::quantity::Quantity;

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// Priority from which a pod is system-critical (`scheduling.SystemCriticalPriority` upstream).
pub const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// The annotation of a pod that mirrors a static pod of the kubelet; nobody may touch those.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The part of `Pod` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What its author asked for, with the apiserver's defaults.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
    /// What the scheduler and the kubelet found.
    #[serde(deserialize_with = "or_default")]
    pub status: PodStatus,
}

impl Pod {
    /// Whether the pod has ended and holds nothing of its node any more (`podutil.IsPodTerminal` upstream).
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The priority that admission computed; 0 where none did (`corev1helpers.PodPriority` upstream).
    pub fn priority(&self) -> i32 {
        self.spec.priority.unwrap_or(0)
    }

    /// True if kube-scheduler has tried to place the pod and failed; false for a pod that waits for its scheduling gates.
    pub fn has_failed_scheduling(&self) -> bool {
        let failed = |condition: &PodCondition| {
            condition.kind == "PodScheduled"
                && condition.status == "False"
                && matches!(condition.reason.as_str(), "Unschedulable" | "SchedulerError")
        };
        self.spec.node_name.is_empty() && self.status.conditions.iter().any(failed)
    }

    /// Whether the condition `type` is True.
    pub fn has_condition(&self, kind: &str) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == kind && condition.status == "True")
    }
}

/// The part of `PodSpec` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Where it is bound; empty while it is not.
    #[serde(deserialize_with = "or_default")]
    pub node_name: String,
    /// Who places it.
    #[serde(deserialize_with = "or_default")]
    pub scheduler_name: String,
    /// Filled by admission from the class.
    pub priority: Option<i32>,
    /// Empty when the pod names none.
    #[serde(deserialize_with = "or_default")]
    pub priority_class_name: String,
    /// `PreemptLowerPriority` (also when empty) or `Never`.
    #[serde(deserialize_with = "or_default")]
    pub preemption_policy: String,
    /// Whether it uses its node's network.
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    /// `ClusterFirst` and the like.
    #[serde(deserialize_with = "or_default")]
    pub dns_policy: String,
    /// `Always` (also when empty), `OnFailure` or `Never`.
    #[serde(deserialize_with = "or_default")]
    pub restart_policy: String,
    /// Seconds after which the pod is ended.
    pub active_deadline_seconds: Option<i64>,
    /// Labels that its node must have.
    #[serde(deserialize_with = "string_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Only its node affinity is read.
    #[serde(deserialize_with = "or_default")]
    pub affinity: Affinity,
    /// In the order of the object.
    #[serde(deserialize_with = "or_default")]
    pub tolerations: Vec<Toleration>,
    /// At least one in a valid pod.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    /// Run one after the other before the containers, but for sidecars.
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
    /// What the runtime class adds; filled by admission.
    #[serde(deserialize_with = "or_default")]
    pub overhead: ResourceList,
    /// Pod-level resources.
    #[serde(deserialize_with = "or_default")]
    pub resources: ResourceRequirements,
    /// Empty when the pod names none.
    #[serde(deserialize_with = "or_default")]
    pub runtime_class_name: String,
    /// The pod is not scheduled before all of them are gone.
    #[serde(deserialize_with = "or_default")]
    pub scheduling_gates: Vec<SchedulingGate>,
}

/// The part of `Affinity` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    /// Node affinity.
    #[serde(deserialize_with = "or_default")]
    pub node_affinity: NodeAffinity,
}

/// The part of `NodeAffinity` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAffinity {
    /// Required terms.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
}

/// A gate's name is not read, only that there is one.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct SchedulingGate {}

/// The part of `Container` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name, unique in the pod.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Requests and limits.
    #[serde(deserialize_with = "or_default")]
    pub resources: ResourceRequirements,
    /// Ports; only those of the host matter here.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    #[serde(deserialize_with = "or_default")]
    pub restart_policy: String,
}

impl Container {
    /// Whether an init container keeps running beside the containers (`podutil.IsRestartableInitContainer` upstream).
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == "Always"
    }
}

/// The part of `ContainerPort` that is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// The port in the container.
    #[serde(deserialize_with = "or_default")]
    pub container_port: i32,
    /// The port of the host, 0 for none.
    #[serde(deserialize_with = "or_default")]
    pub host_port: i32,
    /// The address of the host, empty for all.
    #[serde(rename = "hostIP", deserialize_with = "or_default")]
    pub host_ip: String,
    /// `TCP` (also when empty), `UDP` or `SCTP`.
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
}

/// Requests and limits of a container or a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceRequirements {
    /// What is reserved.
    #[serde(deserialize_with = "or_default")]
    pub requests: ResourceList,
    /// What may be used.
    #[serde(deserialize_with = "or_default")]
    pub limits: ResourceList,
}

/// The part of `PodStatus` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
    /// A word for why the pod is in its phase, such as `Evicted`.
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    /// Conditions, one a type.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<PodCondition>,
    /// The node whose room it is to have: by preemption, or by nomination of ours; empty for none.
    #[serde(deserialize_with = "or_default")]
    pub nominated_node_name: String,
    /// One a container.
    #[serde(deserialize_with = "or_default")]
    pub container_statuses: Vec<ContainerStatus>,
    /// One an init container.
    #[serde(deserialize_with = "or_default")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Pod-level resources that the node has given.
    #[serde(deserialize_with = "or_default")]
    pub allocated_resources: ResourceList,
    /// Pod-level resources that are in force.
    pub resources: Option<ResourceRequirements>,
}

/// The part of `PodCondition` that is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// Such as `Ready`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// A word for why.
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    /// A sentence for why.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}

/// The part of `ContainerStatus` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// The container's name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// What the node has given.
    #[serde(deserialize_with = "or_default")]
    pub allocated_resources: ResourceList,
    /// What is in force; absent when the node does not resize in place.
    pub resources: Option<ResourceRequirements>,
}
