//! What `/mutate` makes of a daemon pod: JSON Patch operations, written one by one on the raw object.
//!
//! Pods of Kubernetes' own controller already have all of it and get no patch. Pods that their controller binds by
//! `spec.nodeName` (after kubernetes before 1.12; OpenKruise and hand-written controllers today) bypass the scheduler, and with
//! it priority and preemption: they get the controller's node affinity and tolerations instead, so that the default scheduler
//! places them. Nothing is ever serialised from a typed object: fields that we do not know survive.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NodeSelector;
use serde::de::Error as _;

use super::admission::{AdmissionRequest, BadReview};
use super::cluster::Cluster;
use super::daemon_pod::{
    LEGACY_SCHEDULER_NAME, daemon_set_reference, daemon_tolerations, is_target_affinity, target_node_name,
};
use super::default_priority;
use super::json::nullable::{
    optional_array, optional_bool, optional_integer, optional_object, optional_text,
};
use super::json::{Fault, Scanner, Text};
use super::opt_out::{IGNORE_LABEL, is_ignored};
use super::patch::{Patch, push_string};
use super::policy::Policy;
use crate::scheduling::label_selector;
use crate::scheduling::object::{Metadata, OwnerReference};
use crate::scheduling::pod::{Affinity, MIRROR_ANNOTATION, NodeAffinity, PodSpec};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const TERMS: &str = "nodeSelectorTerms";
/// More than fit into an object that the apiserver stores; without it, 8 MiB of `{}` would cost forty times as much memory.
const MAX_TOLERATIONS: usize = 50_000;

/// The patch for the pod that `request` creates; empty for anything else.
///
/// `namespace_labels` are those of the request's namespace, if they are known; `cluster` is given only while it is known in
/// full, and no priority class without it.
///
/// # Errors
/// When the object is no pod.
pub fn review(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    namespace_labels: Option<&BTreeMap<String, String>>,
    cluster: Option<&Cluster>,
) -> Result<Patch, BadReview> {
    // All that is changed here is immutable once the pod is stored.
    if !request.is_pod() || request.operation != "CREATE" {
        return Ok(Patch::default());
    }
    let object = request.object.ok_or_else(|| BadReview::NoObject(request.operation.clone().into_owned()))?;
    let pod = RawPod::parse(object).map_err(bad_pod)?;
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
    let mut patch = patch(policy, pod, namespace_labels).map_err(bad_pod)?;
    if let Some(cluster) = cluster.filter(|_| !is_ignored(namespace_labels)) {
        default_priority::add(policy, request, object, cluster, &mut patch);
    }
    Ok(patch)
}

/// What is read of a pod; what is changed stays raw.
#[derive(Default)]
struct RawPod<'a> {
    /// With owner references alone.
    metadata: Metadata,
    ignored: bool,
    mirror: bool,
    spec: Option<RawSpec<'a>>,
}

#[derive(Default)]
struct RawSpec<'a> {
    node_name: Cow<'a, str>,
    scheduler_name: Cow<'a, str>,
    host_network: bool,
    affinity: RawAffinity,
    tolerations: Vec<RawToleration<'a>>,
}

/// Which levels of the affinity exist, and the required terms.
#[derive(Default)]
struct RawAffinity {
    exists: bool,
    has_node_affinity: bool,
    required: Option<NodeSelector>,
}

/// A toleration, and what is compared of it.
#[derive(Default)]
struct RawToleration<'a> {
    sent: &'a str,
    key: Cow<'a, str>,
    operator: Cow<'a, str>,
    value: Cow<'a, str>,
    effect: Cow<'a, str>,
    has_seconds: bool,
}

