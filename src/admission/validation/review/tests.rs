//! Reviews, from a request as a client writes it to the Status and the warnings.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::admission_v1;
use crate::api::admission_v1::response::{Status, StatusCause, StatusDetails};
use crate::policy::Level;

/// Returns a request as a client writes it.
pub(in crate::admission::validation) fn request(operation: &str, object: &Value, old: &Value) -> Value {
    json!({
        "uid": "1", "kind": {"group": "apps", "version": "v1", "kind": "DaemonSet"},
        "operation": operation, "object": object, "oldObject": old,
    })
}

/// Returns the body of a review.
pub(in crate::admission::validation) fn body(request: &Value) -> Vec<u8> {
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    serde_json::to_vec(&body).unwrap()
}

fn review_request(policy: &Policy, request: &Value) -> Result<ReviewOutcome, BadReview> {
    review(policy, &admission_v1::parse(&body(request)).unwrap(), None)
}

/// Returns a DaemonSet without a fault, changed by a merge patch.
pub(in crate::admission::validation) fn daemon_set(patch: &str) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "ns", "resourceVersion": "7", "uid": "u"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"priorityClassName": "p", "containers": [{"name": "c", "resources": {"requests": {"cpu": "1m"}}}]},
            },
        },
    });
    json_patch::merge(&mut object, &serde_json::from_str(patch).unwrap());
    object
}

