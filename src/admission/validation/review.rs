//! The review of one request to `/validate`: from the AdmissionRequest to the [`ReviewOutcome`].

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::live_rules::{ReadCache, Unread};
use super::outcome::ReviewOutcome;
use super::{oversized, semantic, validate, validate_with_live_data};
use crate::admission::review_head::ObjectHead;
use crate::api::admission_v1::{AdmissionRequest, BadReview};
use crate::api::daemonset::{DaemonSet, ManagedFieldsEntry, ValidatedOnly};
use crate::api::decode_budget::DecodeBudget;
use crate::api::field::start_of;
use crate::api::meta::{GroupKind, Metadata, object_or_default, or_default};
use crate::cache::Cache;
use crate::daemonset::daemon_pod::GENERATION_ANNOTATION;
use crate::policy::Policy;
use crate::policy::opt_out::is_opted_out;

/// Reviews a request to create or update a DaemonSet, however large.
///
/// Some requests are allowed without validation: those of other operations, kinds or subresources, those for an object that is
/// being deleted or has opted out, and updates that do not change the spec. Pass `cluster` only while the cache is fresh; without
/// it, the live-data rules are not checked.
///
/// # Errors
/// Fails if a CREATE or UPDATE of a DaemonSet has no object, if an UPDATE has no old object, or if one of them does not have the
/// shape of its kind.
pub fn review(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    cluster: Option<&Cache>,
) -> Result<ReviewOutcome, BadReview> {
    let read = |call: &mut dyn FnMut(&Cache)| cluster.map(call).ok_or(Unread::Stale);
    review_within(policy, request, &DecodeBudget::default(), &read)
}

/// Reviews a request as [`review`] does, if it does not take too much memory or time; otherwise the operator has chosen the outcome.
/// Reads a few objects of `cache` at a time.
///
/// # Errors
/// As [`review`].
pub fn review_within(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    budget: &DecodeBudget<'_>,
    cache: &dyn ReadCache,
) -> Result<ReviewOutcome, BadReview> {
    let Some(kind) = request.daemon_set_kind(&policy.daemon_set_kinds) else {
        return Ok(ReviewOutcome::default());
    };
    let is_update = match &*request.operation {
        "CREATE" => false,
        "UPDATE" => true,
        _ => return Ok(ReviewOutcome::default()),
    };
    let raw = request.object.ok_or_else(|| BadReview::NoObject(request.operation.to_string()))?;
    let raw_old = if is_update { Some(request.old_object.ok_or(BadReview::NoOldObject)?) } else { None };
    match review_objects(policy, request, kind, (raw, raw_old), budget, cache) {
        Err(_) if budget.is_exceeded() => Ok(too_large(policy, request, kind, (raw, raw_old))),
        reviewed => reviewed,
    }
}

/// Returns the outcome for objects that take too much memory: those that are never checked are allowed, as others of their kind.
fn too_large(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    kind: &GroupKind,
    (raw, raw_old): (&str, Option<&str>),
) -> ReviewOutcome {
    let new = ObjectHead::of(raw);
    let old = raw_old.map(ObjectHead::of);
    let is_unchanged = |old: &ObjectHead<'_>| old.is_deleting || old.spec.is_some() && old.spec == new.spec;
    if new.is_deleting || new.is_opted_out || old.as_ref().is_some_and(is_unchanged) {
        return ReviewOutcome::default();
    }
    let name = if new.name.is_empty() { &request.name } else { &new.name };
    oversized::outcome(policy, kind, start_of(name))
}

