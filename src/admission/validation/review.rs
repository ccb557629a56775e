//! From the request to the verdict: what `/validate` answers, but for the wire.

use std::borrow::Cow;
use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::{RuleFault, Validation, semantic, validate, validate_live};
use crate::api::admission_v1::{AdmissionRequest, BadReview};
use crate::api::daemonset::{DaemonSet, ManagedFieldsEntry, ValidatedOnly};
use crate::api::field::quote;
use crate::api::meta::{GroupKind, Metadata, object_or_default, or_default};
use crate::cache::Cache;
use crate::daemonset::daemon_pod::GENERATION_ANNOTATION;
use crate::policy::Policy;
use crate::policy::opt_out::is_opted_out;

/// The apiserver cuts warnings here when they are long together (staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go).
const WARNING_MAX_CHARS: usize = 256;

/// What to answer to a review.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The DaemonSet's API group; empty when it was not looked at, as `kind` and `name`.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name, or the prefix of one.
    pub name: String,
    /// What was found.
    pub validation: Validation,
}

/// A Status that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 422 for what upstream refuses, 403 for what only the policy refuses.
    pub code: u16,
    /// The Status' reason.
    pub reason: &'static str,
    /// What kubectl shows.
    pub message: String,
    /// One a fault; none is left out.
    pub causes: Vec<Cause>,
}

/// A StatusCause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Upstream's type of error, such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// Where.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Verdict {
    /// Whether the request may go on.
    pub fn is_allowed(&self) -> bool {
        self.validation.errors.is_empty() && self.validation.denials.is_empty()
    }

    /// The Status of the answer, if it is no.
    pub fn refusal(&self) -> Option<Refusal> {
        let Validation { errors, denials, .. } = &self.validation;
        if !errors.is_empty() {
            let causes = errors.iter().map(|error| Cause {
                reason: error.kind.reason(),
                field: error.field.to_string(),
                message: error.body(),
            });
            let faults = errors.iter().map(ToString::to_string);
            let message = format!("{} is invalid: {}", self.object(), aggregate(faults));
            return Some(Refusal { code: 422, reason: "Invalid", message, causes: causes.collect() });
        }
        if denials.is_empty() {
            return None;
        }
        let causes = denials.iter().map(|fault| Cause {
            reason: fault.error.kind.reason(),
            field: fault.error.field.to_string(),
            message: format!("{} ({})", fault.error.body(), fault.rule),
        });
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
        Some(Refusal { code: 403, reason: "Forbidden", message, causes: causes.collect() })
    }

    /// What to warn of, fit for an HTTP header: beside upstream's faults, what the policy would have refused too.
    pub fn warnings(&self) -> Vec<String> {
        let Validation { errors, denials, warnings } = &self.validation;
        let denials = if errors.is_empty() { &[] } else { denials.as_slice() };
        denials.iter().chain(warnings).map(warning).collect()
    }

    /// `DaemonSet.apps "name"`
    fn object(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{}{dot}{} {}", self.kind, self.group, quote(&self.name))
    }
}

