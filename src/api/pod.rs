//! Pods, trimmed to the fields that this program needs to place them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, Toleration};
use serde::Deserialize;

use super::meta::{Metadata, is_filled, is_set, or_default, string_map};
use super::quantity::Quantity;

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// The lowest priority of a system-critical pod (`scheduling.SystemCriticalPriority` upstream).
pub const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// The annotation of a pod that mirrors a static pod of the kubelet; no webhook may change such a pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The fields of `Pod` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Standard object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// The desired state, as its author wrote it and the apiserver completed it.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
    /// The part that the scheduler and the kubelet write.
    #[serde(deserialize_with = "or_default")]
    pub status: PodStatus,
}

impl Pod {
    /// Returns true if the pod has ended and uses no resources of its node any more (`podutil.IsPodTerminal` upstream).
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Returns the priority that the apiserver's admission set; 0 if it set none (`corev1helpers.PodPriority` upstream).
    pub fn priority(&self) -> i32 {
        self.spec.priority.unwrap_or(0)
    }

    /// Returns true if kube-scheduler has tried to place the pod and failed. Returns false for a pod that is bound or waits for its
    /// scheduling gates.
    pub fn has_failed_scheduling(&self) -> bool {
        let failed = |condition: &PodCondition| {
            condition.kind == "PodScheduled"
                && condition.status == "False"
                && matches!(condition.reason.as_str(), "Unschedulable" | "SchedulerError")
        };
        self.spec.node_name.is_empty() && self.status.conditions.iter().any(failed)
    }

    /// Returns true if the pod has the condition `kind` with status True.
    pub fn has_condition(&self, kind: &str) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == kind && condition.status == "True")
    }
}

/// The fields of `PodSpec` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node that the pod is bound to; empty before that.
    #[serde(deserialize_with = "or_default")]
    pub node_name: String,
    /// The scheduler that binds the pod.
    #[serde(deserialize_with = "or_default")]
    pub scheduler_name: String,
    /// The priority of the pod's class; `None` before the apiserver's admission sets it, as in a template.
    pub priority: Option<i32>,
    /// Empty if the pod names none.
    #[serde(deserialize_with = "or_default")]
    pub priority_class_name: String,
    /// `PreemptLowerPriority` (also when empty) or `Never`.
    #[serde(deserialize_with = "or_default")]
    pub preemption_policy: String,
    /// True if the pod uses the network of its node.
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    /// The name server of the containers, such as `ClusterFirst`.
    #[serde(deserialize_with = "or_default")]
    pub dns_policy: String,
    /// `Always` (also when empty), `OnFailure` or `Never`.
    #[serde(deserialize_with = "or_default")]
    pub restart_policy: String,
    /// Seconds after which the kubelet ends the pod; `None` for no limit.
    pub active_deadline_seconds: Option<i64>,
    /// Labels that the node must have.
    #[serde(deserialize_with = "string_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Only what is required is read.
    #[serde(deserialize_with = "or_default")]
    pub affinity: Affinity,
    /// The tolerations in the order of the object: paths of faults name them by index.
    #[serde(deserialize_with = "or_default")]
    pub tolerations: Vec<Toleration>,
    /// The containers, at least one in a valid pod.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    /// The init containers, which the kubelet starts one after the other before the containers. Sidecars among them go on running.
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
    /// The amounts that the runtime class adds to the requests; set by the apiserver's admission.
    #[serde(deserialize_with = "or_default")]
    pub overhead: ResourceList,
    /// Requests and limits of the pod as a whole.
    #[serde(deserialize_with = "or_default")]
    pub resources: ResourceRequirements,
    /// Empty if the pod names none.
    #[serde(deserialize_with = "or_default")]
    pub runtime_class_name: String,
    /// The gates: the scheduler leaves the pod alone until all of them are removed.
    #[serde(deserialize_with = "or_default")]
    pub scheduling_gates: Vec<SchedulingGate>,
    /// Only the volumes that need a claim matter to placement.
    #[serde(deserialize_with = "or_default")]
    pub volumes: Vec<Volume>,
    /// True if the pod names claims of devices (`resourceClaims`).
    #[serde(deserialize_with = "is_filled")]
    pub resource_claims: bool,
}

impl PodSpec {
    /// Returns true if the pod has volumes that a PersistentVolumeClaim provides, or claims of devices: binding it can take
    /// minutes.
    pub fn needs_claims(&self) -> bool {
        self.resource_claims
            || self.volumes.iter().any(|volume| volume.persistent_volume_claim || volume.ephemeral)
    }