fn review_objects(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    kind: &GroupKind,
    (raw, raw_old): (&str, Option<&str>),
    budget: &DecodeBudget<'_>,
    cache: &dyn ReadCache,
) -> Result<ReviewOutcome, BadReview> {
    let bad =
        |field: &'static str| move |source| BadReview::BadObject { field, kind: kind.kind.clone(), source };
    let new = ReviewedObject::read(raw, budget).map_err(bad("object"))?;
    if new.metadata.is_deleting() || is_opted_out(&new.metadata.labels) {
        return Ok(ReviewOutcome::default());
    }
    let old = raw_old.map(|raw| ReviewedObject::read(raw, budget)).transpose().map_err(bad("oldObject"))?;
    if let Some(old) = &old
        && (old.metadata.is_deleting() || old.spec.map(RawValue::get) == new.spec.map(RawValue::get))
    {
        return Ok(ReviewOutcome::default());
    }

    let raw_specs = old.as_ref().map(|old| (old.spec, new.spec));
    let mut new = new.decode(kind, budget).map_err(bad("object"))?;
    let old = old.map(|old| old.decode(kind, budget)).transpose().map_err(bad("oldObject"))?;
    if new.metadata.namespace.is_empty() {
        // The apiserver does the same.
        new.metadata.namespace = request.namespace.to_string();
    }
    let mut validation = validate(policy, kind, old.as_ref(), &new);
    let unread = validate_with_live_data(policy, kind, old.as_ref(), &new, cache, &mut validation).err();
    // Most updates have no fault, so the comparison, which costs more, comes last.
    let has_fault = !validation.is_empty() || unread.is_some();
    if has_fault && raw_specs.is_some_and(|(old, new)| semantic::equal(old, new, budget)) {
        return Ok(ReviewOutcome::default());
    }
    let name = start_of(new.metadata.display_name());
    let oversized = unread.map(|_| oversized::choice_for_live_rules(policy));
    Ok(ReviewOutcome {
        group: kind.group.clone(),
        kind: kind.kind.clone(),
        name,
        validation,
        oversized,
        unread,
    })
}

/// Decodes a DaemonSet of `kind` from JSON, with all fields that [`validate`] checks.
///
/// # Errors
/// Fails if the object does not have the shape of its kind. The apiserver answers 400 then, too.
pub fn decode(kind: &GroupKind, raw: &str) -> Result<DaemonSet, serde_json::Error> {
    let budget = DecodeBudget::default();
    ReviewedObject::read(raw, &budget)?.decode(kind, &budget)
}

/// An object whose spec is not decoded yet.
struct ReviewedObject<'a> {
    api_version: Cow<'a, str>,
    kind: Cow<'a, str>,
    metadata: Metadata,
    managed_fields: Vec<ManagedFieldsEntry>,
    spec: Option<&'a RawValue>,
}

impl<'a> ReviewedObject<'a> {
    fn read(raw: &'a str, budget: &DecodeBudget<'_>) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            #[serde(borrow, default)]
            api_version: Option<Cow<'a, str>>,
            #[serde(borrow, default)]
            kind: Option<Cow<'a, str>>,
            #[serde(borrow, default)]
            metadata: Option<&'a RawValue>,
            #[serde(borrow, default)]
            spec: Option<&'a RawValue>,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Managed {
            #[serde(deserialize_with = "or_default")]
            managed_fields: Vec<ManagedFieldsEntry>,
        }
        // Serde would accept a list as a struct whose fields come in order.
        if !raw.starts_with('{') {
            return Err(serde_json::Error::custom("expected an object"));
        }
        let envelope: Envelope<'a> = serde_json::from_str(raw)?;
        let metadata: Metadata = part("metadata", envelope.metadata, budget)?;
        // A second pass. Escapes may hide the name.
        let may_be_managed =
            |raw: &&RawValue| raw.get().contains("managedFields") || raw.get().contains('\\');
        let managed: Managed = part("metadata", envelope.metadata.filter(may_be_managed), budget)?;
        Ok(Self {
            api_version: envelope.api_version.unwrap_or_default(),
            kind: envelope.kind.unwrap_or_default(),
            metadata,
            managed_fields: managed.managed_fields,
            spec: envelope.spec,
        })
    }

    fn decode(self, kind: &GroupKind, budget: &DecodeBudget<'_>) -> Result<DaemonSet, serde_json::Error> {
        let daemon_set = DaemonSet {
            api_version: self.api_version.into_owned(),
            kind: self.kind.into_owned(),
            metadata: self.metadata,
            spec: part("spec", self.spec, budget)?,
            validated_only: ValidatedOnly {
                managed_fields: self.managed_fields,
                affinity_selectors: affinity_selectors(self.spec, budget)?,
            },
            ..DaemonSet::default()
        };
        if kind.is_builtin() {
            check_shape(&daemon_set)?;
        }
        Ok(daemon_set)
    }
}