fn patch(
    policy: &Policy,
    pod: RawPod<'_>,
    namespace_labels: &BTreeMap<String, String>,
) -> Result<Patch, serde_json::Error> {
    let mut patch = Patch::default();
    let owned = daemon_set_reference(&policy.daemon_set_kinds, &pod.metadata).is_some();
    let Some(spec) = pod.spec.filter(|_| owned && !pod.mirror) else { return Ok(patch) };
    if pod.ignored || is_ignored(namespace_labels) {
        return Ok(patch);
    }
    let lean = PodSpec {
        node_name: spec.node_name.into_owned(),
        affinity: Affinity { node_affinity: NodeAffinity { required: spec.affinity.required } },
        ..PodSpec::default()
    };
    // Without a target nobody knows where the pod belongs: not ours to invent one, and refusing it would stall its controller.
    let Some(target) = target_node_name(&lean) else { return Ok(patch) };

    let required = lean.affinity.node_affinity.required.as_ref();
    set_affinity(&mut patch, spec.affinity.exists, spec.affinity.has_node_affinity, required, target);
    if !skips_tolerations(policy, namespace_labels) {
        set_tolerations(&mut patch, &spec.tolerations, spec.host_network);
    }
    if spec.scheduler_name == LEGACY_SCHEDULER_NAME {
        let mut name = String::new();
        push_string(&mut name, &policy.admission.scheduler_name);
        patch.add(&["spec", "schedulerName"], &name);
    }
    if !lean.node_name.is_empty() {
        patch.remove(&["spec", "nodeName"]);
    }
    Ok(patch)
}

/// Sets the deepest level that is missing or wrong; everything beside it is left alone.
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
    let (path, missing) = path.split_at(depth);
    let mut value = String::new();
    for level in missing {
        value.push('{');
        push_string(&mut value, level);
        value.push(':');
    }
    value.push_str(r#"[{"matchFields":[{"key":"metadata.name","operator":"In","values":["#);
    push_string(&mut value, target);
    value.push_str("]}]}]");
    value.extend(missing.iter().map(|_| '}'));
    patch.add(path, &value);
}

/// Sets the whole list, so that it does not matter what another webhook has appended to it; nothing when it has them all.
fn set_tolerations(patch: &mut Patch, existing: &[RawToleration<'_>], host_network: bool) {
    let wanted = daemon_tolerations(host_network);
    let place = |own: &RawToleration<'_>| wanted.iter().position(|(key, effect)| own.is_same(key, effect));
    let places: Vec<Option<usize>> = existing.iter().map(place).collect();
    let replaces = existing.iter().zip(&places).any(|(own, place)| place.is_some() && own.has_seconds);
    let mut missing = (0..wanted.len()).filter(|index| !places.contains(&Some(*index))).peekable();
    if !replaces && missing.peek().is_none() {
        return;
    }
    let mut list = String::with_capacity(1_024);
    let mut push = |own: Option<&str>, index: usize| {
        list.push(if list.is_empty() { '[' } else { ',' });
        if let Some(own) = own {
            list.push_str(own);
            return;
        }
        let (key, effect) = wanted[index];
        for part in [r#"{"effect":""#, effect, r#"","key":""#, key, r#"","operator":"Exists"}"#] {
            list.push_str(part);
        }
    };
    for (own, place) in existing.iter().zip(&places) {
        match place {
            Some(index) if own.has_seconds => push(None, *index),
            _ => push(Some(own.sent), 0),
        }
    }
    missing.for_each(|index| push(None, index));
    list.push(']');
    patch.add(&["spec", "tolerations"], &list);
}

impl RawToleration<'_> {
    fn is_same(&self, key: &str, effect: &str) -> bool {
        self.key == key && self.effect == effect && self.operator == "Exists" && self.value.is_empty()
    }
}

fn skips_tolerations(policy: &Policy, namespace_labels: &BTreeMap<String, String>) -> bool {
    let selector = policy.admission.skip_tolerations.as_ref();
    selector.is_some_and(|selector| label_selector::matches(Some(selector), namespace_labels) == Some(true))
}

fn bad_pod(source: serde_json::Error) -> BadReview {
    BadReview::BadObject { field: "object", kind: "Pod".to_owned(), source }
}

impl<'a> RawPod<'a> {
    fn parse(object: &'a str) -> Result<Self, serde_json::Error> {
        let mut pod = Self::default();
        let mut required = None;
        let mut scanner = Scanner::new(object);
        scanner
            .object(|scanner, key| match key {
                _ if key.says("metadata") => {
                    optional_object(scanner, |scanner, key| pod.read_metadata(scanner, key))
                }
                _ if key.says("spec") => {
                    let mut spec = RawSpec::default();
                    let is_there =
                        scanner.optional_object(|scanner, key| spec.read(&mut required, scanner, key))?;
                    pod.spec = is_there.then_some(spec);
                    Ok(())
                }
                _ => scanner.value().map(drop),
            })
            .map_err(serde_json::Error::custom)?;
        if let (Some(spec), Some(required)) = (&mut pod.spec, required) {
            spec.affinity.required = serde_json::from_str(required)?;
        }
        Ok(pod)
    }

