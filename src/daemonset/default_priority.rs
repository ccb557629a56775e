//! The priority class that daemon pods without one get, if one is configured: so that they can preempt ordinary pods.
//!
//! A class is worth something, so it is given only to pods that a trusted controller creates for a DaemonSet that exists, and
//! only where nothing can refuse the pod for it: it is never made inadmissible.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::admission::AdmissionRequest;
use super::cluster::{Cluster, PriorityClass};
use super::policy::Policy;
use super::quota;
use crate::scheduling::label_selector;
use crate::scheduling::object::{Metadata, OwnerReference};

/// Classes that the apiserver makes.
const SYSTEM_PREFIX: &str = "system-";

/// What is known of the pod's own priority.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnPriority<'p> {
    /// Its class; admission has already written the cluster's default one there, if there is one.
    pub class: &'p str,
}

/// The class to give to the pod that `request` creates, controlled by `owner`; `None` to leave it alone.
///
/// `cluster` must be known in full: whether a class exists and what a quota says cannot be guessed.
pub fn class_for<'p>(
    policy: &'p Policy,
    request: &AdmissionRequest<'_>,
    pod: &Metadata,
    owner: &OwnerReference,
    own: OwnPriority<'_>,
    cluster: &Cluster,
) -> Option<&'p str> {
    let class = policy.admission.default_priority_class_name.as_str();
    let is_trusted = policy.trusted_controllers.iter().any(|name| *name == request.user_info.username);
    if class.is_empty() || !is_trusted || own.class == class {
        return None;
    }
    let namespace = &*request.namespace;
    let daemon_set = &cluster.daemon_set(&owner.uid)?.1.daemon_set;
    let is_genuine = daemon_set.metadata.namespace == namespace
        && daemon_set.metadata.name == owner.name
        && selects(daemon_set.spec.selector.as_ref(), &pod.labels)
        // What its author chose stays, even if it is the cluster's default.
        && daemon_set.spec.template.spec.priority_class_name.is_empty()
        && daemon_set.spec.template.spec.priority.is_none();
    // The cluster's default class is in the pod already and cannot be told from a chosen one but by its name.
    let is_unset =
        own.class.is_empty() || cluster.priority_class(own.class).is_some_and(|class| class.global_default);
    let admissible =
        is_genuine && is_unset && exists(cluster, class) && !may_refuse(cluster, namespace, class, own.class);
    admissible.then_some(class)
}

fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    label_selector::matches(selector, labels) == Some(true)
}

fn exists(cluster: &Cluster, class: &str) -> bool {
    cluster.priority_class(class).is_some_and(|class: &PriorityClass| !class.metadata.is_deleting())
}

/// Whether a quota could refuse the pod because of its new class.
///
/// A quota that counts the pod either way changes nothing. One that counts it only with the new class may be used up. And a
/// system class outside kube-system may need a quota of its own, which we cannot know to have room.
fn may_refuse(cluster: &Cluster, namespace: &str, class: &str, before: &str) -> bool {
    let mut quotas = cluster.resource_quotas(namespace);
    let newly_counted =
        quotas.any(|quota| quota::may_count(quota, class) && !quota::may_count(quota, before));
    newly_counted || class.starts_with(SYSTEM_PREFIX) && namespace != "kube-system"
}