/// Fails if upstream's conversion from apps/v1 fails (pkg/apis/apps/v1/conversion.go `Convert_v1_DaemonSet_To_apps_DaemonSet`): the
/// update strategy or the generation annotation is malformed.
fn check_shape(daemon_set: &DaemonSet) -> Result<(), serde_json::Error> {
    let strategy = daemon_set.spec.update_strategy();
    strategy.map_err(|error| serde_json::Error::custom(format_args!("spec.updateStrategy: {error}")))?;
    match daemon_set.metadata.annotations.get(GENERATION_ANNOTATION) {
        Some(text) if text.parse::<i64>().is_err() => Err(serde_json::Error::custom(format_args!(
            "metadata.annotations[{GENERATION_ANNOTATION}]: {text:?} is no integer"
        ))),
        _ => Ok(()),
    }
}

/// Decodes the field `name` of an object; returns the default if it is absent. The error names the field.
fn part<T: Default + for<'de> Deserialize<'de>>(
    name: &str,
    raw: Option<&RawValue>,
    budget: &DecodeBudget<'_>,
) -> Result<T, serde_json::Error> {
    let Some(raw) = raw else { return Ok(T::default()) };
    budget
        .decode_object(raw.get())
        .map_err(|error| serde_json::Error::custom(format_args!("{name}: {error}")))
}

/// Returns the selectors in the template's affinity and anti-affinity to pods. The types of [`crate::api::pod`] leave them out,
/// because pods are decoded far more often than DaemonSets.
fn affinity_selectors(
    spec: Option<&RawValue>,
    budget: &DecodeBudget<'_>,
) -> Result<Vec<LabelSelector>, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct AffinitySpec {
        #[serde(deserialize_with = "object_or_default")]
        template: AffinityTemplate,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct AffinityTemplate {
        #[serde(deserialize_with = "object_or_default")]
        spec: AffinityPodSpec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct AffinityPodSpec {
        #[serde(deserialize_with = "object_or_default")]
        affinity: PodAffinities,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct PodAffinities {
        #[serde(deserialize_with = "object_or_default")]
        pod_affinity: Terms,
        #[serde(deserialize_with = "object_or_default")]
        pod_anti_affinity: Terms,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Terms {
        #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "or_default")]
        required: Vec<Term>,
        #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution", deserialize_with = "or_default")]
        preferred: Vec<WeightedTerm>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Term {
        label_selector: Option<LabelSelector>,
        namespace_selector: Option<LabelSelector>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct WeightedTerm {
        #[serde(deserialize_with = "object_or_default")]
        pod_affinity_term: Term,
    }
    // Most specs have none, and a search for the word is cheaper than decoding.
    if !spec.is_some_and(|spec| spec.get().contains("Affinity\"")) {
        return Ok(Vec::new());
    }
    let PodAffinities { pod_affinity, pod_anti_affinity } =
        part::<AffinitySpec>("spec", spec, budget)?.template.spec.affinity;
    let terms = [pod_affinity, pod_anti_affinity].into_iter().flat_map(|terms| {
        terms.required.into_iter().chain(terms.preferred.into_iter().map(|term| term.pod_affinity_term))
    });
    Ok(terms.flat_map(|term| [term.label_selector, term.namespace_selector]).flatten().collect())
}

#[cfg(test)]
pub(super) mod tests;
