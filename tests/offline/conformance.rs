//! The cases of tests/data/conformance.jsonl, whose answers come from Kubernetes 1.36.3's own code. The tests send the admission
//! cases to the HTTP routes, and call the pure function for placement.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use daemonset_warden::api::daemonset::DaemonSet;
use daemonset_warden::daemonset::placement::node_should_run_daemon_pod;
use daemonset_warden::policy::Policy;
use daemonset_warden::server::http::limits::Limits;
use daemonset_warden::server::{AppState, router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

#[tokio::test]
async fn creation_is_judged_as_upstream_judges_it() {
    let server = server();
    for case in cases("create") {
        // With the defaults that the apiserver sets, and as a user wrote it.
        for object in [&case["object"], &case["raw"]] {
            let answer = ask(&server, "/validate", "CREATE", object, &Value::Null).await;
            assert_judged_as_expected(&case, &answer);
        }
    }
}

#[tokio::test]
async fn updates_are_judged_as_upstream_judges_them() {
    let server = server();
    for case in cases("update") {
        let answer = ask(&server, "/validate", "UPDATE", &case["object"], &case["old"]).await;
        assert_judged_as_expected(&case, &answer);
        let unchanged = ask(&server, "/validate", "UPDATE", &case["object"], &case["object"]).await;
        assert_eq!(unchanged["allowed"], true, "{case}");
    }
}

#[tokio::test]
async fn mutation_is_upstreams_and_idempotent() {
    let server = server();
    for case in cases("place") {
        let mut pod = case["pod"].clone();
        pod["spec"]["nodeName"] = case["node"].clone();
        let patched = mutate(&server, pod).await;
        let spec = &patched["spec"];
        assert_eq!(spec["affinity"], case["affinity"], "{case}");
        assert_eq!(spec["tolerations"], case["tolerations"], "{case}");
        assert!(spec.get("nodeName").is_none(), "{case}");
        assert_eq!(mutate(&server, patched.clone()).await, patched, "{case}");
    }
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

fn assert_judged_as_expected(case: &Value, response: &Value) {
    let status = &response["status"];
    let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    let causes: Vec<Value> =
        causes.iter().map(|cause| json!({"field": cause["field"], "type": cause["reason"]})).collect();
    assert_eq!(Value::Array(causes), case["causes"], "{case}");
    assert_eq!(response["allowed"], case["allowed"], "{case}");
    if response["allowed"] == false {
        assert_eq!((&status["code"], &status["reason"]), (&json!(422), &json!("Invalid")), "{case}");
    }
}

/// Returns the pod with the patch applied.
async fn mutate(server: &Router, mut pod: Value) -> Value {
    let response = ask(server, "/mutate", "CREATE", &pod, &Value::Null).await;
    assert_eq!(response.get("patch").is_some(), response.get("patchType").is_some(), "{response}");
    if let Some(patch) = response["patch"].as_str() {
        let patch: json_patch::Patch =
            serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
    }
    pod
}

/// Returns the response of a webhook to an operation on a Pod or a DaemonSet.
async fn ask(server: &Router, path: &str, operation: &str, object: &Value, old: &Value) -> Value {
    let kind = match path {
        "/mutate" => json!({"group": "", "version": "v1", "kind": "Pod"}),
        _ => json!({"group": "apps", "version": "v1", "kind": "DaemonSet"}),
    };
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "1", "kind": kind, "operation": operation, "object": object, "oldObject": old},
    });
    let request = Request::post(path).body(Body::from(review.to_string())).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{review}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let mut answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["response"]["uid"], "1");
    answer["response"].take()
}

fn server() -> Router {
    router(AppState::new(Policy::default(), Limits::default(), false))
}

fn cases(op: &str) -> Vec<Value> {
    let text = include_str!("../data/conformance.jsonl");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cases: Vec<Value> = all.filter(|case| case["op"] == op).collect();
    assert!(cases.len() >= 300, "only {} cases of {op}", cases.len());
    cases
}
