//! The bounds of a DaemonSet that is checked against the cluster, and the work of the check.
//!
//! Whoever reaches the port can send any DaemonSet, and nodes are read while the cache is locked. So the elements and the texts are
//! bounded before the cache is locked, and the steps of each hold of the lock and of each review.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Unread;
use crate::api::daemonset::DaemonSet;
use crate::api::pod::{Container, PodSpec, ResourceList};
use crate::scheduling::label_selector::{self, expressions};

/// The most elements of a DaemonSet that is checked against the cluster: some of the rules clone it under the lock. DaemonSets have
/// fewer than a hundred.
const MAX_ELEMENTS: usize = 5_000;
/// The steps of one hold of the cache's lock, each of 100 ns at most: one millisecond.
pub(super) const BATCH_STEPS: usize = 10_000;
/// The steps of one DaemonSet: 0.5 s at most, of the 3 s that the apiserver waits. For 5,000 nodes these are 1,000 for each, and a
/// usual DaemonSet takes a hundred. The stored DaemonSet has as many, and is read only if a fault of the new one is denied.
const MAX_STEPS: usize = 5_000_000;
/// The steps of a node besides the comparisons of labels, taints and resources: one for each pod of a usual node.
const NODE_STEPS: usize = 50;
/// The taints of a usual node.
const NODE_TAINTS: usize = 3;
/// The steps of a resource on a node: it is looked up, and may be short.
const RESOURCE_STEPS: usize = 4;
/// The most resources that are compared; see [`limit_scalars`](crate::scheduling::resources::Resources::limit_scalars).
const MAX_RESOURCES: usize = 64;
/// The steps of another DaemonSet of the namespace, with selectors of the most requirements that are compared.
const OTHER_STEPS: usize = 100;
/// The bytes of a key that are one more step: its syntax is checked with each node that it matches.
const STEP_BYTES: usize = 32;

/// The longest name of an object, in bytes.
const MAX_NAME: usize = 253;
/// The longest key of a label: a prefix, a slash and a name.
const MAX_KEY: usize = MAX_NAME + 1 + MAX_VALUE;
/// The longest value of a label.
const MAX_VALUE: usize = 63;

/// Returns the steps of one node.
///
/// # Errors
/// Fails if the DaemonSet has too many elements, or a text that is longer than Kubernetes allows, or keys of labels in its
/// placement that are none. The apiserver admits no such text.
pub(super) fn steps_of_node(daemon_set: &DaemonSet) -> Result<usize, Unread> {
    if elements(daemon_set) > MAX_ELEMENTS || !has_usual_texts(daemon_set) {
        return Err(Unread::TooLarge);
    }
    let template = &daemon_set.spec.template.spec;
    Ok(NODE_STEPS + comparisons(template) + RESOURCE_STEPS * resources(template).min(MAX_RESOURCES))
}

/// Returns the steps of a check against so many nodes and other DaemonSets.
///
/// # Errors
/// Fails if they are too many.
pub(super) fn steps(nodes: usize, of_node: usize, others: usize) -> Result<usize, Unread> {
    let of_nodes = nodes.saturating_mul(of_node);
    let is_usual = of_nodes <= MAX_STEPS;
    is_usual.then(|| of_nodes.saturating_add(others.saturating_mul(OTHER_STEPS))).ok_or(Unread::TooLarge)
}

/// Returns the number of elements that the rules may visit.
fn elements(daemon_set: &DaemonSet) -> usize {
    let template = &daemon_set.spec.template;
    let containers = template.spec.containers.iter().chain(&template.spec.init_containers);
    let selector = daemon_set.spec.selector.as_ref().map_or(0, requirements);
    selector
        + template.metadata.labels.len()
        + comparisons(&template.spec)
        + resources(&template.spec)
        + containers.map(|container| 1 + container.ports.len()).sum::<usize>()
}

/// Returns the number of labels and values that a selector names.
pub(super) fn requirements(selector: &LabelSelector) -> usize {
    let values = expressions(selector).iter().map(|one| 1 + one.values.as_ref().map_or(0, Vec::len));
    selector.match_labels.as_ref().map_or(0, |labels| labels.len()) + values.sum::<usize>()
}

