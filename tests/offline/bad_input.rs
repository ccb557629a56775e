//! Requests that no apiserver and no scheduler sends: the response is a 4xx with the reason. A review of another object is
//! allowed without a patch.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use daemonset_warden::policy::Policy;
use daemonset_warden::server::http::limits::Limits;
use daemonset_warden::server::{AppState, router};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::support::review;

const POD: &str = r#"{"group":"","version":"v1","kind":"Pod"}"#;
const DAEMON_SET: &str = r#"{"group":"apps","version":"v1","kind":"DaemonSet"}"#;

async fn post(path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let state = AppState::new(Policy::default(), Limits::default(), false);
    let request = Request::post(path).body(body.into()).unwrap();
    let response = router(state.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let metrics = String::from_utf8(state.metrics.text()).unwrap();
    assert!(metrics.contains("daemonset_warden_panics_total 0"), "{path} panicked");
    (status, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
}

async fn refuses(path: &str, body: impl Into<Body>, status: StatusCode, error: &str) {
    let (found, answer) = post(path, body).await;
    let text = answer["error"].as_str().unwrap_or_else(|| panic!("{path}: {answer}"));
    assert_eq!(found, status, "{path}: {text}");
    assert!(text.contains(error), "{path}: {text}");
}

async fn allows_untouched(path: &str, body: String) {
    let (status, answer) = post(path, body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}: {answer}");
    let response = answer["response"].as_object().unwrap();
    assert_eq!(response["allowed"], true, "{path}: {body}: {answer}");
    assert!(!response.contains_key("patch") && !response.contains_key("patchType"), "{answer}");
    assert!(!response.contains_key("status"), "{answer}");
}

#[tokio::test]
async fn what_is_no_review_is_refused() {
    let head = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview""#;
    let deep = format!("{head},\"request\":{}", "[".repeat(200_000));
    let deep_object = review(
        "CREATE",
        POD,
        &format!("{{\"spec\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000)),
        "null",
    );
    let bad = StatusCode::BAD_REQUEST;
    for path in ["/mutate", "/validate"] {
        refuses(path, "", bad, "no AdmissionReview").await;
        refuses(path, "not JSON", bad, "no AdmissionReview").await;
        refuses(path, "{}", bad, "expected admission.k8s.io/v1, Kind=AdmissionReview").await;
        refuses(path, "[]", bad, "").await;
        refuses(path, "null", bad, "").await;
        refuses(path, &b"\xff\xfe"[..], bad, "no AdmissionReview").await;
        refuses(path, r#"{"apiVersion":"v1","kind":"Pod"}"#, bad, "got v1, Kind=Pod").await;
        refuses(path, format!("{head}}}").replace("/v1", "/v1beta1"), bad, "v1beta1").await;
        refuses(path, format!("{head}}}"), bad, "has no request").await;
        refuses(path, format!("{head},\"request\":{{}}}}"), bad, "has no uid").await;
        refuses(path, format!("{head},\"request\":{{\"uid\":7}}}}"), bad, "no AdmissionReview").await;
        refuses(path, deep.clone(), bad, "no AdmissionReview").await;
        refuses(path, vec![b' '; 9 << 20], StatusCode::PAYLOAD_TOO_LARGE, "larger than 8388608 bytes").await;
        let (status, _) = post(path, deep_object.clone()).await;
        assert!(status == bad || status == StatusCode::OK, "{path}: {status}");
    }
}

#[tokio::test]
async fn what_is_no_object_is_refused() {
    let bad = StatusCode::BAD_REQUEST;
    refuses("/mutate", review("CREATE", POD, "null", "null"), bad, "CREATE and no object").await;
    refuses("/validate", review("CREATE", DAEMON_SET, "null", "null"), bad, "CREATE and no object").await;
    refuses("/validate", review("UPDATE", DAEMON_SET, "{}", "null"), bad, "no oldObject").await;
    for object in ["[]", r#"{"spec":[]}"#, "7", r#""text""#, r#"{"metadata":{"labels":[1]}}"#] {
        refuses("/mutate", review("CREATE", POD, object, "null"), bad, "object").await;
        refuses("/validate", review("CREATE", DAEMON_SET, object, "null"), bad, "object").await;
    }
    for references in [r#""x""#, "[7]", r#"[{"controller":"yes"}]"#, r#"[{"name":{}}]"#] {
        let object =
            format!(r#"{{"metadata":{{"ownerReferences":{references}}},"spec":{{"nodeName":"n"}}}}"#);
        // Refused as no pod, or allowed as a pod without a DaemonSet; never patched.
        let (status, answer) = post("/mutate", review("CREATE", POD, &object, "null")).await;
        assert!(status == bad || answer["response"]["allowed"] == true, "{object}: {answer}");
        assert!(answer["response"]["patch"].is_null(), "{object}: {answer}");
    }
}

#[tokio::test]
async fn what_is_not_ours_is_allowed_untouched() {
    let config_map = r#"{"group":"","version":"v1","kind":"ConfigMap"}"#;
    for path in ["/mutate", "/validate"] {
        allows_untouched(path, review("CREATE", config_map, r#"{"data":[1,2]}"#, "null")).await;
        allows_untouched(path, review("CONNECT", POD, r#"{"kind":"PodExecOptions"}"#, "null")).await;
        allows_untouched(path, review("DELETE", POD, "null", "{}")).await;
        allows_untouched(path, review("DELETE", DAEMON_SET, "null", "{}")).await;
        let status = review("UPDATE", DAEMON_SET, "{}", "{}")
            .replace(r#""namespace""#, r#""subResource":"status","namespace""#);
        allows_untouched(path, status).await;
        let binding = review("CREATE", POD, r#"{"target":{}}"#, "null")
            .replace(r#""namespace""#, r#""subResource":"binding","namespace""#);
        allows_untouched(path, binding).await;
    }
    allows_untouched("/mutate", review("UPDATE", POD, r#"{"spec":{"nodeName":"n"}}"#, "{}")).await;
    allows_untouched("/mutate", review("CREATE", DAEMON_SET, "{}", "null")).await;
    allows_untouched("/validate", review("CREATE", POD, "{}", "null")).await;
}

#[tokio::test]
async fn a_denial_has_a_cause_a_fault() {
    let object = r#"{"metadata":{"name":"agent","namespace":"default"},"spec":{"selector":{"matchLabels":{"app":"agent"}},"template":{"metadata":{"labels":{"app":"other"}},"spec":{"restartPolicy":"OnFailure","containers":[{"name":"agent","image":"agent:1"}]}}}}"#;
    let (status, answer) = post("/validate", review("CREATE", DAEMON_SET, object, "null")).await;
    assert_eq!(status, StatusCode::OK);
    let response = &answer["response"];
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 422);
    assert_eq!(response["status"]["reason"], "Invalid");
    assert_eq!(response["status"]["details"]["kind"], "DaemonSet");
    let fields: Vec<_> = response["status"]["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| &cause["field"])
        .collect();
    assert_eq!(fields, ["spec.template.metadata.labels", "spec.template.spec.restartPolicy"]);
}

#[tokio::test]
async fn what_is_no_extender_call_is_refused() {
    let bad = StatusCode::BAD_REQUEST;
    let path = "/scheduler/filter";
    for body in [
        "",
        "x",
        "[]",
        "null",
        "{}",
        r#"{"Pod":null}"#,
        r#"{"Pod":{},"NodeNames":7}"#,
        r#"{"Pod":7,"NodeNames":[]}"#,
    ] {
        refuses(path, body, bad, "").await;
    }
    refuses(path, r#"{"Pod":{"metadata":{},"spec":{}}}"#, bad, "neither NodeNames nor Nodes").await;
    refuses(path, &b"{\"Pod\":{\"metadata\":{\"name\":\"\xff\"}},\"NodeNames\":[]}"[..], bad, "UTF-8").await;
    refuses(path, format!(r#"{{"Pod":{}"#, "[".repeat(200_000)), bad, "").await;
    refuses(path, vec![b' '; (64 << 20) + 1], StatusCode::PAYLOAD_TOO_LARGE, "larger than 67108864").await;
    let (status, _) = post(path, r#"{"pod":{},"nodenames":["a"]}"#).await;
    assert_eq!(status, StatusCode::OK);
}
