//! `/mutate`, case by case, through whole reviews. The default priority has its own tests.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use daemonset_warden::admission::mutation;
use daemonset_warden::admission::patch::Patch;
use daemonset_warden::api::admission_v1;
use daemonset_warden::api::decode_budget::DecodeBudget;
use daemonset_warden::api::meta::GroupKind;
use daemonset_warden::policy::Policy;
use proptest::prelude::*;
use serde_json::{Value, json};

const OWNER: &str = r#"{"apiVersion":"apps/v1","kind":"DaemonSet","name":"a","uid":"1","controller":true}"#;
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn review_of(pod: &str) -> String {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"1","kind":{{"group":"","version":"v1","kind":"Pod"}},"namespace":"agents","operation":"CREATE","object":{pod},"oldObject":null}}}}"#
    )
}

fn mutate_text(policy: &Policy, review: &str) -> Result<Patch, String> {
    let request = admission_v1::parse(review.as_bytes()).map_err(|error| error.to_string())?;
    mutation::review(policy, &request, None, None).map_err(|error| error.to_string())
}

fn mutate(pod: &Value) -> Patch {
    mutate_text(&Policy::default(), &review_of(&pod.to_string())).unwrap()
}

/// Returns the operations, each as `op path`.
fn operations(patch: &Patch) -> Vec<String> {
    let operations: Vec<Value> = serde_json::from_str(&patch.to_json()).unwrap();
    let name = |operation: &Value| {
        format!("{} {}", operation["op"].as_str().unwrap(), operation["path"].as_str().unwrap())
    };
    operations.iter().map(name).collect()
}

fn apply(pod: &Value, patch: &Patch) -> Value {
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &serde_json::from_str::<json_patch::Patch>(&patch.to_json()).unwrap())
        .unwrap();
    pod
}

/// Returns the pod after `/mutate`. A second call must return no patch.
fn mutated(pod: &Value) -> Value {
    let patched = apply(pod, &mutate(pod));
    assert_eq!(mutate(&patched).to_json(), "[]", "the second call would patch again: {patched}");
    patched
}

fn target(node: &str) -> Value {
    json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]})
}

fn toleration(key: &str, effect: &str) -> Value {
    json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect})
}

fn daemon_tolerations() -> Vec<Value> {
    vec![
        toleration("not-ready", "NoExecute"),
        toleration("unreachable", "NoExecute"),
        toleration("disk-pressure", "NoSchedule"),
        toleration("memory-pressure", "NoSchedule"),
        toleration("pid-pressure", "NoSchedule"),
        toleration("unschedulable", "NoSchedule"),
    ]
}

fn owner(api_version: &str, kind: &str, controller: bool) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": "d", "uid": "u", "controller": controller})
}

fn pod(spec: &Value) -> Value {
    json!({"metadata": {"name": "d-1", "ownerReferences": [owner("apps/v1", "DaemonSet", true)]}, "spec": spec})
}

/// Returns a pod with all tolerations, so that only the affinity is patched.
fn placed(node_name: &str, affinity: &Value) -> Value {
    let mut pod = pod(&json!({"affinity": affinity, "tolerations": daemon_tolerations()}));
    if !node_name.is_empty() {
        pod["spec"]["nodeName"] = json!(node_name);
    }
    pod
}

fn terms(terms: &Value) -> Value {
    json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}})
}

fn required(pod: &Value) -> &Value {
    &pod["spec"]["affinity"]["nodeAffinity"][REQUIRED]
}

