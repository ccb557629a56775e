//! The review of one request to `/validate`: from the AdmissionRequest to the Status and the warnings.

use std::borrow::Cow;
use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::{RuleFault, Validation, semantic, validate, validate_with_live_data};
use crate::api::admission_v1::response::{Status, StatusCause, StatusDetails};
use crate::api::admission_v1::{AdmissionRequest, BadReview};
use crate::api::daemonset::{DaemonSet, ManagedFieldsEntry, ValidatedOnly};
use crate::api::field::{Error, quote};
use crate::api::meta::{GroupKind, Metadata, object_or_default, or_default};
use crate::cache::Cache;
use crate::daemonset::daemon_pod::GENERATION_ANNOTATION;
use crate::policy::Policy;
use crate::policy::opt_out::is_opted_out;

/// The length in characters to which the apiserver cuts each warning if the warnings of one response are too long together
/// (staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go).
const WARNING_MAX_CHARS: usize = 256;

/// The outcome of a review.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReviewOutcome {
    /// The DaemonSet's API group. Empty, like `kind` and `name`, if the request was allowed without validation.
    pub group: String,
    /// The DaemonSet's kind.
    pub kind: String,
    /// The DaemonSet's name or generateName.
    pub name: String,
    /// The DaemonSet's faults.
    pub validation: Validation,
}

impl ReviewOutcome {
    /// Returns true if the request is allowed.
    pub fn is_allowed(&self) -> bool {
        self.validation.errors.is_empty() && self.validation.denials.is_empty()
    }

    /// Returns the Status of a refusal, with a cause for every fault: code 422 if Kubernetes refuses the object too, 403 if only
    /// the policy does. Returns `None` if the request is allowed.
    pub fn status(&self) -> Option<Status> {
        let Validation { errors, denials, .. } = &self.validation;
        if !errors.is_empty() {
            let causes = errors.iter().map(|error| cause(error, error.body()));
            let faults = errors.iter().map(ToString::to_string);
            let message = format!("{} is invalid: {}", self.object(), aggregate(faults));
            return Some(self.failure(422, "Invalid", message, causes.collect()));
        }
        if denials.is_empty() {
            return None;
        }
        let causes = denials
            .iter()
            .map(|RuleFault { rule, error }| cause(error, format!("{} ({rule})", error.body())));
        let faults = denials.iter().map(|fault| format!("{} ({})", fault.error, fault.rule));
        let mut rules: Vec<String> =
            denials.iter().map(|fault| format!("admission.rules.{}", fault.rule)).collect();
        rules.dedup();
        let message = format!(
            "{} is forbidden by policy: {}; change the object, or set {} to Warn or Off in the configuration of daemonset-warden",
            self.object(),
            aggregate(faults),
            rules.join(" and "),
        );
        Some(self.failure(403, "Forbidden", message, causes.collect()))
    }

    fn failure(&self, code: u16, reason: &'static str, message: String, causes: Vec<StatusCause>) -> Status {
        let Self { group, kind, name, .. } = self;
        let details = StatusDetails { name: name.clone(), group: group.clone(), kind: kind.clone(), causes };
        Status { status: "Failure", message, reason, details, code }
    }

    /// Returns the warnings as the response carries them: without control characters, and of at most 256 characters each. If
    /// Kubernetes refuses the object, the policy's denials are among them.
    pub fn warnings(&self) -> Vec<String> {
        let Validation { errors, denials, warnings } = &self.validation;
        let denials = if errors.is_empty() { &[] } else { denials.as_slice() };
        denials.iter().chain(warnings).map(warning).collect()
    }

    /// Returns the object as messages name it: `DaemonSet.apps "name"`.
    fn object(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{}{dot}{} {}", self.kind, self.group, quote(&self.name))
    }
}

