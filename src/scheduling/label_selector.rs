//! Label selectors: their syntax, and the labels that they match.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/helpers.go (`LabelSelectorAsSelector`) and
//! staging/src/k8s.io/apimachinery/pkg/labels/selector.go (`NewRequirement`, `Requirement.Matches`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::names;

/// Returns true if `selector` matches `labels`. Returns `None` if the selector does not convert: it has a bad key, value or
/// operator, or the wrong number of values. Upstream treats that neither as a match nor as a mismatch.
///
/// An absent selector matches nothing, and an empty selector everything. All requirements must match.
pub fn matches(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> Option<bool> {
    let Some(selector) = selector else { return Some(false) };
    if !converts(selector) {
        return None;
    }
    let all_labels =
        selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let all_expressions =
        expressions(selector).iter().all(|requirement| requirement_matches(requirement, labels));
    Some(all_labels && all_expressions)
}

/// Returns true if `selector` has neither labels nor expressions.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().next().is_none() && expressions(selector).is_empty()
}

/// Returns true if `key` has the syntax of a label key.
pub fn key_is_valid(key: &str) -> bool {
    names::label_key_faults(key).is_empty()
}

/// Returns true if `value` has the syntax of a label value.
pub fn value_is_valid(value: &str) -> bool {
    names::label_value_faults(value).is_empty()
}

/// Returns the expressions; an empty slice if the field is absent.
pub fn expressions(selector: &LabelSelector) -> &[LabelSelectorRequirement] {
    selector.match_expressions.as_deref().unwrap_or_default()
}

/// Returns true if every requirement of `selector` is well formed (`LabelSelectorAsSelector` returns no error).
pub fn converts(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().all(|(key, value)| key_is_valid(key) && value_is_valid(value))
        && expressions(selector).iter().all(|requirement| {
            let values = requirement.values.as_deref().unwrap_or_default();
            accepts_values(&requirement.operator, values)
                && key_is_valid(&requirement.key)
                && values.iter().all(|value| value_is_valid(value))
        })
}

fn requirement_matches(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    matches_value(&requirement.operator, labels.get(&requirement.key), values)
}

/// Returns true if `operator` is In, NotIn, Exists or DoesNotExist, and this number of values is right for it. Gt and Lt exist in
/// node affinity only.
pub(super) fn accepts_values(operator: &str, values: &[String]) -> bool {
    match operator {
        "In" | "NotIn" => !values.is_empty(),
        "Exists" | "DoesNotExist" => values.is_empty(),
        _ => false,
    }
}

/// Returns true if the label, `None` if absent, matches. Returns false for operators other than In, NotIn, Exists and DoesNotExist.
pub(super) fn matches_value(operator: &str, label: Option<&String>, values: &[String]) -> bool {
    match operator {
        "In" => label.is_some_and(|label| values.contains(label)),
        "NotIn" => label.is_none_or(|label| !values.contains(label)),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_upstream() {
        let labels =
            BTreeMap::from([("app".to_owned(), "agent".to_owned()), ("empty".to_owned(), String::new())]);
        let cases = [
            (r#"{}"#, Some(true)),
            (r#"{"matchLabels":{"app":"agent"}}"#, Some(true)),
            (r#"{"matchLabels":{"app":"other"}}"#, Some(false)),
            (r#"{"matchLabels":{"app":"-"}}"#, None),
            (r#"{"matchExpressions":[{"key":"app","operator":"In","values":["agent"]}]}"#, Some(true)),
            (r#"{"matchExpressions":[{"key":"empty","operator":"In","values":[""]}]}"#, Some(true)),
            (r#"{"matchExpressions":[{"key":"none","operator":"In","values":[""]}]}"#, Some(false)),
            (r#"{"matchExpressions":[{"key":"none","operator":"NotIn","values":["x"]}]}"#, Some(true)),
            (r#"{"matchExpressions":[{"key":"none","operator":"DoesNotExist"}]}"#, Some(true)),
            (r#"{"matchExpressions":[{"key":"empty","operator":"Exists"}]}"#, Some(true)),
            (r#"{"matchExpressions":[{"key":"app","operator":"Exists","values":["x"]}]}"#, None),
            (r#"{"matchExpressions":[{"key":"app","operator":"in","values":["agent"]}]}"#, None),
            (r#"{"matchExpressions":[{"key":"app","operator":"In"}]}"#, None),
            (
                r#"{"matchExpressions":[{"key":"app","operator":"In","values":["agent"]},{"key":"app","operator":"In","values":["b"]}]}"#,
                Some(false),
            ),
        ];
        for (text, expected) in cases {
            let selector: LabelSelector = serde_json::from_str(text).unwrap();
            assert_eq!(matches(Some(&selector), &labels), expected, "{text}");
        }
        assert_eq!(matches(None, &labels), Some(false));
    }
}