/// Judges a request. What is no creation or update of a DaemonSet itself is allowed unseen; so is what is being deleted, what
/// opted out, and an update that leaves the spec as it is, whatever is wrong with it.
///
/// `cluster` is given only while it is known in full; rules that need it are silent without.
///
/// # Errors
/// When there is no object, or one that is no DaemonSet: a 400.
pub fn review(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    cluster: Option<&Cache>,
) -> Result<Verdict, BadReview> {
    let Some(kind) = request.daemon_set_kind(&policy.daemon_set_kinds) else { return Ok(Verdict::default()) };
    let is_update = match &*request.operation {
        "CREATE" => false,
        "UPDATE" => true,
        _ => return Ok(Verdict::default()),
    };
    let raw = request.object.ok_or_else(|| BadReview::NoObject(request.operation.to_string()))?;
    let raw_old = if is_update { Some(request.old_object.ok_or(BadReview::NoOldObject)?) } else { None };

    let bad =
        |field: &'static str| move |source| BadReview::BadObject { field, kind: kind.kind.clone(), source };
    let new = ReviewedObject::read(raw).map_err(bad("object"))?;
    if new.metadata.is_deleting() || is_opted_out(&new.metadata.labels) {
        return Ok(Verdict::default());
    }
    let old = raw_old.map(ReviewedObject::read).transpose().map_err(bad("oldObject"))?;
    if let Some(old) = &old
        && (old.metadata.is_deleting() || old.spec.map(RawValue::get) == new.spec.map(RawValue::get))
    {
        return Ok(Verdict::default());
    }

    let raw_specs = old.as_ref().map(|old| (old.spec, new.spec));
    let mut new = new.decode(kind).map_err(bad("object"))?;
    let old = old.map(|old| old.decode(kind)).transpose().map_err(bad("oldObject"))?;
    if new.metadata.namespace.is_empty() {
        // As the apiserver does.
        new.metadata.namespace = request.namespace.to_string();
    }
    let validation = match cluster {
        Some(cluster) => validate_live(policy, kind, old.as_ref(), &new, cluster),
        None => validate(policy, kind, old.as_ref(), &new),
    };
    // Most updates are fine, so what costs more is asked last.
    if !validation.is_empty() && raw_specs.is_some_and(|(old, new)| semantic::equal(old, new)) {
        return Ok(Verdict::default());
    }
    let name = new.metadata.display_name().to_owned();
    Ok(Verdict { group: kind.group.clone(), kind: kind.kind.clone(), name, validation })
}

/// Reads a DaemonSet of `kind` with all that [`validate`] looks at.
///
/// # Errors
/// When it has another shape than its kind, where the apiserver answers 400 too.
pub fn decode(kind: &GroupKind, raw: &str) -> Result<DaemonSet, serde_json::Error> {
    ReviewedObject::read(raw)?.decode(kind)
}

/// An object whose spec is not looked into yet.
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
        // Serde would take a list for an object whose fields are given in order.
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

/// What upstream's conversion from apps/v1 refuses (pkg/apis/apps/v1/conversion.go `Convert_v1_DaemonSet_To_apps_DaemonSet`).
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

fn part<T: Default + for<'de> Deserialize<'de>>(
    name: &str,
    raw: Option<&RawValue>,
) -> Result<T, serde_json::Error> {
    let Some(raw) = raw else { return Ok(T::default()) };
    object_or_default(&mut serde_json::Deserializer::from_str(raw.get()))
        .map_err(|error| serde_json::Error::custom(format_args!("{name}: {error}")))
}

/// The selectors in the template's affinity between pods. Pods are decoded far more often than DaemonSets, so those lean types
/// leave them out.
fn affinity_selectors(spec: Option<&RawValue>) -> Result<Vec<LabelSelector>, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        #[serde(deserialize_with = "object_or_default")]
        template: Template,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Template {
        #[serde(deserialize_with = "object_or_default")]
        spec: PodSpec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct PodSpec {
        #[serde(deserialize_with = "object_or_default")]
        affinity: Affinity,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Affinity {
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
    // Rare, and looking for the word is cheaper than decoding.
    if !spec.is_some_and(|spec| spec.get().contains("Affinity\"")) {
        return Ok(Vec::new());
    }
    let Affinity { pod_affinity, pod_anti_affinity } = part::<Spec>("spec", spec)?.template.spec.affinity;
    let terms = [pod_affinity, pod_anti_affinity].into_iter().flat_map(|terms| {
        terms.required.into_iter().chain(terms.preferred.into_iter().map(|term| term.pod_affinity_term))
    });
    Ok(terms.flat_map(|term| [term.label_selector, term.namespace_selector]).flatten().collect())
}

/// One text, or a list of different ones in brackets (staging/src/k8s.io/apimachinery/pkg/util/errors/errors.go).
fn aggregate(texts: impl Iterator<Item = String>) -> String {
    let mut seen = HashSet::new();
    let different: Vec<String> = texts.filter(|text| seen.insert(text.clone())).collect();
    match different.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
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
