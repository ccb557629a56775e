//! The patch of `/mutate` for a daemon pod: JSON Patch operations on the raw object.
//!
//! Pods of the DaemonSet controller already have its node affinity and tolerations, and get no patch. Pods that their controller
//! binds by `spec.nodeName` (Kubernetes before 1.12; OpenKruise and hand-written controllers today) bypass the scheduler, and so
//! priority and preemption. The patch replaces `spec.nodeName` by the DaemonSet controller's node affinity and tolerations, so
//! that the default scheduler places the pod. No operation is serialised from a typed object: unknown fields survive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorTerm};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::de::StrRead;
use serde_json::value::RawValue;

use super::default_priority::{self, CandidatePod};
use super::patch::{Patch, raw};
use crate::api::admission_v1::{AdmissionRequest, BadReview};
use crate::api::decode_budget::DecodeBudget;
use crate::api::meta::{
    Metadata, OwnerReference, Text, object, object_or_default, or_default, parse_object, text, visit_list,
    visit_map,
};
use crate::api::pod::{Affinity, MIRROR_ANNOTATION, NodeAffinity, PodSpec};
use crate::cache::Cache;
use crate::daemonset::daemon_pod::{
    LEGACY_SCHEDULER_NAME, daemon_set_reference, daemon_tolerations, is_same_toleration, is_target_affinity,
    target_node_name, target_terms, toleration,
};
use crate::policy::Policy;
use crate::policy::opt_out::{is_opted_out, opts_out};
use crate::scheduling::label_selector;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const TERMS: &str = "nodeSelectorTerms";
/// The copies of a pod's tolerations, which may be most of it, until the patch is sent: the value, the patch as JSON, in base64 (a third
/// longer), and the response.
const PATCH_COPIES: usize = 5;

/// The choices of a pod's namespace, read from its labels while the cache is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceChoice {
    /// The namespace has opted out.
    is_opted_out: bool,
    /// The namespace's pods get no tolerations.
    skips_tolerations: bool,
}

impl NamespaceChoice {
    /// Reads the labels of a namespace.
    pub fn of(policy: &Policy, labels: &BTreeMap<String, String>) -> Self {
        let selector = policy.admission.skip_tolerations.as_ref();
        let skips = |selector| label_selector::matches(Some(selector), labels) == Some(true);
        Self { is_opted_out: is_opted_out(labels), skips_tolerations: selector.is_some_and(skips) }
    }

    /// Returns the choices of a namespace that the cache does not have. The apiserver labels every namespace with its name, so the
    /// usual selectors work without a cluster.
    fn of_unknown(policy: &Policy, name: &str) -> Self {
        Self::of(policy, &BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]))
    }
}

/// Returns the patch for the pod that `request` creates, however large; empty for any other request.
///
/// `namespace_labels` are the labels of the request's namespace; with `None`, the namespace counts as having only its name label.
/// Pass `cluster` only while the cache is fresh; without it, no priority class is added.
///
/// # Errors
/// Fails if a CREATE of a pod has no object, or if the object does not have the shape of a pod.
pub fn review(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    namespace_labels: Option<&BTreeMap<String, String>>,
    cluster: Option<&Cache>,
) -> Result<Patch, BadReview> {
    let namespace = namespace_labels.map(|labels| NamespaceChoice::of(policy, labels));
    let may_have = |pod: &CandidatePod| {
        cluster.is_some_and(|cluster| default_priority::may_have(policy, &request.namespace, pod, cluster))
    };
    review_within(policy, request, namespace, &DecodeBudget::default(), may_have)
}

/// Returns the patch as [`review`] does; an empty one for a pod that takes more memory than `budget` has: [`DecodeBudget::is_exceeded`]
/// says so. A daemon pod is never refused.
///
/// `may_have_class` is called once at most, for a pod that may get the configured priority class as far as its own fields say:
/// [`default_priority::may_have`] decides, with a fresh cache.
///
/// # Errors
/// As [`review`].
pub fn review_within(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    namespace: Option<NamespaceChoice>,
    budget: &DecodeBudget<'_>,
    may_have_class: impl FnOnce(&CandidatePod) -> bool,
) -> Result<Patch, BadReview> {
    // Every field that the patch changes is immutable once the pod is stored.
    if !request.is_pod() || request.operation != "CREATE" {
        return Ok(Patch::default());
    }
    let object = request.object.ok_or_else(|| BadReview::NoObject(request.operation.clone().into_owned()))?;
    let pod = match budget.decode_object(object) {
        Ok(pod) => pod,
        Err(_) if budget.is_exceeded() => return Ok(Patch::default()),
        Err(error) => return Err(bad_pod(error)),
    };
    if budget.charge(object.len().saturating_mul(PATCH_COPIES)).is_err() {
        return Ok(Patch::default());
    }
    let namespace = namespace.unwrap_or_else(|| NamespaceChoice::of_unknown(policy, &request.namespace));
    let mut patch = patch(policy, pod, namespace);
    if !namespace.is_opted_out {
        default_priority::add(policy, request, object, budget, may_have_class, &mut patch);
    }
    Ok(patch)
}

