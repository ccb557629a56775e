//! Semantic equality of two specs, compared as JSON.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/apimachinery/pkg/api/equality/semantic.go (`Semantic.DeepEqual`), which compares
//! decoded objects: absent lists and maps equal empty ones, absent plain values equal zero values, and quantities are compared as
//! amounts. An absent pointer never equals an empty object: `emptyDir: {}` is a volume.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, value::RawValue};

use crate::api::decode_budget::DecodeBudget;
use crate::api::json::{JsonError, Scanner};
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

/// The greatest depth that is compared; a spec has a dozen levels. Each level is scanned once more than the one around it.
const MAX_DEPTH: usize = 48;

/// Returns true if two specs are semantically equal. Specs that are too large or too deep to compare count as changed.
///
/// Parts of the same text are skipped, and of the others one level is held in memory at a time: as values of serde_json, 6 MiB of
/// text would take thirty times as much.
pub(super) fn equal(a: Option<&RawValue>, b: Option<&RawValue>, budget: &DecodeBudget<'_>) -> bool {
    let (a, b) = (a.map_or("null", RawValue::get), b.map_or("null", RawValue::get));
    Comparison { budget, depth: 0 }.values_equal("spec", "", a, b)
}

/// One level of a comparison.
#[derive(Clone, Copy)]
struct Comparison<'b> {
    budget: &'b DecodeBudget<'b>,
    depth: usize,
}

impl Comparison<'_> {
    /// Compares the values of the field `name` of the field `parent`; elements of a list have the list's name.
    fn values_equal(self, parent: &str, name: &str, a: &str, b: &str) -> bool {
        match (kind(a), kind(b)) {
            (Kind::Object, Kind::Object) => {
                a == b || self.deeper().is_some_and(|own| own.maps_equal(name, a, b))
            }
            (Kind::Array, Kind::Array) => {
                a == b || self.deeper().is_some_and(|own| own.lists_equal(parent, name, a, b))
            }
            (Kind::Null, _) => is_absent(parent, name, b),
            (_, Kind::Null) => is_absent(parent, name, a),
            _ => scalars_equal(parent, name, a, b),
        }
    }

    fn deeper(self) -> Option<Self> {
        (self.depth < MAX_DEPTH).then_some(Self { depth: self.depth + 1, ..self })
    }

    fn maps_equal(self, name: &str, a: &str, b: &str) -> bool {
        let (Some(a), Some(b)) = (self.entries(a), self.entries(b)) else { return false };
        let only_in = |key: &str, value: &str| is_absent(name, key, value);
        a.iter().all(|(key, value)| match b.get(key) {
            Some(other) => self.values_equal(name, key, value, other),
            None => only_in(key, value),
        }) && b.iter().all(|(key, value)| a.contains_key(key) || only_in(key, value))
    }

    fn lists_equal(self, parent: &str, name: &str, a: &str, b: &str) -> bool {
        let (Some(a), Some(b)) = (self.items(a), self.items(b)) else { return false };
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.values_equal(parent, name, a, b))
    }

    /// Returns the entries of an object; `None` if there are too many.
    fn entries<'t>(self, text: &'t str) -> Option<BTreeMap<Cow<'t, str>, &'t str>> {
        let mut entries = BTreeMap::new();
        let scanned = Scanner::new(text).object(|scanner, key| {
            self.charge::<(Cow<'_, str>, &str)>(scanner)?;
            let key = key.decode().ok_or_else(|| scanner.fault("half a surrogate pair in a key"))?;
            entries.insert(key, scanner.value()?);
            Ok(())
        });
        scanned.is_ok().then_some(entries)
    }

    /// Returns the elements of a list; `None` if there are too many.
    fn items(self, text: &str) -> Option<Vec<&str>> {
        let mut items = Vec::new();
        let scanned = Scanner::new(text).array(|scanner| {
            self.charge::<&str>(scanner)?;
            items.push(scanner.value()?);
            Ok(())
        });
        scanned.is_ok().then_some(items)
    }

    fn charge<T>(self, scanner: &Scanner<'_>) -> Result<(), JsonError> {
        self.budget.charge(2 * size_of::<T>()).map_err(|_| scanner.fault("too many elements"))
    }
}

/// The kind of a JSON value, by its first byte.
#[derive(PartialEq)]
enum Kind {
    Object,
    Array,
    Null,
    Scalar,
}

fn kind(text: &str) -> Kind {
    match text.as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'n') => Kind::Null,
        _ => Kind::Scalar,
    }
}

fn scalars_equal(parent: &str, name: &str, a: &str, b: &str) -> bool {
    if kind(a) != Kind::Scalar || kind(b) != Kind::Scalar {
        return false;
    }
    let value = |text| serde_json::from_str::<Value>(text).ok();
    let (Some(a), Some(b)) = (value(a), value(b)) else { return false };
    a == b
        || is_quantity(parent, name) && amount(&a).is_some_and(|amount_of_a| Some(amount_of_a) == amount(&b))
}

/// Returns true if a value equals an absent one.
fn is_absent(parent: &str, name: &str, text: &str) -> bool {
    if MAPS.contains(&parent) {
        return false; // An entry of a map is data, whatever its key is called.
    }
    let is_empty = |end: char| text[1..].trim_start().starts_with(end);
    match kind(text) {
        Kind::Null => true,
        Kind::Array => is_empty(']'),
        Kind::Object => is_empty('}') && is_map_or_plain(parent, name),
        Kind::Scalar => ZERO_EQUALS_ABSENT.contains(&name) && is_zero(text),
    }
}

fn is_zero(text: &str) -> bool {
    match serde_json::from_str(text) {
        Ok(Value::Bool(value)) => !value,
        Ok(Value::String(text)) => text.is_empty(),
        Ok(Value::Number(number)) => number.as_i64() == Some(0),
        _ => false,
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

    fn equal(a: Option<&RawValue>, b: Option<&RawValue>) -> bool {
        super::equal(a, b, &DecodeBudget::default())
    }

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
    }

    #[test]
    fn what_is_too_deep_or_too_large_counts_as_changed() {
        let deep = |value: &str| {
            let text = format!("{}{value}{}", "[".repeat(100), "]".repeat(100));
            serde_json::from_str::<Box<RawValue>>(&text).unwrap()
        };
        assert!(equal(Some(&deep("1")), Some(&deep("1"))) && !equal(Some(&deep("1")), Some(&deep("1.0"))));
        let wide = |value: &str| {
            let text = format!("[{}{value}]", "0,".repeat(100_000));
            serde_json::from_str::<Box<RawValue>>(&text).unwrap()
        };
        let (one, other) = (wide("null"), wide("[]"));
        assert!(equal(Some(&one), Some(&other)));
        assert!(!super::equal(Some(&one), Some(&other), &DecodeBudget::new(1_000_000)));
    }
}
