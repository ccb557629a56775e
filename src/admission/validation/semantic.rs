//! Semantic equality of two specs, compared as JSON.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/apimachinery/pkg/api/equality/semantic.go (`Semantic.DeepEqual`), which compares
//! decoded objects: absent lists and maps equal empty ones, absent plain values equal zero values, and quantities are compared as
//! amounts. An absent pointer never equals an empty object: `emptyDir: {}` is a volume.

use serde_json::{Map, Value, value::RawValue};

use crate::api::quantity::Quantity;

/// Fields that are maps, or structs and not pointers in Go: empty equals absent.
const EMPTY_EQUALS_ABSENT: [&str; 14] = [
    "annotations",
    "labels",
    "limits",
    "matchLabels",
    "metadata",
    "nodeSelector",
    "options",
    "overhead",
    "podAffinityTerm",
    "preference",
    "requests",
    "template",
    "updateStrategy",
    "volumeAttributes",
];
/// Fields that are plain values in Go, not pointers: zero equals absent.
const ZERO_EQUALS_ABSENT: [&str; 33] = [
    "containerPort",
    "effect",
    "failureThreshold",
    "fieldPath",
    "hostIP",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "hostname",
    "image",
    "imagePullPolicy",
    "initialDelaySeconds",
    "key",
    "minReadySeconds",
    "mountPath",
    "name",
    "nodeName",
    "operator",
    "path",
    "periodSeconds",
    "priorityClassName",
    "protocol",
    "readOnly",
    "schedulerName",
    "stdin",
    "stdinOnce",
    "subPath",
    "subdomain",
    "successThreshold",
    "timeoutSeconds",
    "tty",
    "workingDir",
];
/// Fields that are maps whose keys the author chose.
const MAPS: [&str; 8] =
    ["annotations", "labels", "limits", "matchLabels", "nodeSelector", "options", "overhead", "requests"];
/// Maps whose values are quantities.
const QUANTITIES: [&str; 3] = ["limits", "overhead", "requests"];

/// Returns true if two specs are semantically equal; `None` is a spec that is absent. Returns false if one of them cannot be
/// parsed.
pub(super) fn equal(a: Option<&RawValue>, b: Option<&RawValue>) -> bool {
    let parse = |raw: Option<&RawValue>| raw.map_or(Ok(Value::Null), |raw| serde_json::from_str(raw.get()));
    // A spec that is nested too deeply to parse counts as changed.
    let (Ok(a), Ok(b)) = (parse(a), parse(b)) else { return false };
    values_equal("spec", "", &a, &b)
}

/// Returns true if two values of the field `name` of the field `parent` are equal. Elements of a list have the list's name.
fn values_equal(parent: &str, name: &str, a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => maps_equal(name, a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| values_equal(parent, name, a, b))
        }
        (Value::Null, other) | (other, Value::Null) => is_absent(parent, name, other),
        _ => {
            a == b
                || is_quantity(parent, name)
                    && amount(a).is_some_and(|amount_of_a| Some(amount_of_a) == amount(b))
        }
    }
}

fn maps_equal(name: &str, a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let only_in = |key: &str, value: &Value| is_absent(name, key, value);
    a.iter().all(|(key, value)| match b.get(key) {
        Some(other) => values_equal(name, key, value, other),
        None => only_in(key, value),
    }) && b.iter().all(|(key, value)| a.contains_key(key) || only_in(key, value))
}

/// Returns true if the value of the field `name` of the field `parent` equals an absent one.
fn is_absent(parent: &str, name: &str, value: &Value) -> bool {
    if MAPS.contains(&parent) {
        return false; // An entry of a map is data, whatever its key is called.
    }
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && is_map_or_plain(parent, name),
        Value::Bool(true) => false,
        Value::Bool(false) => ZERO_EQUALS_ABSENT.contains(&name),
        Value::String(text) => text.is_empty() && ZERO_EQUALS_ABSENT.contains(&name),
        Value::Number(number) => number.as_i64() == Some(0) && ZERO_EQUALS_ABSENT.contains(&name),
    }
}

fn is_map_or_plain(parent: &str, name: &str) -> bool {
    // `resources` is a struct in a container and a pointer in a pod spec.
    let of_container = matches!(parent, "containers" | "initContainers" | "ephemeralContainers");
    EMPTY_EQUALS_ABSENT.contains(&name) || name == "resources" && of_container
}

fn is_quantity(parent: &str, name: &str) -> bool {
    QUANTITIES.contains(&parent) || matches!(name, "sizeLimit" | "divisor")
}

fn amount(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_the_same_as_upstream() {
        let cases = [
            ("{}", "null", false),
            (r#"{"selector":null,"template":{}}"#, "{}", true),
            (r#"{"a":[]}"#, r#"{"a":null}"#, true),
            (r#"{"selector":{}}"#, "{}", false),
            (r#"{"selector":{"matchExpressions":[],"matchLabels":{}}}"#, r#"{"selector":{}}"#, true),
            (r#"{"volumes":[{"emptyDir":{}}]}"#, r#"{"volumes":[{}]}"#, false),
            (r#"{"containers":[{"resources":{}}]}"#, r#"{"containers":[{}]}"#, true),
            (r#"{"template":{"spec":{"resources":{}}}}"#, r#"{"template":{"spec":{}}}"#, false),
            (r#"{"requests":{"cpu":"1000m"}}"#, r#"{"requests":{"cpu":1}}"#, true),
            (r#"{"requests":{"cpu":"1001m"}}"#, r#"{"requests":{"cpu":1}}"#, false),
            (r#"{"labels":{"cpu":"1000m"}}"#, r#"{"labels":{"cpu":"1"}}"#, false),
            (r#"{"labels":{"name":""}}"#, r#"{"labels":{}}"#, false),
            (r#"{"values":["a","b"]}"#, r#"{"values":["b","a"]}"#, false),
            (r#"{"hostNetwork":false,"nodeName":"","hostPort":0}"#, "{}", true),
            (r#"{"enableServiceLinks":false}"#, "{}", false),
            (r#"{"activeDeadlineSeconds":0}"#, "{}", false),
        ];
        for (a, b, expected) in cases {
            let (raw_a, raw_b): (&RawValue, &RawValue) =
                (serde_json::from_str(a).unwrap(), serde_json::from_str(b).unwrap());
            assert_eq!(equal(Some(raw_a), Some(raw_b)), expected, "{a} {b}");
            assert_eq!(equal(Some(raw_b), Some(raw_a)), expected, "{b} {a}");
            assert!(equal(Some(raw_a), Some(raw_a)), "{a}");
        }
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        let deep: &RawValue = serde_json::from_str(&deep).unwrap();
        assert!(!equal(Some(deep), Some(deep)));
    }
}
