//! The nodes that a pod's `nodeSelector` and required node affinity allow.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go
//! (`GetRequiredNodeAffinity`, `nodeSelectorTerm.match`). Preferred terms only order nodes and are not read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use super::label_selector;

/// The only field of a node that a term may name.
pub const METADATA_NAME: &str = "metadata.name";

/// Returns true if `node_selector` and `required` both allow a node with this name and these labels. An absent `required` allows
/// every node.
///
/// One term must match. An empty term, a term that does not parse and an empty list of terms match nothing. With an empty
/// `node_name`, `matchFields` are not compared.
pub fn required_node_affinity_matches(
    node_selector: &BTreeMap<String, String>,
    required: Option<&NodeSelector>,
    node_name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && required.is_none_or(|required| node_selector_matches(required, node_name, labels))
}

/// Returns true if any term of `selector` matches a node with this name and these labels; see [`required_node_affinity_matches`].
pub fn node_selector_matches(
    selector: &NodeSelector,
    node_name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node_name, labels))
}

fn term_matches(term: &NodeSelectorTerm, node_name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    // Upstream parses the whole term before it matches: one bad requirement makes the term match nothing. To parse takes longer
    // than to compare, and most terms match few nodes, so it comes last here.
    expressions.iter().all(|requirement| expression_matches(requirement, labels))
        && (node_name.is_empty() || fields.iter().all(|requirement| field_matches(requirement, node_name)))
        && expressions.iter().all(expression_parses)
        && fields.iter().all(field_parses)
}

fn expression_parses(requirement: &NodeSelectorRequirement) -> bool {
    let values = values(requirement);
    let count_fits = match requirement.operator.as_str() {
        "Gt" | "Lt" => values.len() == 1 && values[0].parse::<i64>().is_ok(),
        operator => label_selector::accepts_values(operator, values),
    };
    count_fits
        && label_selector::key_is_valid(&requirement.key)
        && values.iter().all(|value| label_selector::value_is_valid(value))
}

fn expression_matches(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let values = values(requirement);
    let label = labels.get(&requirement.key);
    match requirement.operator.as_str() {
        "Gt" => compares(label, values, |label, value| label > value),
        "Lt" => compares(label, values, |label, value| label < value),
        operator => label_selector::matches_value(operator, label, values),
    }
}

/// Compares as Gt and Lt do: both sides are 64-bit integers. Returns false for a label that is absent or no integer.
fn compares(label: Option<&String>, values: &[String], order: fn(i64, i64) -> bool) -> bool {
    let label = label.and_then(|label| label.parse().ok());
    let value = values.first().and_then(|value| value.parse().ok());
    label.zip(value).is_some_and(|(label, value)| order(label, value))
}

/// Returns true if the requirement is In or NotIn with exactly one value (`nodeSelectorRequirementsAsFieldSelector`).
fn field_parses(requirement: &NodeSelectorRequirement) -> bool {
    matches!(requirement.operator.as_str(), "In" | "NotIn") && values(requirement).len() == 1
}

fn field_matches(requirement: &NodeSelectorRequirement, node_name: &str) -> bool {
    // `metadata.name` is the only field of the set; another key reads as the empty string.
    let actual = if requirement.key == METADATA_NAME { node_name } else { "" };
    let equal = values(requirement).first().is_some_and(|value| value == actual);
    equal == (requirement.operator == "In")
}

fn values(requirement: &NodeSelectorRequirement) -> &[String] {
    requirement.values.as_deref().unwrap_or_default()
}