#[test]
fn the_owner_is_the_controller_of_kind_daemon_set_in_apps() {
    let is_touched = |policy: &Policy, owners: Value| {
        let mut pod = pod(&json!({"nodeName": "n1"}));
        pod["metadata"]["ownerReferences"] = owners;
        !mutate_text(policy, &review_of(&pod.to_string())).unwrap().is_empty()
    };
    let policy = Policy::default();
    assert!(is_touched(&policy, json!([owner("apps/v1", "DaemonSet", true)])));
    assert!(is_touched(&policy, json!([owner("apps/v1beta2", "DaemonSet", true)])));
    assert!(is_touched(&policy, json!([owner("v1", "Node", false), owner("apps/v1", "DaemonSet", true)])));
    for owners in [
        json!(null),
        json!([]),
        json!([owner("apps/v1", "DaemonSet", false)]),
        json!([owner("apps/v1", "ReplicaSet", true), owner("apps/v1", "DaemonSet", true)]),
        json!([owner("apps/v1", "daemonset", true)]),
        json!([owner("apps", "DaemonSet", true)]),
        json!([owner("extensions/v1beta1", "DaemonSet", true)]),
        json!([owner("apps.kruise.io/v1alpha1", "DaemonSet", true)]),
    ] {
        assert!(!is_touched(&policy, owners.clone()), "{owners}");
    }
    let kruise = GroupKind { group: "apps.kruise.io".into(), kind: "DaemonSet".into() };
    let policy = Policy { daemon_set_kinds: vec![kruise], ..policy };
    assert!(is_touched(&policy, json!([owner("apps.kruise.io/v1alpha1", "DaemonSet", true)])));
    assert!(!is_touched(&policy, json!([owner("apps/v1", "DaemonSet", true)])));
}

#[test]
fn a_forged_owner_gains_what_any_author_could_write() {
    let patch = mutate(&pod(&json!({"nodeName": "n1"})));
    assert_eq!(operations(&patch), ["add /spec/affinity", "add /spec/tolerations", "remove /spec/nodeName"]);
    assert!(!patch.to_json().contains("riority"));
}

#[test]
fn a_pod_that_has_it_all_gets_no_patch() {
    let pod = placed("", &json!({"nodeAffinity": {REQUIRED: target("n1")}}));
    assert!(mutate(&pod).is_empty());
}

#[test]
fn node_name_becomes_affinity() {
    for affinity in [
        json!(null),
        json!({}),
        json!({"nodeAffinity": null}),
        json!({"nodeAffinity": {}}),
        json!({"nodeAffinity": {REQUIRED: null}}),
        json!({"nodeAffinity": {REQUIRED: {}}}),
        json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": null}}}),
    ] {
        let pod = mutated(&placed("n1", &affinity));
        assert_eq!(pod["spec"]["affinity"], json!({"nodeAffinity": {REQUIRED: target("n1")}}), "{affinity}");
        assert!(pod["spec"].get("nodeName").is_none());
    }
    let without = mutated(&pod(&json!({"nodeName": "n1", "tolerations": daemon_tolerations()})));
    assert_eq!(without["spec"]["affinity"], json!({"nodeAffinity": {REQUIRED: target("n1")}}));
}

#[test]
fn node_name_wins_over_affinity() {
    let pod = mutated(&placed("n1", &json!({"nodeAffinity": {REQUIRED: target("n2")}})));
    assert_eq!(required(&pod), &target("n1"));
}

#[test]
fn terms_that_allow_other_nodes_are_replaced() {
    let expression = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
    let pod = mutated(&placed("", &terms(&json!([expression, target("n1")["nodeSelectorTerms"][0]]))));
    assert_eq!(required(&pod), &target("n1"));
}

#[test]
fn the_first_of_two_targets_counts() {
    let two = json!([target("n1")["nodeSelectorTerms"][0], target("n2")["nodeSelectorTerms"][0]]);
    assert_eq!(required(&mutated(&placed("", &terms(&two)))), &target("n1"));
}