/// Returns the number of comparisons of a pod of `template` with one node.
fn comparisons(template: &PodSpec) -> usize {
    let requirements = terms(template).map(|term| {
        let of_requirement = |one: &NodeSelectorRequirement| {
            1 + one.key.len() / STEP_BYTES + one.values.as_ref().map_or(0, Vec::len)
        };
        1 + requirements_of(term).map(of_requirement).sum::<usize>()
    });
    template.node_selector.len() + NODE_TAINTS * template.tolerations.len() + requirements.sum::<usize>()
}

fn terms(template: &PodSpec) -> impl Iterator<Item = &NodeSelectorTerm> {
    template.affinity.node_affinity.required.iter().flat_map(|required| &required.node_selector_terms)
}

fn requirements_of(term: &NodeSelectorTerm) -> impl Iterator<Item = &NodeSelectorRequirement> {
    term.match_expressions.iter().chain(&term.match_fields).flatten()
}

/// Returns the lists of amounts of a template.
fn resource_lists(template: &PodSpec) -> impl Iterator<Item = &ResourceList> {
    let containers = template.containers.iter().chain(&template.init_containers);
    let of_containers = containers.map(|container| &container.resources);
    let all = of_containers.chain([&template.resources]);
    all.flat_map(|resources| [&resources.requests, &resources.limits]).chain([&template.overhead])
}

fn resources(template: &PodSpec) -> usize {
    resource_lists(template).map(ResourceList::len).sum()
}

/// Returns true if no text that the rules read is longer than Kubernetes allows, and the keys of labels in the placement are such.
fn has_usual_texts(daemon_set: &DaemonSet) -> bool {
    let (metadata, spec) = (&daemon_set.metadata, &daemon_set.spec.template.spec);
    let names = [
        &metadata.name,
        &metadata.namespace,
        &spec.node_name,
        &spec.scheduler_name,
        &spec.priority_class_name,
        &spec.preemption_policy,
        &spec.dns_policy,
        &spec.restart_policy,
        &spec.runtime_class_name,
    ];
    let containers = || spec.containers.iter().chain(&spec.init_containers);
    let is_usual_container = |container: &Container| {
        let ports = &container.ports;
        is_name(&container.name)
            && is_name(&container.restart_policy)
            && ports.iter().all(|port| is_name(&port.host_ip) && is_name(&port.protocol))
    };
    names.into_iter().all(|name| is_name(name))
        && daemon_set.spec.selector.as_ref().is_none_or(has_usual_selector_texts)
        && daemon_set.spec.template.metadata.labels.iter().all(|(key, value)| is_label(key, value))
        && spec.node_selector.iter().all(|(key, value)| is_key(key) && is_value(value))
        && terms(spec).all(has_usual_term_texts)
        && spec.tolerations.iter().all(has_usual_toleration_texts)
        && resource_lists(spec).flat_map(|list| list.keys()).all(|name| name.len() <= MAX_KEY)
        && containers().all(is_usual_container)
}

fn has_usual_selector_texts(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().all(|(key, value)| is_label(key, value))
        && expressions(selector).iter().all(|one| {
            let values = one.values.iter().flatten();
            one.key.len() <= MAX_KEY && is_name(&one.operator) && values.clone().all(|value| is_value(value))
        })
}

fn has_usual_term_texts(term: &NodeSelectorTerm) -> bool {
    let expression = |one: &NodeSelectorRequirement| {
        is_key(&one.key) && is_name(&one.operator) && one.values.iter().flatten().all(|value| is_value(value))
    };
    let field = |one: &NodeSelectorRequirement| {
        is_name(&one.key) && is_name(&one.operator) && one.values.iter().flatten().all(|value| is_name(value))
    };
    term.match_expressions.iter().flatten().all(expression) && term.match_fields.iter().flatten().all(field)
}

fn has_usual_toleration_texts(toleration: &Toleration) -> bool {
    let is_short = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= MAX_KEY);
    let Toleration { key, operator, value, effect, .. } = toleration;
    [key, operator, value, effect].into_iter().all(is_short)
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
}

fn is_label(key: &str, value: &str) -> bool {
    key.len() <= MAX_KEY && is_value(value)
}

fn is_key(text: &str) -> bool {
    text.len() <= MAX_KEY && label_selector::key_is_valid(text)
}

fn is_value(text: &str) -> bool {
    text.len() <= MAX_VALUE
}
