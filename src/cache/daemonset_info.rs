//! A DaemonSet of the cluster, with what is asked of it for every node worked out once.

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

/// A DaemonSet of the cluster.
#[derive(Debug)]
pub struct DaemonSetInfo {
    /// Its UID.
    pub uid: Arc<str>,
    /// Its API group.
    pub group: Arc<str>,
    /// The object.
    pub daemon_set: DaemonSet,
    /// The template's tolerations with the controller's own.
    pub tolerations: Vec<Toleration>,
    /// The generation of its template, where it says so.
    pub generation: Option<i64>,
    /// Changes whenever the template does.
    pub template_version: u64,
    /// Whether rolling updates start the new pod beside the old one.
    pub uses_surge: bool,
    /// What a pod of it will ask for.
    pub demand: PodDemand,
    /// Its pods, genuine ones only.
    pub pods: HashSet<PodId>,
    /// The newest of its pods that was made from the current template.
    pub newest_pod: Option<PodId>,
}

/// What a pod takes of a node, and how important it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodDemand {
    /// What it asks for.
    pub requests: Resources,
    /// Ports of the host.
    pub host_ports: Box<[HostPort]>,
    /// Its priority.
    pub priority: i32,
}

impl DaemonSetInfo {
    /// The generation of the template of `daemon_set`.
    pub fn generation_of(daemon_set: &DaemonSet) -> Option<i64> {
        daemon_set.metadata.annotations.get(GENERATION_ANNOTATION)?.parse().ok()
    }

    /// The template's tolerations of `daemon_set` with the controller's own.
    pub fn tolerations_of(daemon_set: &DaemonSet) -> Vec<Toleration> {
        let template = &daemon_set.spec.template.spec;
        with_daemon_tolerations(&template.tolerations, template.host_network)
    }

    /// Whether a pod with these labels in this namespace, which names it as its controller, is one of its own: anybody can write
    /// such a name.
    pub fn owns(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let selector = self.daemon_set.spec.selector.as_ref();
        self.daemon_set.metadata.namespace == namespace
            && label_selector::matches(selector, labels) == Some(true)
    }

    /// Whether a pod of it belongs on `node` once the taints that go by themselves have gone.
    ///
    /// A new Node carries `not-ready:NoSchedule`, which daemon pods do not tolerate: room must be kept before it goes.
    pub fn will_run_on(&self, node: &Node, is_transient_taint: impl Fn(&Taint) -> bool) -> bool {
        admits(&self.daemon_set.spec.template.spec, &self.tolerations, node, is_transient_taint)
    }

    /// What to call it: `namespace/name`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.daemon_set.metadata.namespace, self.daemon_set.metadata.name)
    }
}