#[test]
fn cases_42_and_44_no_target_is_invented() {
    let field = |values: Value| {
        terms(&json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": values}]}]))
    };
    for affinity in [
        field(json!(["n1", "n2"])),
        field(json!([])),
        field(json!(null)),
        json!(null),
        terms(&json!([])),
        terms(&json!([{"matchExpressions": [{"key": "a", "operator": "Exists"}]}])),
    ] {
        assert!(mutate(&placed("", &affinity)).is_empty(), "{affinity}");
    }
    assert!(mutate(&pod(&json!({}))).is_empty(), "no tolerations are added either");
}

#[test]
fn not_in_is_skipped() {
    let fields = json!([{"matchFields": [
        {"key": "metadata.name", "operator": "NotIn", "values": ["n0"]},
        {"key": "metadata.name", "operator": "In", "values": ["n1"]},
    ]}]);
    assert_eq!(required(&mutated(&placed("", &terms(&fields)))), &target("n1"));
}

#[test]
fn everything_beside_it_survives() {
    let before = json!({
        "future": {"a": [1.50, "x"]}, "podAffinity": {"p": 1}, "podAntiAffinity": {"q": null},
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"future": true}}],
            REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}], "future": 2},
            "future": "z",
        },
    });
    let mut expected = placed("", &before);
    expected["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] =
        target("n1")["nodeSelectorTerms"].clone();
    for (key, value) in [("nodeSelector", json!({"disk": "ssd"})), ("future", json!([{"é": "\u{1}"}]))] {
        expected["spec"][key] = value;
    }
    let mut pod = expected.clone();
    pod["spec"]["affinity"] = before;
    pod["spec"]["nodeName"] = json!("n1");
    let patch = mutate(&pod);
    assert_eq!(
        operations(&patch),
        [&format!("add /spec/affinity/nodeAffinity/{REQUIRED}/nodeSelectorTerms"), "remove /spec/nodeName"]
    );
    assert_eq!(apply(&pod, &patch), expected);
}

#[test]
fn the_deepest_missing_level_is_set() {
    let path = |affinity: Value| operations(&mutate(&placed("n1", &affinity)))[0].clone();
    assert_eq!(path(json!(null)), "add /spec/affinity");
    assert_eq!(path(json!({"podAffinity": {}})), "add /spec/affinity/nodeAffinity");
    let preferred = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}});
    assert_eq!(path(preferred), format!("add /spec/affinity/nodeAffinity/{REQUIRED}"));
}

fn tolerations_after(spec: Value) -> Value {
    let mut pod = pod(&spec);
    pod["spec"]["nodeName"] = json!("n1");
    mutated(&pod)["spec"]["tolerations"].clone()
}

#[test]
fn tolerations_that_are_absent_are_added_whole() {
    for spec in [json!({}), json!({"tolerations": null}), json!({"tolerations": []})] {
        assert_eq!(tolerations_after(spec), json!(daemon_tolerations()));
    }
    let patch = mutate(&pod(&json!({"nodeName": "n1"})));
    assert_eq!(operations(&patch)[1], "add /spec/tolerations", "never an item of a list that may not exist");
}

#[test]
fn seconds_are_dropped_in_place() {
    let mut timed = toleration("not-ready", "NoExecute");
    timed["tolerationSeconds"] = json!(300);
    let other = json!({"key": "a", "operator": "Exists"});
    let mut expected = daemon_tolerations();
    expected.insert(1, other.clone());
    expected.insert(2, daemon_tolerations()[0].clone());
    assert_eq!(tolerations_after(json!({"tolerations": [timed, other, timed]})), json!(expected));
}

#[test]
fn cases_48_and_49_only_the_same_toleration_counts() {
    let not_ready = |extra: Value| {
        let mut toleration = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"});
        toleration.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        toleration
    };
    for own in [
        json!({"operator": "Exists"}),
        not_ready(json!({})),
        not_ready(json!({"operator": "Equal", "value": ""})),
        not_ready(json!({"operator": "Exists", "value": "x"})),
        json!({"key": "node.kubernetes.io/disk-pressure", "operator": "Exists"}),
        json!(null),
    ] {
        let mut expected = vec![own.clone()];
        expected.extend(daemon_tolerations());
        assert_eq!(tolerations_after(json!({"tolerations": [own]})), json!(expected));
    }
    // An empty value is the same as none.
    let own = not_ready(json!({"operator": "Exists", "value": ""}));
    let mut expected = daemon_tolerations();
    expected[0] = own.clone();
    assert_eq!(tolerations_after(json!({"tolerations": [own]})), json!(expected));
}

