//! The `place` and `run` cases of tests/data/conformance.jsonl, whose answers Kubernetes 1.36.3's own code gave.

use daemonset_warden::daemonset::admission;
use daemonset_warden::daemonset::daemon_set::DaemonSet;
use daemonset_warden::daemonset::mutation;
use daemonset_warden::daemonset::placement::node_should_run_daemon_pod;
use daemonset_warden::daemonset::policy::Policy;
use serde_json::{Value, json};

fn cases(op: &str) -> Vec<Value> {
    let text = include_str!("../data/conformance.jsonl");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cases: Vec<Value> = all.filter(|case| case["op"] == op).collect();
    assert!(cases.len() >= 300, "only {} cases of {op}", cases.len());
    cases
}

#[test]
fn placement_is_upstreams() {
    for case in cases("run") {
        let daemon_set: DaemonSet = serde_json::from_value(case["daemonSet"].clone()).unwrap();
        let node = serde_json::from_value(case["node"].clone()).unwrap();
        let placement = node_should_run_daemon_pod(&daemon_set.spec.template.spec, &node);
        let expected = (case["shouldRun"].as_bool().unwrap(), case["shouldContinue"].as_bool().unwrap());
        assert_eq!((placement.should_run, placement.should_continue_running), expected, "{case}");
        assert_eq!(placement.reason.is_none(), placement.should_run);
    }
}

#[test]
fn mutation_is_upstreams_and_idempotent() {
    for case in cases("place") {
        let mut pod = case["pod"].clone();
        pod["spec"]["nodeName"] = case["node"].clone();
        let patched = mutate(pod.clone());
        let spec = &patched["spec"];
        assert_eq!(spec["affinity"], case["affinity"], "{case}");
        assert_eq!(spec["tolerations"], case["tolerations"], "{case}");
        assert!(spec.get("nodeName").is_none(), "{case}");
        assert_eq!(mutate(patched.clone()), patched, "{case}");
    }
}

pub(crate) fn mutate(mut pod: Value) -> Value {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "object": pod},
    });
    let body = serde_json::to_vec(&review).unwrap();
    let request = admission::parse(&body).unwrap();
    let patch = mutation::review(&Policy::default(), &request, None, None).unwrap();
    json_patch::patch(&mut pod, &serde_json::from_str::<json_patch::Patch>(&patch.to_json()).unwrap())
        .unwrap();
    pod
}
