//! Validation of the selector: its syntax and its immutability.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go
//! (`ValidateLabelSelector`, `ValidateLabels`) and pkg/api/validation/objectmeta.go (`ValidateImmutableField`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde::Serialize;

use crate::api::field::{Error, ErrorList, Path};
use crate::scheduling::label_selector::{expressions, value_is_valid};
use crate::scheduling::names;

/// Checks the syntax of a selector at `path`. With `allow_invalid_values`, the values of its expressions are not checked.
pub(super) fn check(
    selector: &LabelSelector,
    allow_invalid_values: bool,
    path: &str,
    faults: &mut ErrorList,
) {
    for (key, value) in selector.match_labels.iter().flatten() {
        if faults.is_full() {
            return;
        }
        check_label(key, value, || Path::new(path).child("matchLabels"), faults);
    }
    for (index, requirement) in expressions(selector).iter().enumerate() {
        if faults.is_full() {
            return;
        }
        let path = || Path::new(path).child("matchExpressions").index(index);
        check_requirement(requirement, allow_invalid_values, path, faults);
    }
}

/// Checks the syntax of labels at `path`.
pub(super) fn check_labels(labels: &BTreeMap<String, String>, path: &str, faults: &mut ErrorList) {
    for (key, value) in labels {
        if faults.is_full() {
            return;
        }
        check_label(key, value, || Path::new(path), faults);
    }
}

/// Returns true if an expression has a value that is not a valid label value (`LabelSelectorHasInvalidLabelValue`).
pub(super) fn has_invalid_value(selector: &LabelSelector) -> bool {
    expressions(selector)
        .iter()
        .any(|requirement| values(requirement).iter().any(|value| !value_is_valid(value)))
}

/// Checks that the selector has not changed. Absent lists and maps equal empty ones, an absent selector equals only an absent one,
/// and order matters.
pub(super) fn check_immutable(
    old: Option<&LabelSelector>,
    new: Option<&LabelSelector>,
    faults: &mut ErrorList,
) {
    let (old, new) = (old.map(PrintedSelector::from), new.map(PrintedSelector::from));
    if old != new {
        faults.push(Error::invalid(Path::new("spec.selector"), &new, "field is immutable"));
    }
}

fn check_label(key: &str, value: &str, path: impl Fn() -> Path, faults: &mut ErrorList) {
    faults.extend(
        names::label_key_faults(key).into_iter().map(|fault| Error::invalid_text(path(), key, fault)),
    );
    faults.extend(
        names::label_value_faults(value).into_iter().map(|fault| Error::invalid_text(path(), value, fault)),
    );
}

fn check_requirement(
    requirement: &LabelSelectorRequirement,
    allow_invalid_values: bool,
    path: impl Fn() -> Path,
    faults: &mut ErrorList,
) {
    let values = values(requirement);
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            faults.push(Error::required(path().child("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            faults.push(Error::forbidden(path().child("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        operator => {
            faults.push(Error::invalid(path().child("operator"), &operator, "not a valid selector operator"));
        }
    }
    let key = &requirement.key;
    let key_faults = names::label_key_faults(key).into_iter();
    faults.extend(key_faults.map(|fault| Error::invalid_text(path().child("key"), key, fault)));
    if allow_invalid_values {
        return;
    }
    for (index, value) in values.iter().enumerate() {
        if faults.is_full() {
            return;
        }
        let value_faults = names::label_value_faults(value).into_iter();
        let path = || path().child("values").index(index);
        faults.extend(value_faults.map(|fault| Error::invalid_text(path(), value, fault)));
    }
}

fn values(requirement: &LabelSelectorRequirement) -> &[String] {
    requirement.values.as_deref().unwrap_or_default()
}

/// A selector as upstream prints it: with its order of fields, without empty ones.
#[derive(PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PrintedSelector<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    match_labels: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    match_expressions: Vec<PrintedRequirement<'a>>,
}

#[derive(PartialEq, Serialize)]
struct PrintedRequirement<'a> {
    key: &'a str,
    operator: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    values: &'a [String],
}

impl<'a> From<&'a LabelSelector> for PrintedSelector<'a> {
    fn from(selector: &'a LabelSelector) -> Self {
        let printed = |requirement: &'a LabelSelectorRequirement| PrintedRequirement {
            key: &requirement.key,
            operator: &requirement.operator,
            values: values(requirement),
        };
        Self {
            match_labels: selector.match_labels.as_ref().filter(|labels| !labels.is_empty()),
            match_expressions: expressions(selector).iter().map(printed).collect(),
        }
    }
}