#[test]
fn the_hosts_network_needs_one_more() {
    let mut expected = daemon_tolerations();
    expected.push(toleration("network-unavailable", "NoSchedule"));
    assert_eq!(tolerations_after(json!({"hostNetwork": true})), json!(expected));
    for spec in [json!({"hostNetwork": false}), json!({"hostNetwork": null})] {
        assert_eq!(tolerations_after(spec), json!(daemon_tolerations()));
    }
}

#[test]
fn only_the_legacy_scheduler_is_replaced() {
    let scheduler = |policy: &Policy, name: &str| {
        let pod = pod(&json!({"nodeName": "n1", "schedulerName": name}));
        let patch = mutate_text(policy, &review_of(&pod.to_string())).unwrap();
        apply(&pod, &patch)["spec"]["schedulerName"].clone()
    };
    let mut policy = Policy::default();
    assert_eq!(scheduler(&policy, "kubernetes.io/daemonset-controller"), "default-scheduler");
    assert_eq!(scheduler(&policy, "mine"), "mine");
    policy.admission.scheduler_name = "for \"daemons\"".to_owned();
    assert_eq!(scheduler(&policy, "kubernetes.io/daemonset-controller"), "for \"daemons\"");
}

#[test]
fn mirror_pods_are_the_kubelets() {
    let mut mirror = pod(&json!({"nodeName": "n1"}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": ""});
    assert!(mutate(&mirror).is_empty());
    let mut node_owned = pod(&json!({"nodeName": "n1"}));
    node_owned["metadata"]["ownerReferences"] = json!([owner("v1", "Node", true)]);
    assert!(mutate(&node_owned).is_empty());
}

#[test]
fn gates_stay() {
    let pod = mutated(&pod(&json!({"nodeName": "n1", "schedulingGates": [{"name": "g"}]})));
    assert_eq!(pod["spec"]["schedulingGates"], json!([{"name": "g"}]));
    assert!(pod["spec"].get("nodeName").is_none());
}

#[test]
fn no_tolerations_where_a_whitelist_would_refuse_them() {
    let mut policy = Policy::default();
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "agents"}});
    policy.admission.skip_tolerations = Some(serde_json::from_value(selector).unwrap());
    let review = review_of(&pod(&json!({"nodeName": "n1"})).to_string());
    let patch = mutate_text(&policy, &review).unwrap();
    assert_eq!(operations(&patch), ["add /spec/affinity", "remove /spec/nodeName"]);
    let elsewhere = mutate_text(&policy, &review.replace("\"agents\"", "\"others\"")).unwrap();
    assert_eq!(operations(&elsewhere).len(), 3);
    // The name counts only if the Namespace's labels are not known.
    let request = admission_v1::parse(review.as_bytes()).unwrap();
    let unlabelled = mutation::review(&policy, &request, Some(&BTreeMap::new()), None).unwrap();
    assert_eq!(operations(&unlabelled).len(), 3);
}

#[test]
fn a_dry_run_gets_the_same() {
    let review = review_of(&pod(&json!({"nodeName": "n1"})).to_string());
    let dry = review.replace("\"uid\":\"1\"", "\"uid\":\"1\",\"dryRun\":true");
    let policy = Policy::default();
    assert_eq!(mutate_text(&policy, &review), mutate_text(&policy, &dry));
}