    fn read_metadata(&mut self, scanner: &mut Scanner<'a>, key: Text<'a>) -> Result<(), Fault> {
        if key.says("labels") {
            optional_object(scanner, |scanner, key| {
                let value = optional_text(scanner)?;
                self.ignored |= key.says(IGNORE_LABEL) && value == "true";
                Ok(())
            })
        } else if key.says("annotations") {
            optional_object(scanner, |scanner, key| {
                optional_text(scanner)?;
                self.mirror |= key.says(MIRROR_ANNOTATION);
                Ok(())
            })
        } else if key.says("ownerReferences") {
            let references = &mut self.metadata.owner_references;
            references.clear();
            optional_array(scanner, |scanner| {
                let reference = read_owner_reference(scanner)?;
                // The first that says so is the controller's, and nobody asks for the others.
                if reference.controller == Some(true) && references.is_empty() {
                    references.push(reference);
                }
                Ok(())
            })
        } else {
            scanner.value().map(drop)
        }
    }
}

fn read_owner_reference(scanner: &mut Scanner<'_>) -> Result<OwnerReference, Fault> {
    let mut reference = OwnerReference::default();
    optional_object(scanner, |scanner, key| {
        if key.says("apiVersion") {
            reference.api_version = optional_text(scanner)?.into_owned();
        } else if key.says("kind") {
            reference.kind = optional_text(scanner)?.into_owned();
        } else if key.says("name") {
            reference.name = optional_text(scanner)?.into_owned();
        } else if key.says("uid") {
            reference.uid = optional_text(scanner)?.into_owned();
        } else if key.says("controller") {
            reference.controller = Some(optional_bool(scanner)?);
        } else {
            scanner.value()?;
        }
        Ok(())
    })?;
    Ok(reference)
}

impl<'a> RawSpec<'a> {
    fn read(
        &mut self,
        required: &mut Option<&'a str>,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
    ) -> Result<(), Fault> {
        if key.says("nodeName") {
            self.node_name = optional_text(scanner)?;
        } else if key.says("schedulerName") {
            self.scheduler_name = optional_text(scanner)?;
        } else if key.says("hostNetwork") {
            self.host_network = optional_bool(scanner)?;
        } else if key.says("affinity") {
            *required = None;
            self.affinity = RawAffinity::read(required, scanner)?;
        } else if key.says("tolerations") {
            self.tolerations.clear();
            optional_array(scanner, |scanner| {
                if self.tolerations.len() == MAX_TOLERATIONS {
                    return Err(scanner.fault("too many tolerations"));
                }
                self.tolerations.push(RawToleration::read(scanner)?);
                Ok(())
            })?;
        } else {
            scanner.value()?;
        }
        Ok(())
    }
}

impl RawAffinity {
    fn read<'a>(required: &mut Option<&'a str>, scanner: &mut Scanner<'a>) -> Result<Self, Fault> {
        let mut affinity = Self::default();
        affinity.exists = scanner.optional_object(|scanner, key| {
            if !key.says("nodeAffinity") {
                return scanner.value().map(drop);
            }
            *required = None;
            affinity.has_node_affinity = scanner.optional_object(|scanner, key| {
                let value = scanner.value()?;
                if key.says(REQUIRED) {
                    *required = Some(value);
                }
                Ok(())
            })?;
            Ok(())
        })?;
        Ok(affinity)
    }
}

impl<'a> RawToleration<'a> {
    fn read(scanner: &mut Scanner<'a>) -> Result<Self, Fault> {
        let mut toleration = Self::default();
        scanner.peek();
        let start = scanner.position();
        optional_object(scanner, |scanner, key| {
            let text = match key {
                _ if key.says("key") => &mut toleration.key,
                _ if key.says("operator") => &mut toleration.operator,
                _ if key.says("value") => &mut toleration.value,
                _ if key.says("effect") => &mut toleration.effect,
                _ if key.says("tolerationSeconds") => {
                    toleration.has_seconds = optional_integer(scanner)?;
                    return Ok(());
                }
                _ => return scanner.value().map(drop),
            };
            *text = optional_text(scanner)?;
            Ok(())
        })?;
        toleration.sent = scanner.text_since(start);
        Ok(toleration)
    }
}
