//! What `/mutate` makes of a daemon pod: JSON Patch operations, written one by one on the raw object.
//!
//! Pods of Kubernetes' own controller already have all of it and get no patch. Pods that their controller binds by
//! `spec.nodeName` (after kubernetes before 1.12; OpenKruise and hand-written controllers today) bypass the scheduler, and with
//! it priority and preemption: they get the controller's node affinity and tolerations instead, so that the default scheduler
//! places them. Nothing is ever serialised from a typed object: fields that we do not know survive.

use std::borrow::Cow;
use std::collections::BTreeMap;

use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use jsonptr::PointerBuf;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::admission::{AdmissionRequest, BadReview, IGNORE_LABEL};
use super::daemon_pod::{
    LEGACY_SCHEDULER_NAME, daemon_set_reference, daemon_tolerations, is_target_affinity, target_node_name,
    target_terms,
};
use super::policy::Policy;
use crate::scheduling::label_selector;
use crate::scheduling::object::{Metadata, or_default};
use crate::scheduling::pod::{Affinity, PodSpec};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// The patch for the pod that `request` creates; empty for anything else.
///
/// `namespace_labels` are those of the request's namespace, if they are known.
///
/// # Errors
/// When the object is no pod.
pub fn review(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    namespace_labels: Option<&BTreeMap<String, String>>,
) -> Result<Vec<PatchOperation>, BadReview> {
    // All that is changed here is immutable once the pod is stored.
    if !request.is_pod() || request.operation != "CREATE" {
        return Ok(Vec::new());
    }
    let object = request.object.ok_or_else(|| BadReview::NoObject(request.operation.clone().into_owned()))?;
    let pod: RawPod<'_> = serde_json::from_str(object.get()).map_err(bad_pod)?;
    let default_labels;
    let namespace_labels = match namespace_labels {
        Some(labels) => labels,
        None => {
            // Every namespace has its name as a label, so the usual selectors work even without a cluster.
            let name = ("kubernetes.io/metadata.name".to_owned(), request.namespace.clone().into_owned());
            default_labels = BTreeMap::from([name]);
            &default_labels
        }
    };
    patch(policy, &pod, namespace_labels)
}

/// A pod with what is changed left raw.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPod<'a> {
    #[serde(deserialize_with = "or_default")]
    metadata: Metadata,
    #[serde(borrow)]
    spec: Option<RawSpec<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec<'a> {
    #[serde(borrow)]
    node_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    scheduler_name: Option<Cow<'a, str>>,
    host_network: Option<bool>,
    #[serde(borrow)]
    affinity: Option<&'a RawValue>,
    #[serde(borrow)]
    tolerations: Option<Vec<&'a RawValue>>,
}

fn patch(
    policy: &Policy,
    pod: &RawPod<'_>,
    namespace_labels: &BTreeMap<String, String>,
) -> Result<Vec<PatchOperation>, BadReview> {
    let mut operations = Vec::new();
    let owned = daemon_set_reference(&policy.daemon_set_kinds, &pod.metadata).is_some();
    let Some(spec) = pod.spec.as_ref().filter(|_| owned) else { return Ok(operations) };
    if is_ignored(&pod.metadata.labels) || is_ignored(namespace_labels) {
        return Ok(operations);
    }
    let shape: AffinityShape = spec
        .affinity
        .map_or(Ok(None), |raw| serde_json::from_str(raw.get()))
        .map_err(bad_pod)?
        .unwrap_or_default();
    let lean = PodSpec {
        node_name: spec.node_name.as_deref().unwrap_or_default().to_owned(),
        affinity: shape.affinity(),
        ..PodSpec::default()
    };
    // Without a target nobody knows where the pod belongs: not ours to invent one, and refusing it would stall its controller.
    let Some(target) = target_node_name(&lean) else { return Ok(operations) };

    operations.extend(affinity_operation(spec.affinity, &shape, target));
    if !skips_tolerations(policy, namespace_labels) {
        operations.extend(toleration_operation(spec)?);
    }
    if spec.scheduler_name.as_deref() == Some(LEGACY_SCHEDULER_NAME) {
        operations.push(add(&["spec", "schedulerName"], json!(policy.admission.scheduler_name)));
    }
    if !lean.node_name.is_empty() {
        operations.push(PatchOperation::Remove(RemoveOperation { path: pointer(&["spec", "nodeName"]) }));
    }
    Ok(operations)
}