#[test]
fn other_requests_are_allowed_without_a_patch() {
    let review = review_of(&pod(&json!({"nodeName": "n1"})).to_string());
    let policy = Policy::default();
    let others = [
        review.replace("\"CREATE\"", "\"UPDATE\""),
        review.replace("\"CREATE\"", "\"DELETE\"").replace("\"object\":{", "\"object\":null,\"x\":{"),
        review.replace("\"CREATE\"", "\"CONNECT\""),
        review.replace("\"namespace\"", "\"subResource\":\"ephemeralcontainers\",\"namespace\""),
        review.replace("\"namespace\"", "\"subResource\":\"status\",\"namespace\""),
        review.replace("\"kind\":\"Pod\"", "\"kind\":\"Binding\""),
        review.replace("\"group\":\"\"", "\"group\":\"example.com\""),
    ];
    for other in others {
        assert_ne!(other, review);
        assert_eq!(mutate_text(&policy, &other), Ok(Patch::default()), "{other}");
    }
    let null = mutate_text(&policy, &review_of("null")).unwrap_err();
    assert!(null.contains("operation CREATE and no object"), "{null}");
}

#[test]
fn a_pod_without_a_name_yet() {
    let mut pod = pod(&json!({"nodeName": "n1"}));
    pod["metadata"]["generateName"] = json!("d-");
    pod["metadata"].as_object_mut().unwrap().remove("name");
    assert_eq!(mutated(&pod)["metadata"], pod["metadata"]);
}

