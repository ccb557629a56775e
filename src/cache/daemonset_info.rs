//! A DaemonSet of the cluster, with its derived values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hashbrown::HashSet;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::PodId;
use crate::api::daemonset::DaemonSet;
use crate::api::node::Node;
use crate::daemonset::daemon_pod::{GENERATION_ANNOTATION, with_daemon_tolerations};
use crate::daemonset::placement::admits;
use crate::scheduling::host_ports::HostPort;
use crate::scheduling::label_selector;
use crate::scheduling::obstacle::Obstacle;
use crate::scheduling::resources::Resources;

/// A DaemonSet of the cluster, with the values that follow from it and from its pods.
#[derive(Debug)]
pub struct DaemonSetInfo {
    /// The UID.
    pub uid: Arc<str>,
    /// The API group: `apps` for Kubernetes' own DaemonSets.
    pub group: Arc<str>,
    /// The object.
    pub daemon_set: DaemonSet,
    /// The template's tolerations with those that the controller adds.
    pub tolerations: Vec<Toleration>,
    /// The generation of the template, from the DaemonSet's annotation; `None` without the annotation, or if it is no number.
    pub generation: Option<i64>,
    /// True if rolling updates start the new pod beside the old one.
    pub uses_surge: bool,
    /// The demand of its next pod.
    pub demand: Arc<PodDemand>,
    /// The obstacle to scheduling its next pod, as far as the template tells.
    pub obstacle: Obstacle,
    /// The reason for which admission would refuse its next pod, if it is known.
    pub refused_by: Option<AdmissionObstacle>,
    /// The creation time of its newest pod, of any template and gone or not, as the cluster writes it; empty before the first.
    pub last_created: Box<str>,
    /// The time at which the controller last failed to create a pod, as the cluster writes it; empty if it never did.
    pub creation_failed: Box<str>,
    /// True once it was deleted, until nothing refers to its id any more.
    pub(super) is_deleted: bool,
    /// Its verified pods.
    pub pods: HashSet<PodId>,
    /// The newest of `pods` that was made from the current template; `None` if there is none.
    pub newest_pod: Option<PodId>,
}

/// The reason for which admission would refuse a pod of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionObstacle {
    /// The template states a priority that is not the one of its class.
    Priority,
    /// The priority class does not exist.
    PriorityClass,
    /// A quota of the namespace leaves no room for the pod, by its status.
    Quota,
}

impl fmt::Display for AdmissionObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Priority => "admission refuses its pods: the template states a priority that its priority class does not give",
            Self::PriorityClass => "admission refuses its pods: the priority class does not exist",
            Self::Quota => "admission may refuse its pods: a quota of the namespace is used up",
        })
    }
}

/// The demand of a pod on a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodDemand {
    /// The requested amounts.
    pub requests: Resources,
    /// The requested ports of the host.
    pub host_ports: Arc<[HostPort]>,
    /// The pod's priority.
    pub priority: i32,
}

impl DaemonSetInfo {
    /// Returns the generation of the template of `daemon_set`, from its annotation; `None` without the annotation, or if it is no
    /// number.
    pub fn generation_of(daemon_set: &DaemonSet) -> Option<i64> {
        daemon_set.metadata.annotations.get(GENERATION_ANNOTATION)?.parse().ok()
    }

    /// Returns the tolerations of the template of `daemon_set`, with those that the controller adds.
    pub fn tolerations_of(daemon_set: &DaemonSet) -> Vec<Toleration> {
        let template = &daemon_set.spec.template.spec;
        with_daemon_tolerations(&template.tolerations, template.host_network)
    }

    /// Returns true if `namespace` is the DaemonSet's and its selector matches `labels`. Check both for a pod that names the
    /// DaemonSet as its controller, because every user who may create pods can write such a reference.
    pub fn owns(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let selector = self.daemon_set.spec.selector.as_ref();
        self.daemon_set.metadata.namespace == namespace
            && label_selector::matches(selector, labels) == Some(true)
    }

    /// Returns true if a pod is desired on `node` once the taints for which `is_transient_taint` is true have gone.
    ///
    /// A new Node carries `not-ready:NoSchedule`, which daemon pods do not tolerate: room must be reserved before that taint goes.
    pub fn will_run_on(&self, node: &Node, is_transient_taint: impl Fn(&Taint) -> bool) -> bool {
        admits(&self.daemon_set.spec.template.spec, &self.tolerations, node, is_transient_taint)
    }

    /// Returns true unless admission refuses each pod of the template. A quota may leave room again with any pod that goes.
    pub fn may_be_admitted(&self) -> bool {
        matches!(self.refused_by, None | Some(AdmissionObstacle::Quota))
    }

    /// Returns true if the controller's last attempt to create a pod failed, as far as whole seconds tell.
    pub fn creation_has_failed(&self) -> bool {
        !self.creation_failed.is_empty() && self.creation_failed >= self.last_created
    }

    /// Returns a key that orders DaemonSets by age, the oldest first. The UID decides between equal times, which are whole seconds.
    pub fn age_key(&self) -> (&str, &str) {
        (&self.daemon_set.metadata.creation_timestamp, &self.uid)
    }

    /// Returns `namespace/name`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.daemon_set.metadata.namespace, self.daemon_set.metadata.name)
    }
}
