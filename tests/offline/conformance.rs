//! The `create` and `update` cases of tests/data/conformance.jsonl, whose answers Kubernetes 1.36.3's own code gave.

use daemonset_warden::daemonset::admission;
use daemonset_warden::daemonset::policy::Policy;
use daemonset_warden::daemonset::validation::{self, Verdict};
use serde_json::{Value, json};

#[test]
fn creation_is_judged_as_upstream_judges_it() {
    for case in cases("create") {
        // As the apiserver hands it over, and as a person wrote it.
        for object in [&case["object"], &case["raw"]] {
            assert_judged_as_expected(&case, &review("CREATE", object, &Value::Null));
        }
    }
}

#[test]
fn updates_are_judged_as_upstream_judges_them() {
    for case in cases("update") {
        assert_judged_as_expected(&case, &review("UPDATE", &case["object"], &case["old"]));
        assert!(review("UPDATE", &case["object"], &case["object"]).is_allowed(), "{case}");
    }
}

fn assert_judged_as_expected(case: &Value, verdict: &Verdict) {
    assert!(verdict.validation.denials.is_empty(), "{case}");
    let errors = verdict.validation.errors.iter();
    let causes: Vec<Value> =
        errors.map(|error| json!({"field": error.field.as_str(), "type": error.kind.reason()})).collect();
    assert_eq!(Value::Array(causes), case["causes"], "{case}");
    assert_eq!(verdict.is_allowed(), case["allowed"], "{case}");
}

fn review(operation: &str, object: &Value, old: &Value) -> Verdict {
    let kind = json!({"group": "apps", "version": "v1", "kind": "DaemonSet"});
    let body = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "1", "kind": kind, "operation": operation, "object": object, "oldObject": old},
    });
    let body = serde_json::to_vec(&body).unwrap();
    validation::review(&Policy::default(), &admission::parse(&body).unwrap(), None).unwrap()
}

fn cases(op: &str) -> Vec<Value> {
    let text = include_str!("../data/conformance.jsonl");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cases: Vec<Value> = all.filter(|case| case["op"] == op).collect();
    assert!(cases.len() >= 300, "only {} cases of {op}", cases.len());
    cases
}
