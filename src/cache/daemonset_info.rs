//! A DaemonSet of the cluster, with its derived values.

use std::collections::BTreeMap;
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
    /// A number that changes with the template. No two DaemonSets have the same.
    pub template_version: u64,
    /// True if rolling updates start the new pod beside the old one.
    pub uses_surge: bool,
    /// The requests, host ports and priority that are expected of the next pod.
    pub demand: PodDemand,
    /// The verified pods: those that name the DaemonSet as their controller and that it [owns](Self::owns).
    pub pods: HashSet<PodId>,
    /// The newest of `pods` that was made from the current template; `None` if there is none.
    pub newest_pod: Option<PodId>,
}

/// The demand of a pod on its node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodDemand {
    /// The requested amounts.
    pub requests: Resources,
    /// The requested ports of the host.
    pub host_ports: Box<[HostPort]>,
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

    /// Returns `namespace/name`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.daemon_set.metadata.namespace, self.daemon_set.metadata.name)
    }
}