/// The fields of a pod that the patch depends on. Values that the patch carries over stay raw.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPod<'a> {
    #[serde(deserialize_with = "object_or_default")]
    metadata: PodMetadata,
    #[serde(borrow, deserialize_with = "object")]
    spec: Option<RawSpec<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodMetadata {
    #[serde(rename = "labels", deserialize_with = "has_opt_out_label")]
    is_opted_out: bool,
    #[serde(rename = "annotations", deserialize_with = "has_mirror_annotation")]
    is_mirror: bool,
    #[serde(rename = "ownerReferences", deserialize_with = "controller")]
    controller: Option<OwnerReference>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec<'a> {
    #[serde(borrow, deserialize_with = "text")]
    node_name: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    scheduler_name: Cow<'a, str>,
    #[serde(deserialize_with = "or_default")]
    host_network: bool,
    #[serde(deserialize_with = "object")]
    affinity: Option<RawAffinity>,
    #[serde(borrow, deserialize_with = "tolerations")]
    tolerations: Vec<RawToleration<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAffinity {
    #[serde(deserialize_with = "object")]
    node_affinity: Option<NodeAffinity>,
}

/// A toleration as the client sent it, and the fields that are compared with those of the daemon tolerations.
struct RawToleration<'a> {
    sent: &'a RawValue,
    fields: Toleration<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Toleration<'a> {
    #[serde(borrow, deserialize_with = "text")]
    key: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    operator: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    value: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    effect: Cow<'a, str>,
    toleration_seconds: Option<i64>,
}

impl<'de> Deserialize<'de> for RawToleration<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let sent = <&RawValue>::deserialize(from)?;
        let fields = parse_object(StrRead::new(sent.get())).map_err(D::Error::custom)?;
        Ok(Self { sent, fields })
    }
}

fn has_opt_out_label<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let mut found = false;
    visit_map(from, |key: Text<'de>, value: Option<Text<'de>>| {
        found |= value.is_some_and(|value| opts_out(&key.0, &value.0));
    })?;
    Ok(found)
}

fn has_mirror_annotation<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let mut found = false;
    visit_map(from, |key: Text<'de>, _: Option<Text<'de>>| found |= key.0 == MIRROR_ANNOTATION)?;
    Ok(found)
}

/// Decodes a pod's tolerations.
fn tolerations<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RawToleration<'de>>, D::Error> {
    let mut list = Vec::new();
    visit_list(from, |toleration| {
        list.push(toleration);
        Ok(())
    })?;
    Ok(list)
}