    /// The number of elements of its lists and maps that are read. A container counts like four, by its memory.
    pub fn len(&self) -> usize {
        let container = |container: &Container| {
            4 + container.ports.len() + container.resources.requests.len() + container.resources.limits.len()
        };
        let containers = self.containers.iter().chain(&self.init_containers).map(container).sum::<usize>();
        containers
            + self.placement_len()
            + self.overhead.len()
            + self.resources.requests.len()
            + self.resources.limits.len()
            + self.volumes.len()
            + self.scheduling_gates.len()
    }

    /// The number of elements that are compared with a node: of the node selector, the required node affinity and the tolerations.
    pub fn placement_len(&self) -> usize {
        let terms =
            self.affinity.node_affinity.required.iter().flat_map(|required| &required.node_selector_terms);
        let requirements =
            terms.clone().flat_map(|term| term.match_expressions.iter().chain(&term.match_fields).flatten());
        let values = requirements.map(|requirement| 1 + requirement.values.as_ref().map_or(0, Vec::len));
        terms.count() + values.sum::<usize>() + self.node_selector.len() + self.tolerations.len()
    }

    /// Returns true if the spec has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns true if the pod can be scheduled only once other objects exist, besides its node: claims, or pods that its affinity
    /// requires.
    pub fn depends_on_others(&self) -> bool {
        self.needs_claims() || self.affinity.pod_affinity.required
    }
}

/// The part of `Volume` that is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// True if the volume names a PersistentVolumeClaim.
    #[serde(deserialize_with = "is_set")]
    pub persistent_volume_claim: bool,
    /// True if a PersistentVolumeClaim is made for the volume.
    #[serde(deserialize_with = "is_set")]
    pub ephemeral: bool,
}

/// The fields of `Affinity` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    /// Rules about the labels and the name of the node.
    #[serde(deserialize_with = "or_default")]
    pub node_affinity: NodeAffinity,
    /// Rules about the pods that must run near.
    #[serde(deserialize_with = "or_default")]
    pub pod_affinity: PodAffinity,
}

/// The part of `PodAffinity` that is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodAffinity {
    /// True if there are required terms.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "is_filled")]
    pub required: bool,
}

/// The fields of `NodeAffinity` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAffinity {
    /// The terms, of which one must match the node; `None` to allow every node. Preferred terms are not read.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
}

/// A scheduling gate; its name is not read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct SchedulingGate {}

/// The fields of `Container` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Unique in the pod.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Requests and limits of the container.
    #[serde(deserialize_with = "or_default")]
    pub resources: ResourceRequirements,
    /// The ports. Only those with a port of the host matter to placement.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    #[serde(deserialize_with = "or_default")]
    pub restart_policy: String,
}

impl Container {
    /// Returns true for an init container that goes on running beside the containers (`podutil.IsRestartableInitContainer`
    /// upstream). Do not ask about other containers.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == "Always"
    }
}

/// The fields of `ContainerPort` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// The port in the container.
    #[serde(deserialize_with = "or_default")]
    pub container_port: i32,
    /// The port of the host; 0 for none.
    #[serde(deserialize_with = "or_default")]
    pub host_port: i32,
    /// The address of the host; empty for all addresses.
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
    /// The amounts that the scheduler sets aside on the node.
    #[serde(deserialize_with = "or_default")]
    pub requests: ResourceList,
    /// The most that the kubelet lets the container or pod use.
    #[serde(deserialize_with = "or_default")]
    pub limits: ResourceList,
}

/// The fields of `PodStatus` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
    /// One word for the cause of the phase, such as `Evicted`.
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    /// At most one condition of each type.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<PodCondition>,
    /// The node where preemption, or this program's nomination, makes room for the pod; empty for none.
    #[serde(deserialize_with = "or_default")]
    pub nominated_node_name: String,
    /// The status of each container that the kubelet has reported.
    #[serde(deserialize_with = "or_default")]
    pub container_statuses: Vec<ContainerStatus>,
    /// The status of each init container that the kubelet has reported.
    #[serde(deserialize_with = "or_default")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Requests of the pod as a whole that the kubelet has admitted; empty if it has reported none.
    #[serde(deserialize_with = "or_default")]
    pub allocated_resources: ResourceList,
    /// Requests and limits of the pod as a whole that are in force on the node; `None` if the kubelet has reported none.
    pub resources: Option<ResourceRequirements>,
}

/// The fields of `PodCondition` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// The type of the condition, such as `Ready`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// One word in CamelCase, such as `Unschedulable`.
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    /// A sentence for people.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}

/// The fields of `ContainerStatus` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// The name of the container.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The requests that the kubelet has admitted; empty if it has reported none.
    #[serde(deserialize_with = "or_default")]
    pub allocated_resources: ResourceList,
    /// Requests and limits in force on the node; `None` if the kubelet does not resize pods in place.
    pub resources: Option<ResourceRequirements>,
}
