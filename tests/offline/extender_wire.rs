//! The bytes of `/scheduler/filter`: requests and responses of kube-scheduler v1.36.3, and properties of arbitrary requests.

use std::collections::BTreeSet;

use daemonset_warden::api::decode_budget::DecodeBudget;
use daemonset_warden::api::extender_v1::ExtenderArgs;
use daemonset_warden::policy::Policy;
use daemonset_warden::reservation::filter_reason::FilterReason;
use daemonset_warden::reservation::prepared_filter;
use daemonset_warden::reservation::prepared_filter::FilterResult;
use daemonset_warden::reservation::target_node_filter::TargetNodeFilter;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const NOT_TARGET: &str = "node(s) were not the daemon pod's target";

fn filter(body: &[u8]) -> Result<FilterResult, String> {
    let args = ExtenderArgs::parse(body).map_err(|error| error.to_string())?;
    let policy = Policy::default();
    let mut target = TargetNodeFilter::read(&policy, &args, &DecodeBudget::default());
    Ok(prepared_filter::answer(&args, |name, _| target.as_mut()?.refuse(name)))
}

fn answer(args: &Value) -> Value {
    serde_json::from_str(&text(&args.to_string())).unwrap()
}

fn text(body: &str) -> String {
    String::from_utf8(filter(body.as_bytes()).unwrap().body.to_vec(body.as_bytes())).unwrap()
}

fn daemon_pod(target: &str) -> Value {
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "1", "controller": true});
    let field = json!({"key": "metadata.name", "operator": "In", "values": [target]});
    let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
    json!({
        "metadata": {"name": "d-1", "namespace": "default", "uid": "2", "ownerReferences": [owner]},
        "spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}},
    })
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": "v"}}, "spec": {}, "status": {"a field of 1.99": 1e30}})
}