/// Reads owner references and returns the controller, the first with `controller: true`; `None` if there is none. Keeps no other
/// reference, so that a list of any length takes no memory.
fn controller<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OwnerReference>, D::Error> {
    #[derive(Deserialize)]
    struct OwnerItem(#[serde(deserialize_with = "object_or_default")] OwnerReference);
    let mut controller = None;
    visit_list(from, |OwnerItem(reference)| {
        if controller.is_none() && reference.controller == Some(true) {
            controller = Some(reference);
        }
        Ok(())
    })?;
    Ok(controller)
}

fn patch(policy: &Policy, pod: RawPod<'_>, namespace: NamespaceChoice) -> Patch {
    let mut patch = Patch::default();
    let PodMetadata { is_opted_out: pod_is_opted_out, is_mirror, controller } = pod.metadata;
    let metadata = Metadata { owner_references: controller.into_iter().collect(), ..Metadata::default() };
    let owned = !is_mirror && daemon_set_reference(&policy.daemon_set_kinds, &metadata).is_some();
    let Some(spec) = pod.spec.filter(|_| owned) else { return patch };
    if pod_is_opted_out || namespace.is_opted_out {
        return patch;
    }
    let exists = spec.affinity.is_some();
    let node_affinity = spec.affinity.and_then(|affinity| affinity.node_affinity);
    let has_node_affinity = node_affinity.is_some();
    let trimmed = PodSpec {
        node_name: spec.node_name.into_owned(),
        affinity: Affinity { node_affinity: node_affinity.unwrap_or_default(), ..Affinity::default() },
        ..PodSpec::default()
    };
    // The node of a pod without a target is unknown. The pod passes unchanged: a refusal would stall its controller.
    let Some(target) = target_node_name(&trimmed) else { return patch };

    let required = trimmed.affinity.node_affinity.required.as_ref();
    set_affinity(&mut patch, exists, has_node_affinity, required, target);
    if !namespace.skips_tolerations {
        set_tolerations(&mut patch, &spec.tolerations, spec.host_network);
    }
    if spec.scheduler_name == LEGACY_SCHEDULER_NAME {
        patch.add(&["spec", "schedulerName"], policy.admission.scheduler_name.as_str());
    }
    if !trimmed.node_name.is_empty() {
        patch.remove(&["spec", "nodeName"]);
    }
    patch
}

/// Sets the required node affinity to `target`, at the deepest level of the path that is missing or wrong: fields beside it stay.
/// Does nothing if the affinity is right already. `exists` is true if the pod has an affinity.
fn set_affinity(
    patch: &mut Patch,
    exists: bool,
    has_node_affinity: bool,
    required: Option<&NodeSelector>,
    target: &str,
) {
    if required.is_some_and(|required| is_target_affinity(required, target)) {
        return;
    }
    let path = ["spec", "affinity", "nodeAffinity", REQUIRED, TERMS];
    let depth = match (exists, has_node_affinity, required) {
        (false, ..) => 2,
        (true, false, _) => 3,
        (true, true, None) => 4,
        (true, true, Some(_)) => 5,
    };
    let (path, levels) = path.split_at(depth);
    patch.add_raw(path, &NestedTerms { levels, terms: &target_terms(target) });
}

/// Node selector terms below the levels of the path that the pod lacks.
struct NestedTerms<'a> {
    levels: &'a [&'static str],
    terms: &'a [NodeSelectorTerm],
}

impl Serialize for NestedTerms<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Some((level, levels)) = self.levels.split_first() else { return self.terms.serialize(to) };
        to.collect_map([(level, NestedTerms { levels, terms: self.terms })])
    }
}

/// The daemon tolerations as JSON, in the order of [`daemon_tolerations`]. They are written once, because each patch has them.
static DAEMON_TOLERATIONS: LazyLock<Vec<Box<RawValue>>> = LazyLock::new(|| {
    daemon_tolerations(true).iter().map(|(key, effect)| raw(&toleration(key, effect))).collect()
});

/// Adds the daemon tolerations by setting the whole list, so that the result does not depend on what another webhook appends. Does
/// nothing if the pod has all of them without a time limit.
fn set_tolerations(patch: &mut Patch, existing: &[RawToleration<'_>], host_network: bool) {
    let required = daemon_tolerations(host_network);
    let position = |own: &RawToleration<'_>| {
        let Toleration { key, operator, value, effect, .. } = &own.fields;
        required.iter().position(|daemon| is_same_toleration([key, operator, value, effect], *daemon))
    };
    let positions: Vec<Option<usize>> = existing.iter().map(position).collect();
    let replaces = existing
        .iter()
        .zip(&positions)
        .any(|(own, position)| position.is_some() && own.fields.toleration_seconds.is_some());
    let mut missing = (0..required.len()).filter(|index| !positions.contains(&Some(*index))).peekable();
    if !replaces && missing.peek().is_none() {
        return;
    }
    let daemon = |index: usize| &*DAEMON_TOLERATIONS[index];
    // Tolerations of the pod stay byte for byte: they may have unknown fields, and numbers of any length.
    let listed = existing.iter().zip(&positions).map(|(own, position)| match position {
        Some(index) if own.fields.toleration_seconds.is_some() => daemon(*index),
        _ => own.sent,
    });
    let list: Vec<&RawValue> = listed.chain(missing.map(daemon)).collect();
    patch.add_raw(&["spec", "tolerations"], &list);
}

fn bad_pod(source: serde_json::Error) -> BadReview {
    BadReview::BadObject { field: "object", kind: "Pod".to_owned(), source }
}