fn errors(outcome: &ReviewOutcome) -> Vec<String> {
    outcome.validation.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn creation_has_upstreams_faults() {
    let percent = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
    let strategy = "spec.updateStrategy.rollingUpdate.";
    let no_match = |labels: &str| {
        format!(
            "spec.template.metadata.labels: Invalid value: {labels}: `selector` does not match template `labels`"
        )
    };
    let agent = no_match(r#"{"app":"agent"}"#);
    let expressions = |list: &str| {
        format!(r#"{{"spec":{{"selector":{{"matchLabels":null,"matchExpressions":[{list}]}}}}}}"#)
    };
    let update = |text: &str| format!(r#"{{"spec":{{"updateStrategy":{{"rollingUpdate":{text}}}}}}}"#);
    let cases: Vec<(String, Vec<String>)> = vec![
        ("{}".into(), vec![]),
        // Metadata.
        (r#"{"metadata":{"name":""}}"#.into(), vec!["metadata.name: Required value: name or generateName is required".into()]),
        (r#"{"metadata":{"name":null,"generateName":"a-"}}"#.into(), vec![]),
        (format!(r#"{{"metadata":{{"namespace":"{}"}}}}"#, "n".repeat(64)), vec![format!(r#"metadata.namespace: Invalid value: "{}": must be no more than 63 characters"#, "n".repeat(64))]),
        (r#"{"metadata":{"namespace":"a.b"}}"#.into(), vec![r#"metadata.namespace: Invalid value: "a.b": must not contain dots"#.into()]),
        (r#"{"metadata":{"namespace":null}}"#.into(), vec!["metadata.namespace: Required value".into()]),
        (r#"{"metadata":{"annotations":{"UPPER/X":"","deprecated.daemonset.template.generation":"-3"},"generation":-1}}"#.into(), vec![]),
        (r#"{"metadata":{"annotations":{"a/b/":"x"}}}"#.into(), vec![r#"metadata.annotations: Invalid value: "a/b/": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"#.into()]),
        (format!(r#"{{"metadata":{{"annotations":{{"a":"{}"}}}}}}"#, "x".repeat(262_144)), vec!["metadata.annotations: Too long: may not be more than 262144 bytes".into()]),
        (r#"{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Event","name":"e","uid":""}]}}"#.into(), vec![
            r#"metadata.ownerReferences.uid: Invalid value: "": must not be empty"#.into(),
            r#"metadata.ownerReferences: Invalid value: {"apiVersion":"v1","kind":"Event","name":"e","uid":""}: /v1, Kind=Event is disallowed from being an owner"#.into(),
        ]),
        (r#"{"metadata":{"finalizers":["orphan","foregroundDeletion","mine"]}}"#.into(), vec![
            r#"metadata.finalizers: Invalid value: ["orphan","foregroundDeletion","mine"]: finalizer orphan and foregroundDeletion cannot be both set"#.into(),
            r#"metadata.finalizers[2]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified"#.into(),
        ]),
        (r#"{"metadata":{"managedFields":[{"operation":"Merge","manager":"a\u0007"}]}}"#.into(), vec![
            r#"metadata.managedFields[0].operation: Invalid value: "Merge": must be `Apply` or `Update`"#.into(),
            r#"metadata.managedFields[0].manager: Invalid value: "a\a": invalid character U+0007 (at position 1)"#.into(),
        ]),
        // Selector.
        (r#"{"spec":{"selector":null}}"#.into(), vec![agent.clone()]),
        (r#"{"spec":{"selector":{"matchLabels":null}}}"#.into(), vec!["spec.selector: Invalid value: {}: empty selector is invalid for daemonset".into()]),
        (r#"{"spec":{"template":{"metadata":null}}}"#.into(), vec![no_match("null")]),
        (expressions(r#"{"key":"app","operator":"in","values":["x"]}"#), vec![r#"spec.selector.matchExpressions[0].operator: Invalid value: "in": not a valid selector operator"#.into()]),
        (expressions(r#"{"key":"app","operator":"In","values":[]}"#), vec!["spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'".into()]),
        (expressions(r#"{"key":"app","operator":"Exists","values":["x"]}"#), vec!["spec.selector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'".into()]),
        (expressions(r#"{"key":"none","operator":"NotIn","values":["x"]},{"key":"none","operator":"DoesNotExist"}"#), vec![]),
        (expressions(r#"{"key":"app","operator":"In","values":["agent"]},{"key":"app","operator":"In","values":["b"]}"#), vec![agent]),
        (expressions(r#"{"key":"/app","operator":"Exists"}"#), vec![r#"spec.selector.matchExpressions[0].key: Invalid value: "/app": prefix part must be non-empty"#.into()]),
        // Template.
        (r#"{"spec":{"template":{"spec":{"restartPolicy":"OnFailure"}}}}"#.into(), vec![r#"spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always""#.into()]),
        (r#"{"spec":{"template":{"spec":{"restartPolicy":"Foo","activeDeadlineSeconds":0}}}}"#.into(), vec![
            r#"spec.template.spec.restartPolicy: Unsupported value: "Foo": supported values: "Always", "OnFailure", "Never""#.into(),
            "spec.template.spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive".into(),
            r#"spec.template.spec.restartPolicy: Unsupported value: "Foo": supported values: "Always""#.into(),
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported".into(),
        ]),
        (r#"{"spec":{"template":{"metadata":{"annotations":{"kubernetes.io/config.mirror":"m","controller.kubernetes.io/pod-deletion-cost":"+1"}}}}}"#.into(), vec![
            r#"spec.template.annotations[kubernetes.io/config.mirror]: Invalid value: "m": must set spec.nodeName if mirror pod annotation is set"#.into(),
            r#"spec.template.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+1": must be a 32bit integer"#.into(),
        ]),
        (r#"{"spec":{"template":{"metadata":{"labels":{"x/":"y"}}}}}"#.into(), vec![
            r#"spec.template.labels: Invalid value: "x/": name part must be non-empty"#.into(),
            r#"spec.template.labels: Invalid value: "x/": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#.into(),
        ]),
        // Numbers.
        (r#"{"spec":{"minReadySeconds":-1,"revisionHistoryLimit":-2}}"#.into(), vec![
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0".into(),
            "spec.revisionHistoryLimit: Invalid value: -2: must be greater than or equal to 0".into(),
        ]),
        (r#"{"spec":{"minReadySeconds":0,"revisionHistoryLimit":0}}"#.into(), vec![]),
        // Strategy.
        (r#"{"spec":{"updateStrategy":{"type":"RollingUpdate"}}}"#.into(), vec![]),
        (update(r#"{"maxSurge":1}"#), vec![format!("{strategy}maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero")]),
        (update(r#"{"maxUnavailable":0}"#), vec![format!("{strategy}maxUnavailable: Required value: cannot be 0 when maxSurge is 0")]),
        (update(r#"{"maxUnavailable":"00%","maxSurge":"0%"}"#), vec![format!("{strategy}maxUnavailable: Required value: cannot be 0 when maxSurge is 0")]),
        (update(r#"{"maxUnavailable":"007%"}"#), vec![]),
        (update(r#"{"maxUnavailable":2147483647}"#), vec![]),
        (update(r#"{"maxUnavailable":"101%"}"#), vec![format!(r#"{strategy}maxUnavailable: Invalid value: "101%": must not be greater than 100%"#)]),
        (update(r#"{"maxUnavailable":"99999999999999999999%"}"#), vec![format!(r#"{strategy}maxUnavailable: Invalid value: "99999999999999999999%": must not be greater than 100%"#)]),
        (update(r#"{"maxUnavailable":"5"}"#), vec![format!(r#"{strategy}maxUnavailable: Invalid value: "5": {percent}"#)]),
        (update(r#"{"maxUnavailable":"abc"}"#), vec![
            format!(r#"{strategy}maxUnavailable: Invalid value: "abc": {percent}"#),
            format!("{strategy}maxUnavailable: Required value: cannot be 0 when maxSurge is 0"),
        ]),
        (update(r#"{"maxUnavailable":-1,"maxSurge":1}"#), vec![
            format!("{strategy}maxUnavailable: Invalid value: -1: must be greater than or equal to 0"),
            format!("{strategy}maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"),
        ]),
        (update(r#"{"maxUnavailable":null}"#), vec![]),
        (r#"{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":{"maxUnavailable":"abc"}}}}"#.into(), vec![]),
        (r#"{"spec":{"updateStrategy":{"type":"rollingupdate","rollingUpdate":{"maxSurge":"<1"}}}}"#.into(), vec![
            r#"spec.updateStrategy: Unsupported value: {"Type":"rollingupdate","RollingUpdate":{"MaxUnavailable":0,"MaxSurge":"\u003c1"}}: supported values: "RollingUpdate", "OnDelete""#.into(),
        ]),
    ];
    for (patch, expected) in cases {
        let outcome =
            review_request(&Policy::default(), &request("CREATE", &daemon_set(&patch), &Value::Null))
                .unwrap();
        assert_eq!(errors(&outcome), expected, "{}", &patch[..patch.len().min(300)]);
        assert_eq!(outcome.is_allowed(), expected.is_empty(), "{patch}");
    }
}

#[test]
fn updates_are_compared_with_the_stored_object() {
    let changed = r#""minReadySeconds":1"#;
    let cases: Vec<(&str, String, Vec<&str>)> = vec![
        ("{}", format!(r#"{{"spec":{{{changed}}}}}"#), vec![]),
        ("{}", format!(r#"{{"metadata":{{"resourceVersion":null,"uid":null,"generation":0}},"spec":{{{changed}}}}}"#), vec![]),
        ("{}", format!(r#"{{"metadata":{{"uid":"other"}},"spec":{{{changed}}}}}"#), vec![r#"metadata.uid: Invalid value: "other": field is immutable"#; 2]),
        ("{}", r#"{"spec":{"selector":{"matchLabels":{"app":"b"}}}}"#.into(), vec![
            r#"spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable"#,
            r#"spec.template.metadata.labels: Invalid value: {"app":"agent"}: `selector` does not match template `labels`"#,
        ]),
        ("{}", r#"{"spec":{"selector":null}}"#.into(), vec![
            "spec.selector: Invalid value: null: field is immutable",
            r#"spec.template.metadata.labels: Invalid value: {"app":"agent"}: `selector` does not match template `labels`"#,
        ]),
        // Empty equals absent, and the order of values matters.
        (r#"{"spec":{"selector":{"matchExpressions":[]}}}"#, format!(r#"{{"spec":{{{changed}}}}}"#), vec![]),
        (r#"{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["a","b"]}]}}}"#, r#"{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["b","a"]}]}}}"#.into(), vec![
            r#"spec.selector: Invalid value: {"matchLabels":{"app":"agent"},"matchExpressions":[{"key":"app","operator":"NotIn","values":["b","a"]}]}: field is immutable"#,
        ]),
        // Values that are stored may stay, in expressions.
        (r#"{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["-"]}]}}}"#, format!(r#"{{"spec":{{"selector":{{"matchExpressions":[{{"key":"app","operator":"NotIn","values":["-"]}}]}},{changed}}}}}"#), vec![]),
        (r#"{"spec":{"template":{"spec":{"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"podAffinityTerm":{"labelSelector":{"matchLabels":{"a":"-"}}}}]}}}}}}"#, r#"{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["-"]}]}}}"#.into(), vec![
            r#"spec.selector: Invalid value: {"matchLabels":{"app":"agent"},"matchExpressions":[{"key":"app","operator":"NotIn","values":["-"]}]}: field is immutable"#,
        ]),
        ("{}", format!(r#"{{"metadata":{{"name":"a%b"}},"spec":{{{changed}}}}}"#), vec![
            r#"metadata.name: Invalid value: "a%b": may not contain '%'"#,
            r#"metadata.name: Invalid value: "a%b": field is immutable"#,
            r#"metadata.name: Invalid value: "a%b": field is immutable"#,
        ]),
    ];
    for (old, new, expected) in cases {
        let request = request("UPDATE", &daemon_set(&new), &daemon_set(old));
        assert_eq!(errors(&review_request(&Policy::default(), &request).unwrap()), expected, "{old} {new}");
    }
}

#[test]
fn other_requests_are_allowed_without_validation() {
    let bad =
        daemon_set(r#"{"spec":{"selector":null,"updateStrategy":{"rollingUpdate":{"maxUnavailable":"x"}}}}"#);
    let mut cases = vec![request("DELETE", &Value::Null, &bad), request("CONNECT", &bad, &Value::Null)];
    let mut change = |patch: Value| {
        let mut request = request("UPDATE", &bad, &daemon_set("{}"));
        json_patch::merge(&mut request, &patch);
        cases.push(request);
    };
    change(json!({"subResource": "status"}));
    change(json!({"kind": {"group": "extensions"}}));
    change(json!({"kind": {"kind": "Deployment"}}));
    change(json!({"object": {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}}));
    change(json!({"oldObject": {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}}));
    change(json!({"object": {"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}}}));
    cases.push(request("UPDATE", &bad, &bad));
    // The same spec, written in another way.
    let mut rewritten = bad.clone();
    let containers = json!([{"name": "c", "ports": [], "resources": {"requests": {"cpu": 0.001}}}]);
    let patch = json!({"metadata": {"labels": {"-": ""}}, "spec": {"template": {"spec": {"tolerations": [], "containers": containers}}}});
    json_patch::merge(&mut rewritten, &patch);
    cases.push(request("UPDATE", &rewritten, &bad));
    for request in cases {
        assert_eq!(
            review_request(&Policy::default(), &request).unwrap(),
            ReviewOutcome::default(),
            "{request}"
        );
    }
}

#[test]
fn objects_that_are_not_daemon_sets_are_bad_requests() {
    let good = daemon_set("{}");
    let strategy = |value: &str| {
        daemon_set(&format!(
            r#"{{"spec":{{"updateStrategy":{{"rollingUpdate":{{"maxUnavailable":{value}}}}}}}}}"#
        ))
    };
    let cases = [
        (request("CREATE", &Value::Null, &Value::Null), "has operation CREATE and no object"),
        (request("UPDATE", &Value::Null, &good), "has operation UPDATE and no object"),
        (request("UPDATE", &good, &Value::Null), "has operation UPDATE and no oldObject"),
        (
            request("CREATE", &strategy("1.5"), &Value::Null),
            "object cannot be handled as a DaemonSet: spec.updateStrategy",
        ),
        (request("CREATE", &strategy("true"), &Value::Null), "spec.updateStrategy"),
        (request("CREATE", &strategy("3000000000"), &Value::Null), "spec.updateStrategy"),
        (request("UPDATE", &good, &strategy("{}")), "oldObject cannot be handled"),
        (request("CREATE", &json!([]), &Value::Null), "expected an object"),
        (request("CREATE", &json!("x"), &Value::Null), "expected an object"),
        (request("CREATE", &daemon_set(r#"{"spec":{"template":[]}}"#), &Value::Null), "expected an object"),
        (request("CREATE", &daemon_set(r#"{"spec":{"selector":[]}}"#), &Value::Null), "expected an object"),
        (
            request("CREATE", &daemon_set(r#"{"spec":{"updateStrategy":[]}}"#), &Value::Null),
            "expected an object",
        ),
        (request("CREATE", &daemon_set(r#"{"metadata":{"labels":{"a":1}}}"#), &Value::Null), "metadata: "),
        (
            request(
                "CREATE",
                &daemon_set(
                    r#"{"metadata":{"annotations":{"deprecated.daemonset.template.generation":"x"}}}"#,
                ),
                &Value::Null,
            ),
            "is no integer",
        ),
    ];
    for (request, text) in cases {
        let error = review_request(&Policy::default(), &request).unwrap_err().to_string();
        assert!(error.contains(text), "{request}: {error}");
    }
}

#[test]
fn other_kinds_are_checked_for_what_all_kinds_share() {
    let mut policy = Policy::default();
    policy.daemon_set_kinds.push(GroupKind { group: "apps.kruise.io".into(), kind: "DaemonSet".into() });
    let object = daemon_set(
        r#"{"metadata":{"name":"N","finalizers":["x"]},"spec":{"minReadySeconds":-1,"updateStrategy":{"rollingUpdate":{"maxUnavailable":1.5}},"selector":{"matchLabels":{"app":"b"}},"template":{"spec":{"restartPolicy":"Never","activeDeadlineSeconds":5,"nodeName":"n"}}}}"#,
    );
    let mut request = request("UPDATE", &object, &daemon_set("{}"));
    request["kind"]["group"] = json!("apps.kruise.io");
    let outcome = review_request(&policy, &request).unwrap();
    let fields: Vec<&str> = outcome.validation.errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.selector",
            "spec.template.metadata.labels",
            "spec.template.spec.restartPolicy",
            "spec.template.spec.activeDeadlineSeconds"
        ]
    );
    assert!(outcome.warnings().is_empty());
    assert!(outcome.status().unwrap().message.starts_with(r#"DaemonSet.apps.kruise.io "N" is invalid: ["#));
}

#[test]
fn refusals_and_warnings_read_well() {
    let mut policy = Policy::default();
    let gated = r#"{"spec":{"template":{"spec":{"schedulingGates":[{"name":"g"}],"nodeName":"n"}}}}"#;
    let create = request("CREATE", &daemon_set(gated), &Value::Null);
    let outcome = review_request(&policy, &create).unwrap();
    assert!(outcome.is_allowed() && outcome.status().is_none());
    assert_eq!(
        outcome.warnings(),
        [
            "spec.template.spec.nodeName: Forbidden: it confines the DaemonSet to one node and bypasses the scheduler; use nodeSelector (node-name-in-template)",
            "spec.template.spec.schedulingGates: Forbidden: every pod waits until its gates are removed (scheduling-gates)",
        ]
    );

    policy.admission.rules.insert("scheduling-gates".into(), Level::Deny);
    policy.admission.rules.insert("node-name-in-template".into(), Level::Off);
    let outcome = review_request(&policy, &create).unwrap();
    assert!(outcome.warnings().is_empty());
    assert_eq!(
        outcome.status(),
        Some(Status {
            status: "Failure",
            code: 403,
            reason: "Forbidden",
            message: r#"DaemonSet.apps "agent" is forbidden by policy: spec.template.spec.schedulingGates: Forbidden: every pod waits until its gates are removed (scheduling-gates); change the object, or set admission.rules.scheduling-gates to Warn or Off in the configuration of daemonset-warden"#.into(),
            details: StatusDetails {
                name: "agent".into(),
                group: "apps".into(),
                kind: "DaemonSet".into(),
                causes: vec![StatusCause {
                    reason: "FieldValueForbidden",
                    field: "spec.template.spec.schedulingGates".into(),
                    message: "Forbidden: every pod waits until its gates are removed (scheduling-gates)".into(),
                }],
            },
        })
    );

    // A fault that is stored already becomes a warning; beside a fault of upstream's, so does a denial.
    let changed = r#"{"spec":{"minReadySeconds":1,"template":{"spec":{"schedulingGates":[{"name":"g"}]}}}}"#;
    let outcome =
        review_request(&policy, &request("UPDATE", &daemon_set(changed), &daemon_set(gated))).unwrap();
    assert!(outcome.is_allowed() && outcome.warnings().len() == 1);
    let outcome =
        review_request(&policy, &request("UPDATE", &daemon_set(changed), &daemon_set("{}"))).unwrap();
    assert!(!outcome.is_allowed());
    let wrong =
        daemon_set(&gated.replace("\"schedulingGates\"", "\"restartPolicy\":\"Foo\",\"schedulingGates\""));
    let outcome = review_request(&policy, &request("CREATE", &wrong, &Value::Null)).unwrap();
    let status = outcome.status().unwrap();
    assert_eq!((status.code, status.details.causes.len(), outcome.warnings().len()), (422, 2, 1));

    // Upstream repeats the fault three times, but not in the message.
    let labelled = r#"{"metadata":{"labels":{"a":"-"}},"spec":{"minReadySeconds":1}}"#;
    let outcome =
        review_request(&policy, &request("UPDATE", &daemon_set(labelled), &daemon_set("{}"))).unwrap();
    let status = outcome.status().unwrap();
    assert_eq!(status.details.causes.len(), 3);
    assert!(
        status.message.starts_with(
            r#"DaemonSet.apps "agent" is invalid: metadata.labels: Invalid value: "-": a valid"#
        )
    );
}

/// Generates JSON with the keys and values of a DaemonSet, and others, in any place.
fn json_like() -> impl Strategy<Value = Value> {
    let keys = [
        "metadata",
        "spec",
        "selector",
        "matchLabels",
        "matchExpressions",
        "values",
        "key",
        "operator",
        "template",
        "labels",
        "annotations",
        "updateStrategy",
        "rollingUpdate",
        "maxSurge",
        "maxUnavailable",
        "type",
        "name",
        "generateName",
        "containers",
        "ports",
        "hostPort",
        "affinity",
        "tolerations",
        "restartPolicy",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "deprecated.daemonset.template.generation",
        "resources",
        "requests",
        "cpu",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[-a-z0-9./%]{0,6}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["In", "Exists", "OnDelete", "RollingUpdate", "10%", "Always"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        let key = prop::sample::select(keys.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_panics_and_reviews_are_deterministic(metadata in json_like(), spec in json_like(), old in json_like()) {
        let mut object = daemon_set("{}");
        json_patch::merge(&mut object, &json!({"metadata": metadata, "spec": spec}));
        for request in [request("CREATE", &object, &Value::Null), request("UPDATE", &object, &old), request("UPDATE", &old, &object)] {
            let review = || review_request(&Policy::default(), &request).map(|outcome| (outcome.status(), outcome.warnings())).map_err(|error| error.to_string());
            prop_assert_eq!(review(), review());
        }
        let same = review_request(&Policy::default(), &request("UPDATE", &object, &object));
        if let Ok(outcome) = same {
            prop_assert!(outcome.is_allowed());
        }
    }
}