/// Reviews a request to create or update a DaemonSet.
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

    let bad =
        |field: &'static str| move |source| BadReview::BadObject { field, kind: kind.kind.clone(), source };
    let new = ReviewedObject::read(raw).map_err(bad("object"))?;
    if new.metadata.is_deleting() || is_opted_out(&new.metadata.labels) {
        return Ok(ReviewOutcome::default());
    }
    let old = raw_old.map(ReviewedObject::read).transpose().map_err(bad("oldObject"))?;
    if let Some(old) = &old
        && (old.metadata.is_deleting() || old.spec.map(RawValue::get) == new.spec.map(RawValue::get))
    {
        return Ok(ReviewOutcome::default());
    }

    let raw_specs = old.as_ref().map(|old| (old.spec, new.spec));
    let mut new = new.decode(kind).map_err(bad("object"))?;
    let old = old.map(|old| old.decode(kind)).transpose().map_err(bad("oldObject"))?;
    if new.metadata.namespace.is_empty() {
        // The apiserver does the same.
        new.metadata.namespace = request.namespace.to_string();
    }
    let validation = match cluster {
        Some(cluster) => validate_with_live_data(policy, kind, old.as_ref(), &new, cluster),
        None => validate(policy, kind, old.as_ref(), &new),
    };
    // Most updates have no fault, so the comparison, which costs more, comes last.
    if !validation.is_empty() && raw_specs.is_some_and(|(old, new)| semantic::equal(old, new)) {
        return Ok(ReviewOutcome::default());
    }
    let name = new.metadata.display_name().to_owned();
    Ok(ReviewOutcome { group: kind.group.clone(), kind: kind.kind.clone(), name, validation })
}

/// Decodes a DaemonSet of `kind` from JSON, with all fields that [`validate`] checks.
///
/// # Errors
/// Fails if the object does not have the shape of its kind. The apiserver answers 400 then, too.
pub fn decode(kind: &GroupKind, raw: &str) -> Result<DaemonSet, serde_json::Error> {
    ReviewedObject::read(raw)?.decode(kind)
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
    fn read(raw: &'a str) -> Result<Self, serde_json::Error> {
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
        let metadata: Metadata = part("metadata", envelope.metadata)?;
        let managed: Managed = part("metadata", envelope.metadata)?;
        Ok(Self {
            api_version: envelope.api_version.unwrap_or_default(),
            kind: envelope.kind.unwrap_or_default(),
            metadata,
            managed_fields: managed.managed_fields,
            spec: envelope.spec,
        })
    }

    fn decode(self, kind: &GroupKind) -> Result<DaemonSet, serde_json::Error> {
        let daemon_set = DaemonSet {
            api_version: self.api_version.into_owned(),
            kind: self.kind.into_owned(),
            metadata: self.metadata,
            spec: part("spec", self.spec)?,
            validated_only: ValidatedOnly {
                managed_fields: self.managed_fields,
                affinity_selectors: affinity_selectors(self.spec)?,
            },
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
) -> Result<T, serde_json::Error> {
    let Some(raw) = raw else { return Ok(T::default()) };
    object_or_default(&mut serde_json::Deserializer::from_str(raw.get()))
        .map_err(|error| serde_json::Error::custom(format_args!("{name}: {error}")))
}

/// Returns the selectors in the template's affinity and anti-affinity to pods; an empty list if there are none. The types of
/// [`crate::api::pod`] leave them out, because pods are decoded far more often than DaemonSets.
fn affinity_selectors(spec: Option<&RawValue>) -> Result<Vec<LabelSelector>, serde_json::Error> {
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
        part::<AffinitySpec>("spec", spec)?.template.spec.affinity;
    let terms = [pod_affinity, pod_anti_affinity].into_iter().flat_map(|terms| {
        terms.required.into_iter().chain(terms.preferred.into_iter().map(|term| term.pod_affinity_term))
    });
    Ok(terms.flat_map(|term| [term.label_selector, term.namespace_selector]).flatten().collect())
}

/// Returns the only text, or the distinct texts in square brackets (staging/src/k8s.io/apimachinery/pkg/util/errors/errors.go).
fn aggregate(texts: impl Iterator<Item = String>) -> String {
    let mut seen = HashSet::new();
    let different: Vec<String> = texts.filter(|text| seen.insert(text.clone())).collect();
    match different.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn cause(error: &Error, message: String) -> StatusCause {
    StatusCause { reason: error.kind.reason(), message, field: error.field.to_string() }
}

fn warning(fault: &RuleFault) -> String {
    let end = format!(" ({})", fault.rule);
    // The apiserver drops a warning with a control character in it.
    let visible = |char: char| if char.is_control() { ' ' } else { char };
    let mut text: String = fault.error.to_string().chars().map(visible).collect();
    let room = WARNING_MAX_CHARS - end.len();
    if text.chars().count() > room {
        text = text.chars().take(room - 1).chain(['…']).collect();
    }
    text + &end
}

#[cfg(test)]
mod tests;