#[test]
fn another_webhooks_terms_are_mended_again() {
    let mut pod = mutated(&pod(&json!({"nodeName": "n1"})));
    let term = pod["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"][0].clone();
    pod["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] =
        json!([{"matchExpressions": []}, term]);
    pod["spec"]["tolerations"].as_array_mut().unwrap().remove(2);
    let mended = mutated(&pod);
    assert_eq!(required(&mended), &target("n1"));
    assert_eq!(mended["spec"]["tolerations"].as_array().unwrap().len(), 6);
}

#[test]
fn node_names_that_cannot_be() {
    let all: String = (1..128_u8).map(char::from).collect();
    for name in ["N1", &"n".repeat(300), "n\u{e9}\"\\/~\n", &all] {
        let pod = mutated(&placed(name, &json!(null)));
        assert_eq!(required(&pod), &target(name));
    }
}

#[test]
fn an_empty_node_name_is_none() {
    let mut pod = placed("", &json!({"nodeAffinity": {REQUIRED: target("n1")}}));
    for empty in [json!(""), json!(null)] {
        pod["spec"]["nodeName"] = empty;
        assert!(mutate(&pod).is_empty());
    }
}

#[test]
fn the_patch_is_standard_base64() {
    let patch = mutate(&pod(&json!({"nodeName": "n>>>???"})));
    let decoded = BASE64_STANDARD.decode(patch.to_base64().get().trim_matches('"')).unwrap();
    assert_eq!(String::from_utf8(decoded).unwrap(), patch.to_json());
}

#[test]
fn order_alone_is_no_reason_to_patch() {
    let mut tolerations = daemon_tolerations();
    tolerations.reverse();
    tolerations.insert(3, json!({"key": "a", "operator": "Exists"}));
    let mut pod = placed("", &json!({"nodeAffinity": {REQUIRED: target("n1")}}));
    pod["spec"]["tolerations"] = json!(tolerations);
    assert!(mutate(&pod).is_empty());
}

#[test]
fn ignored_pods_and_namespaces_are_left_alone() {
    let mut ignored = pod(&json!({"nodeName": "n1"}));
    ignored["metadata"]["labels"] = json!({"daemonset-warden.io/ignore": "true"});
    assert!(mutate(&ignored).is_empty());
    ignored["metadata"]["labels"] = json!({"daemonset-warden.io/ignore": "false", "other": "true"});
    assert!(!mutate(&ignored).is_empty());
    let review = review_of(&pod(&json!({"nodeName": "n1"})).to_string());
    let request = admission_v1::parse(review.as_bytes()).unwrap();
    let labels = BTreeMap::from([("daemonset-warden.io/ignore".to_owned(), "true".to_owned())]);
    assert!(mutation::review(&Policy::default(), &request, Some(&labels), None).unwrap().is_empty());
}

#[test]
fn tolerations_survive_to_the_byte() {
    let own = r#"{ "key":"a", "é":[1e400, 12345678901234567890123, -0.10],"operator":"Exists" }"#;
    let text = format!(
        r#"{{"metadata":{{"ownerReferences":[{}]}},"spec":{{"nodeName":"n1","tolerations":[{own}]}}}}"#,
        owner("apps/v1", "DaemonSet", true)
    );
    let patch = mutate_text(&Policy::default(), &review_of(&text)).unwrap().to_json();
    assert!(patch.contains(&format!(r#""value":[{own},{{"effect":"NoExecute""#)), "{patch}");
}

#[test]
fn keys_with_escapes_are_keys() {
    let text = pod(&json!({"nodeName": "n1"})).to_string().replace("nodeName", "node\\u004eame");
    let patch = mutate_text(&Policy::default(), &review_of(&text)).unwrap();
    assert_eq!(operations(&patch).last().unwrap(), "remove /spec/nodeName");
}

#[test]
fn rejects_what_is_no_pod() {
    let wrong = |pointer: &str, value: Value| {
        let mut pod = pod(
            &json!({"nodeName": "n1", "affinity": {"nodeAffinity": {REQUIRED: {}}}, "tolerations": [{}]}),
        );
        pod["metadata"]["labels"] = json!({"a": "b"});
        *pod.pointer_mut(pointer).unwrap() = value;
        pod.to_string()
    };
    let required = format!("/spec/affinity/nodeAffinity/{REQUIRED}");
    let cases = [
        "[]".to_owned(),
        "7".to_owned(),
        r#""pod""#.to_owned(),
        wrong("/metadata", json!([])),
        wrong("/metadata/labels", json!(["daemonset-warden.io/ignore"])),
        wrong("/metadata/labels/a", json!(1)),
        wrong("/metadata/ownerReferences", json!({})),
        wrong("/metadata/ownerReferences", json!(["DaemonSet"])),
        wrong("/metadata/ownerReferences/0", json!(["apps/v1", "DaemonSet"])),
        wrong("/metadata/ownerReferences/0/controller", json!("true")),
        wrong("/metadata/ownerReferences/0/kind", json!({})),
        wrong("/metadata/ownerReferences/0/name", json!({})),
        wrong("/metadata/ownerReferences/0/uid", json!(7)),
        wrong("/spec", json!([])),
        wrong("/spec/nodeName", json!(5)),
        wrong("/spec/affinity", json!([])),
        wrong("/spec/affinity/nodeAffinity", json!("x")),
        wrong(&required, json!([])),
        wrong("/spec/tolerations", json!({})),
        wrong("/spec/tolerations/0", json!("x")),
        wrong("/spec/tolerations/0", json!({"tolerationSeconds": 1.5})),
        wrong("/spec/tolerations/0", json!({"key": 1})),
    ];
    for pod in cases {
        let error = mutate_text(&Policy::default(), &review_of(&pod)).unwrap_err();
        assert!(error.starts_with("object cannot be handled as a Pod: "), "{pod}: {error}");
    }
    let deep = format!(r#"{{"spec":{}}}"#, "[".repeat(200_000));
    assert!(mutate_text(&Policy::default(), &review_of(&deep)).is_err());
}

#[test]
fn a_pod_that_takes_too_much_memory_is_allowed_without_a_patch() {
    let many = format!(r#"{{"spec":{{"nodeName":"n","tolerations":[{}{{}}]}}}}"#, "{},".repeat(50_000));
    let many = many.replacen('{', &format!(r#"{{"metadata":{{"ownerReferences":[{OWNER}]}},"#), 1);
    let body = review_of(&many);
    let request = admission_v1::parse(body.as_bytes()).unwrap();
    let patch = |limit| {
        let budget = DecodeBudget::new(limit);
        let patch = mutation::review_within(&Policy::default(), &request, None, &budget, |_| false).unwrap();
        (patch.is_empty(), budget.is_exceeded())
    };
    assert_eq!(patch(1 << 20), (true, true));
    assert_eq!(patch(24 << 20), (false, false));
}

/// Compares the patches of whole reviews with golden files.
#[test]
fn golden_reviews() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mutate");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(stem) = path.to_str().unwrap().strip_suffix(".review.json") else { continue };
        let patch = mutate_text(&Policy::default(), &std::fs::read_to_string(&path).unwrap()).unwrap();
        let actual = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&patch.to_json()).unwrap())
            .unwrap()
            + "\n";
        super::support::golden(&format!("{stem}.patch.json"), &actual);
        count += 1;
    }
    assert_eq!(count, 3);
}

/// Generates JSON from a few words, so that some of it has a meaning.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
        Just(json!("Exists")),
        Just(json!("metadata.name")),
        Just(json!("In")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![
            "nodeAffinity",
            "podAffinity",
            "nodeSelectorTerms",
            "matchFields",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "effect",
            REQUIRED
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_toleration() -> impl Strategy<Value = Value> {
    let seconds = prop_oneof![Just(json!(null)), any::<i32>().prop_map(Value::from)];
    let own = (0..6_usize, prop_oneof![Just("Exists"), Just("Equal"), Just("")], seconds, any_json());
    let own = own.prop_map(|(index, operator, seconds, future)| {
        let mut toleration = daemon_tolerations()[index].clone();
        toleration["operator"] = json!(operator);
        toleration["tolerationSeconds"] = seconds;
        toleration["future"] = future;
        toleration
    });
    prop_oneof![20 => own, 1 => any_json()]
}

fn any_affinity() -> impl Strategy<Value = Value> {
    let term = prop_oneof![
        Just(target("n1")["nodeSelectorTerms"][0].clone()),
        Just(json!({})),
        Just(json!({"matchExpressions": []}))
    ];
    let terms = prop::collection::vec(term, 0..3);
    let near = (terms, any_json()).prop_map(|(terms, future)| {
        json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms, "future": future}, "future": future}, "podAffinity": future})
    });
    prop_oneof![4 => near, 1 => any_json()]
}

proptest! {
    #[test]
    fn a_patch_applies_keeps_the_rest_and_is_the_last(
        node in prop_oneof![Just(String::new()), ".{1,9}"],
        affinity in any_affinity(),
        tolerations in prop::collection::vec(any_toleration(), 0..4),
        future in any_json(),
        host_network in any::<bool>(),
    ) {
        let spec = json!({"nodeName": node, "affinity": affinity, "tolerations": tolerations, "future": future, "hostNetwork": host_network});
        let pod = pod(&spec);
        // Refused if it is no pod; otherwise patched at most once.
        if let Ok(patch) = mutate_text(&Policy::default(), &review_of(&pod.to_string())) {
            let patched = apply(&pod, &patch);
            prop_assert_eq!(mutate(&patched).to_json(), "[]");
            prop_assert_eq!(&patched["metadata"], &pod["metadata"]);
            prop_assert_eq!(&patched["spec"]["future"], &future);
            let kept = patched["spec"]["tolerations"].as_array().unwrap();
            prop_assert!(tolerations.iter().all(|own| kept.contains(own) || own.get("tolerationSeconds").is_some()));
            if !node.is_empty() {
                prop_assert_eq!(required(&patched)["nodeSelectorTerms"].clone(), target(&node)["nodeSelectorTerms"].clone());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = admission_v1::parse(&body) {
            let _ = mutation::review(&Policy::default(), &request, None, None);
        }
    }
}