#[test]
fn empty_lists_stay_lists() {
    let names = text(r#"{"Pod":{},"Nodes":null,"NodeNames":[]}"#);
    assert_eq!(
        names,
        r#"{"Nodes":null,"NodeNames":[],"FailedNodes":{},"FailedAndUnresolvableNodes":{},"Error":""}"#
    );
    for list in [r#"{"metadata":{},"items":[]}"#, r#"{"items":null}"#, "{}"] {
        let answer: Value =
            serde_json::from_str(&text(&format!(r#"{{"Pod":{{}},"Nodes":{list},"NodeNames":null}}"#)))
                .unwrap();
        assert_eq!((&answer["Nodes"]["items"], &answer["NodeNames"]), (&json!([]), &Value::Null), "{list}");
    }
}

#[test]
fn the_answer_has_the_mode_of_the_question() {
    let answer = answer(&json!({"Pod": daemon_pod("b"), "Nodes": null, "NodeNames": ["a", "b", "c"]}));
    assert_eq!(
        answer,
        json!({
            "Nodes": null, "NodeNames": ["b"], "FailedNodes": {}, "Error": "",
            "FailedAndUnresolvableNodes": {"a": NOT_TARGET, "c": NOT_TARGET},
        })
    );
    let list = json!({"metadata": {"resourceVersion": "7"}, "items": [node("a"), node("b")]});
    let answer = self::answer(&json!({"Pod": daemon_pod("b"), "Nodes": list, "NodeNames": null}));
    assert_eq!(
        answer,
        json!({
            "Nodes": {"metadata": {"resourceVersion": "7"}, "items": [node("b")]}, "NodeNames": null,
            "FailedNodes": {}, "FailedAndUnresolvableNodes": {"a": NOT_TARGET}, "Error": "",
        })
    );
    // NodeNames that are not null win over Nodes.
    let both = json!({"Pod": {}, "Nodes": {"items": [node("a")]}, "NodeNames": []});
    assert_eq!(self::answer(&both)["NodeNames"], json!([]));
    assert_eq!(self::answer(&both)["Nodes"], Value::Null);
}

#[test]
fn node_json_is_echoed_to_the_byte() {
    let items = [
        r#"{ "metadata":{"name":"a","labels":null}, "x":1e400,"long":123456789012345678901234567890 }"#,
        r#"{"metadata":{"name":"b"},"spec":{"taints":null},"é":"\u00e9\/"}"#,
    ];
    let pod = daemon_pod("b");
    let body = format!(
        r#" {{"Pod":{pod}, "Nodes":{{"items":[{} , {}],"more":[1.0]}}, "NodeNames":null}} "#,
        items[0], items[1]
    );
    assert!(text(&body).starts_with(&format!(r#"{{"Nodes":{{"items":[{}],"more":[1.0]}},"#, items[1])));
    let body = body.replace("DaemonSet", "ReplicaSet");
    assert!(
        text(&body)
            .starts_with(&format!(r#"{{"Nodes":{{"items":[{} , {}],"more":[1.0]}},"#, items[0], items[1]))
    );
}

#[test]
fn cases_71_and_73_refusals_are_unresolvable_and_failed_nodes_is_an_object() {
    let answer = answer(&json!({"Pod": daemon_pod("none"), "NodeNames": ["a"]}));
    assert_eq!(answer["FailedNodes"], json!({}));
    assert_eq!(answer["FailedAndUnresolvableNodes"], json!({"a": NOT_TARGET}));
    assert_eq!(answer["NodeNames"], json!([]));
}

#[test]
fn a_node_is_passed_or_failed_never_both() {
    let names = json!({"Pod": daemon_pod("b"), "NodeNames": ["b", "a", "b", "a"]});
    let names = answer(&names);
    assert_eq!(names["NodeNames"], json!(["b", "b"]), "as often as it was sent");
    assert_eq!(names["FailedAndUnresolvableNodes"], json!({"a": NOT_TARGET}));

    let mut tainted = node("b");
    tainted["spec"]["taints"] = json!([{"key": "k", "effect": "NoExecute"}]);
    let list = answer(&json!({"Pod": daemon_pod("b"), "Nodes": {"items": [tainted, node("b")]}}));
    assert_eq!(list["Nodes"]["items"], json!([tainted, node("b")]));
    assert_eq!(list["FailedAndUnresolvableNodes"], json!({}));
    let alone = answer(&json!({"Pod": daemon_pod("b"), "Nodes": {"items": [tainted]}}));
    let taint = json!({"b": "node(s) had a taint the daemon pod didn't tolerate"});
    assert_eq!((&alone["Nodes"]["items"], &alone["FailedAndUnresolvableNodes"]), (&json!([]), &taint));
}

#[test]
fn a_node_is_never_dropped_silently() {
    let items = json!([{}, {"metadata": null}, {"metadata": {"name": ""}}, {"metadata": {"name": null}}, null, node("a")]);
    let answer = answer(&json!({"Pod": daemon_pod("b"), "Nodes": {"items": items}}));
    assert_eq!(
        answer["Nodes"]["items"],
        json!([{}, {"metadata": null}, {"metadata": {"name": ""}}, {"metadata": {"name": null}}, null])
    );
    assert_eq!(answer["FailedAndUnresolvableNodes"], json!({"a": NOT_TARGET}));
    // An ordinary pod, and a daemon pod without a target, pass on every node, also on unknown nodes.
    let mut untargeted = daemon_pod("b");
    untargeted["spec"] = json!({});
    for pod in [json!({}), untargeted] {
        assert_eq!(
            self::answer(&json!({"Pod": pod, "NodeNames": ["x", "y"]}))["NodeNames"],
            json!(["x", "y"])
        );
    }
}

#[test]
fn cases_75_and_77_the_target_passes_each_time() {
    let args = json!({"Pod": daemon_pod("b"), "NodeNames": ["b"]});
    let first = answer(&args);
    assert_eq!(first["NodeNames"], json!(["b"]));
    assert_eq!(answer(&args), first);
}

#[test]
fn keys_in_any_case() {
    let pod = daemon_pod("b");
    for (pod_key, names_key, nodes_key, items_key) in [
        ("pod", "nodenames", "nodes", "items"),
        ("POD", "NODENAMES", "NODES", "Items"),
        ("Pod", "nodeNames", "Nodes", "ITEMS"),
    ] {
        let names = answer(&json!({pod_key: pod, names_key: ["a", "b"], nodes_key: null}));
        assert_eq!(names["NodeNames"], json!(["b"]));
        let whole =
            answer(&json!({pod_key: pod, names_key: null, nodes_key: {items_key: [node("a"), node("b")]}}));
        assert_eq!(whole["Nodes"]["items"], json!([node("b")]));
    }
    // As in Go, the last of several equal keys counts, and escaped letters in a key match.
    let answer = text(r#"{"NodeNames":["a"],"nodenames":["b"],"Pod":{},"\u004eodes":null}"#);
    assert!(answer.contains(r#""NodeNames":["b"]"#));
}

#[test]
fn names_with_escapes_are_compared_by_what_they_say() {
    let body = format!(r#"{{"Pod":{},"NodeNames":["\u0062","a\/"]}}"#, daemon_pod("b"));
    let answer = text(&body);
    assert!(
        answer.contains(r#""NodeNames":["\u0062"]"#) && answer.contains(r#"{"a\/":"node(s)"#),
        "{answer}"
    );
}

#[test]
fn refusals_are_counted_by_reason() {
    let args = json!({"Pod": daemon_pod("b"), "NodeNames": ["a", "b", "c"]}).to_string();
    let result = filter(args.as_bytes()).unwrap();
    assert_eq!((result.nodes, result.refused[FilterReason::NotTarget]), (3, 2));
    assert_eq!(result.refused.values().sum::<usize>(), 2);
}

#[test]
fn rejects_what_is_no_arguments() {
    let deep = format!(r#"{{"Pod":{{}},"NodeNames":[],"x":{}}}"#, "[".repeat(200_000));
    let deep_pod = format!(r#"{{"Pod":{{"x":{}1{}}},"NodeNames":[]}}"#, "[".repeat(2_000), "]".repeat(2_000));
    let cases = [
        ("", "expected an object"),
        ("nothing", "expected an object"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
        ("{}", "have no Pod"),
        (r#"{"NodeNames":[]}"#, "have no Pod"),
        (r#"{"Pod":null,"NodeNames":[]}"#, "have no Pod"),
        (r#"{"Pod":[],"NodeNames":[]}"#, "expected an object"),
        (r#"{"Pod":"p","NodeNames":[]}"#, "expected an object"),
        (r#"{"Pod":{}}"#, "neither NodeNames nor Nodes"),
        (r#"{"Pod":{},"NodeNames":null,"Nodes":null}"#, "neither NodeNames nor Nodes"),
        (r#"{"Pod":{"spec":7},"NodeNames":[]}"#, "cannot be handled as a Pod"),
        (r#"{"Pod":{},"NodeNames":{}}"#, "expected an array"),
        (r#"{"Pod":{},"NodeNames":"a"}"#, "expected an array"),
        (r#"{"Pod":{},"NodeNames":[1]}"#, "expected a string"),
        (r#"{"Pod":{},"NodeNames":[null]}"#, "expected a string"),
        (r#"{"Pod":{},"NodeNames":["a",["b"]]}"#, "expected a string"),
        (r#"{"Pod":{},"NodeNames":["\ud800"]}"#, "half a surrogate pair"),
        (r#"{"Pod":{},"Nodes":[]}"#, "expected an object"),
        (r#"{"Pod":{},"Nodes":{"items":{}}}"#, "expected an array"),
        (r#"{"Pod":{},"Nodes":{"items":[1]}}"#, "expected an object"),
        (r#"{"Pod":{},"Nodes":{"items":[{"metadata":{"name":1}}]}}"#, "expected a string"),
        (r#"{"Pod":{},"Nodes":{"items":[{"metadata":[]}]}}"#, "expected an object"),
        (r#"{"Pod":{},"NodeNames":[]}{}"#, "unexpected text after"),
        (r#"{"Pod":{},"NodeNames":[]"#, "expected a comma"),
        (r#"{"Pod":{},"NodeNames":["a]}"#, "unexpected end"),
        (&deep, "nested too deep"),
        (&deep_pod, "nested too deep"),
    ];
    for (body, expected) in cases {
        let error = filter(body.as_bytes()).unwrap_err();
        assert!(error.contains(expected) && error.len() < 200, "{:.100}: {error}", body);
    }
    let error = filter(b"{\"Pod\":{},\"NodeNames\":[\"\xff\"]}").unwrap_err();
    assert!(error.contains("not UTF-8"), "{error}");
    let many = format!(r#"{{"Pod":{{}},"NodeNames":[{}""]}}"#, r#""","#.repeat(200_000));
    assert!(filter(many.as_bytes()).unwrap_err().contains("too many nodes"));
}

/// Generates a JSON text similar to a Node.
fn any_node() -> impl Strategy<Value = String> {
    let name = prop_oneof![4 => "[a-d]", 1 => Just(String::new()), 1 => "[a-zé\"\\\\]{1,5}"];
    let space = "[ \n]{0,2}";
    (name, space, "[a-z]{0,3}", prop_oneof![Just("null"), Just("{}"), Just(r#"{"l":"v"}"#)], any::<bool>()).prop_map(
        |(name, space, value, labels, tainted)| {
            let name = json!(name);
            let taints = if tainted { r#"[{"key":"k","effect":"NoSchedule"}]"# } else { "null" };
            format!(
                r#"{{{space}"kind":"{value}","metadata":{{"labels":{labels},"name":{name}}}{space},"spec":{{"taints":{taints}}},"n":1e999}}"#
            )
        },
    )
}

fn any_key(key: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<bool>(), key.len()).prop_map(move |upper| {
        let cased = |(letter, upper): (char, bool)| if upper { letter.to_ascii_uppercase() } else { letter };
        key.to_ascii_lowercase().chars().zip(upper).map(cased).collect()
    })
}

fn raw_items(answer: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct List<'a> {
        #[serde(borrow, alias = "Items")]
        items: Vec<&'a RawValue>,
    }
    #[derive(serde::Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, rename = "Nodes")]
        nodes: List<'a>,
    }
    let answer: Answer<'_> = serde_json::from_str(answer).unwrap();
    answer.nodes.items.iter().map(|item| item.get().to_owned()).collect()
}

proptest! {
    #[test]
    fn every_name_is_passed_or_failed(
        names in prop::collection::vec(prop_oneof![4 => "[a-f]", 1 => any::<String>()], 0..12),
        target in "[a-f]",
        keys in (any_key("Pod"), any_key("NodeNames"), any_key("Nodes")),
        is_daemon in any::<bool>(),
        pod_first in any::<bool>(),
    ) {
        let pod = if is_daemon { daemon_pod(&target) } else { json!({}) };
        let pod = format!("\"{}\":{pod}", keys.0);
        let nodes = format!("\"{}\":{},\"{}\":null", keys.1, json!(names), keys.2);
        let body = if pod_first { format!("{{{pod},{nodes}}}") } else { format!("{{{nodes},{pod}}}") };
        let result: Value = serde_json::from_str(&text(&body)).unwrap();
        let passed: Vec<String> = serde_json::from_value(result["NodeNames"].clone()).unwrap();
        let expected: Vec<String> = names.iter().filter(|name| !is_daemon || **name == target).cloned().collect();
        prop_assert_eq!(&passed, &expected);
        let failed: BTreeSet<&str> = result["FailedAndUnresolvableNodes"].as_object().unwrap().keys().map(String::as_str).collect();
        let sent: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let passed: BTreeSet<&str> = passed.iter().map(String::as_str).collect();
        prop_assert!(failed.is_disjoint(&passed));
        prop_assert_eq!(failed.union(&passed).copied().collect::<BTreeSet<_>>(), sent);
    }

    #[test]
    fn every_node_is_passed_to_the_byte_or_failed(
        nodes in prop::collection::vec(any_node(), 0..8),
        target in "[a-d]",
        items in any_key("items"),
        is_daemon in any::<bool>(),
    ) {
        let pod = if is_daemon { daemon_pod(&target) } else { json!({}) };
        let body = format!(r#"{{"Pod":{pod},"Nodes":{{"{items}":[{}],"metadata":{{}}}},"NodeNames":null}}"#, nodes.join(","));
        // The other fields of the list are echoed as sent, if no key occurs twice.
        let answer = text(&body);
        let passed = raw_items(&answer);
        let result: Value = serde_json::from_str(&answer.replace("1e999", "1")).unwrap();
        let failed = result["FailedAndUnresolvableNodes"].as_object().unwrap();
        let mut left = passed.iter();
        let mut next = left.next();
        for node in &nodes {
            if next == Some(node) {
                next = left.next();
            } else {
                let name = serde_json::from_str::<Value>(&node.replace("1e999", "1")).unwrap()["metadata"]["name"].clone();
                let refusal = failed[name.as_str().unwrap()].as_str().unwrap();
                prop_assert_eq!(refusal == NOT_TARGET, name != json!(target));
            }
        }
        prop_assert_eq!(next, None, "nothing is passed that was not sent, nor in another order");
        if !is_daemon {
            prop_assert_eq!(&passed, &nodes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = filter(&body);
    }

    #[test]
    fn broken_arguments_never_panic(cut in 0..400_usize, at in 0..400_usize, byte in any::<u8>()) {
        let pod = daemon_pod("b");
        let body = json!({"Pod": pod, "Nodes": {"items": [node("a"), node("b")]}, "NodeNames": ["a"]}).to_string();
        let mut body = body.into_bytes();
        if let Some(place) = body.get_mut(at) {
            *place = byte;
        }
        body.truncate(body.len().min(cut * 3));
        if let Ok(result) = filter(&body) {
            prop_assert!(serde_json::from_slice::<&RawValue>(&result.body.to_vec(&body)).is_ok());
        }
    }
}