/// Which levels of the affinity exist, and the required terms.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityShape {
    node_affinity: Option<crate::scheduling::pod::NodeAffinity>,
}

impl AffinityShape {
    fn affinity(&self) -> Affinity {
        Affinity { node_affinity: self.node_affinity.clone().unwrap_or_default() }
    }
}

/// Sets the deepest level that is missing or wrong; everything beside it is left alone.
fn affinity_operation(raw: Option<&RawValue>, shape: &AffinityShape, target: &str) -> Option<PatchOperation> {
    let terms = json!(target_terms(target));
    let Some(node_affinity) = &shape.node_affinity else {
        let value = json!({REQUIRED: {"nodeSelectorTerms": terms}});
        let is_object = raw.is_some_and(|raw| raw.get() != "null");
        return Some(if is_object {
            add(&["spec", "affinity", "nodeAffinity"], value)
        } else {
            add(&["spec", "affinity"], json!({"nodeAffinity": value}))
        });
    };
    match &node_affinity.required {
        None => {
            Some(add(&["spec", "affinity", "nodeAffinity", REQUIRED], json!({"nodeSelectorTerms": terms})))
        }
        Some(required) if is_target_affinity(required, target) => None,
        Some(_) => Some(add(&["spec", "affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"], terms)),
    }
}

/// Sets the whole list, so that it does not matter what another webhook has appended to it; nothing when it has them all.
fn toleration_operation(spec: &RawSpec<'_>) -> Result<Option<PatchOperation>, BadReview> {
    let raw = spec.tolerations.as_deref().unwrap_or_default();
    let existing: Vec<TolerationView<'_>> = raw
        .iter()
        .map(|raw| {
            serde_json::from_str::<Option<_>>(raw.get()).map(Option::unwrap_or_default).map_err(bad_pod)
        })
        .collect::<Result<_, _>>()?;
    let wanted = daemon_tolerations(spec.host_network.unwrap_or(false));
    let place = |own: &TolerationView<'_>| wanted.iter().position(|(key, effect)| own.is_same(key, effect));
    let places: Vec<Option<usize>> = existing.iter().map(place).collect();
    let replaces = existing.iter().zip(&places).any(|(own, place)| place.is_some() && own.seconds.is_some());
    let missing: Vec<_> = (0..wanted.len()).filter(|index| !places.contains(&Some(*index))).collect();
    if !replaces && missing.is_empty() {
        return Ok(None);
    }
    let toleration = |index: usize| {
        let (key, effect) = wanted[index];
        json!({"key": key, "operator": "Exists", "effect": effect})
    };
    let mut merged = Vec::with_capacity(raw.len() + missing.len());
    for ((raw, own), place) in raw.iter().zip(&existing).zip(places) {
        merged.push(match place {
            Some(index) if own.seconds.is_some() => toleration(index),
            _ => serde_json::from_str::<Value>(raw.get()).map_err(bad_pod)?,
        });
    }
    merged.extend(missing.into_iter().map(toleration));
    Ok(Some(add(&["spec", "tolerations"], Value::Array(merged))))
}

/// A toleration as far as it is compared.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TolerationView<'a> {
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    operator: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    #[serde(borrow)]
    effect: Option<Cow<'a, str>>,
    #[serde(rename = "tolerationSeconds")]
    seconds: Option<i64>,
}

impl TolerationView<'_> {
    fn is_same(&self, key: &str, effect: &str) -> bool {
        self.key.as_deref() == Some(key)
            && self.effect.as_deref() == Some(effect)
            && self.operator.as_deref() == Some("Exists")
            && self.value.as_deref().unwrap_or_default().is_empty()
    }
}

/// Whether labels opt out of everything.
pub fn is_ignored(labels: &BTreeMap<String, String>) -> bool {
    labels.get(IGNORE_LABEL).is_some_and(|value| value == "true")
}

fn skips_tolerations(policy: &Policy, namespace_labels: &BTreeMap<String, String>) -> bool {
    let selector = policy.admission.skip_tolerations.as_ref();
    selector.is_some_and(|selector| label_selector::matches(Some(selector), namespace_labels) == Some(true))
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: pointer(path), value })
}

fn pointer(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().copied())
}

fn bad_pod(source: serde_json::Error) -> BadReview {
    BadReview::BadObject { field: "object", kind: "Pod".to_owned(), source }
}
