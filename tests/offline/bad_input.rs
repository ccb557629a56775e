//! Requests that no apiserver and no scheduler sends: the response is a 4xx with the reason. A review of another object is
//! allowed without a patch.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use daemonset_warden::policy::{Level, Oversized, Policy};
use daemonset_warden::server::http::limits::Limits;
use daemonset_warden::server::{AppState, router};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::support::review;

const POD: &str = r#"{"group":"","version":"v1","kind":"Pod"}"#;
const DAEMON_SET: &str = r#"{"group":"apps","version":"v1","kind":"DaemonSet"}"#;

async fn post(path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    post_with(Policy::default(), path, body).await
}

async fn post_with(policy: Policy, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let state = AppState::new(policy, Limits::default(), false);
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

/// Returns a DaemonSet that breaks no rule of level Deny, with more text in its metadata and in its pods' spec.
fn daemon_set(metadata: &str, pod_spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{{"name":"agent","namespace":"default"{metadata}}},"spec":{{"selector":{{"matchLabels":{{"app":"agent"}}}},"template":{{"metadata":{{"labels":{{"app":"agent"}}}},"spec":{{"priorityClassName":"p"{pod_spec}}}}}}}}}"#
    )
}

/// Returns objects that are too large: one in bytes, the other in what it becomes.
fn oversized_objects() -> [String; 2] {
    let container =
        r#""containers":[{"name":"agent","image":"agent:1","resources":{"requests":{"cpu":"1m"}}"#;
    [
        daemon_set("", &format!(r#",{container},"args":["{}"]}}]"#, "\\u003c".repeat(1_500_000))),
        daemon_set(
            "",
            &format!(r#",{container}}}],"tolerations":[{}{{"key":"a"}}]"#, r#"{"key":"a"},"#.repeat(300_000)),
        ),
    ]
}

#[tokio::test]
async fn a_daemon_set_that_is_too_large_is_denied_or_allowed_unchecked_by_choice() {
    let mut allows = Policy::default();
    allows.admission.oversized = Oversized::Allow;
    let mut denies_nothing = Policy::default();
    for id in ["managed-label-selector", "name-too-long", "node-name-in-template", "host-port-surge"] {
        denies_nothing.admission.rules.insert(id.to_owned(), Level::Warn);
    }
    for object in oversized_objects() {
        let body = review("CREATE", DAEMON_SET, &object, "null");
        let (status, answer) = post("/validate", body.clone()).await;
        let response = &answer["response"];
        assert_eq!(
            (status, &response["allowed"], &response["status"]["code"]),
            (StatusCode::OK, &false.into(), &403.into())
        );
        assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        let message = response["status"]["message"].as_str().unwrap();
        assert_eq!(
            message,
            r#"DaemonSet.apps "agent" is forbidden by policy: it is too large to be checked; make it smaller, or set admission.oversized to Allow in the configuration of daemonset-warden"#
        );
        for policy in [&allows, &denies_nothing] {
            let (_, answer) = post_with(policy.clone(), "/validate", body.clone()).await;
            let response = &answer["response"];
            assert_eq!(response["allowed"], true);
            assert_eq!(
                response["warnings"][0],
                "daemonset-warden has not checked this DaemonSet: it is too large to be checked"
            );
        }
        let other = body.replace(r#""group":"apps""#, r#""group":"apps.kruise.io""#);
        allows_untouched("/validate", other).await;
        allows_untouched("/validate", body.replace("CREATE", "DELETE")).await;
    }
}

#[tokio::test]
async fn a_large_daemon_set_that_is_deleted_opted_out_or_unchanged_is_allowed() {
    let [_, object] = oversized_objects();
    let deleting = |object: &str| {
        object.replacen(
            r#""name":"agent""#,
            r#""name":"agent","deletionTimestamp":"2026-01-01T00:00:00Z""#,
            1,
        )
    };
    let opted_out = object.replacen(
        r#""name":"agent""#,
        r#""name":"agent","labels":{"daemonset-warden.io/ignore":"true"}"#,
        1,
    );
    let annotated = object.replacen(r#""name":"agent""#, r#""name":"agent","annotations":{"a":"b"}"#, 1);
    allows_untouched("/validate", review("UPDATE", DAEMON_SET, &deleting(&object), &object)).await;
    allows_untouched("/validate", review("CREATE", DAEMON_SET, &opted_out, "null")).await;
    allows_untouched("/validate", review("UPDATE", DAEMON_SET, &annotated, &object)).await;
    let small = daemon_set("", "");
    let (_, answer) = post("/validate", review("UPDATE", DAEMON_SET, &object, &small)).await;
    assert_eq!(answer["response"]["allowed"], false);
}

#[tokio::test]
async fn a_pod_is_never_refused_for_its_size() {
    let owner = r#"{"apiVersion":"apps/v1","kind":"DaemonSet","name":"a","uid":"1","controller":true}"#;
    let pod = |spec: &str| {
        format!(
            r#"{{"metadata":{{"name":"p","ownerReferences":[{owner}]}},"spec":{{"nodeName":"n",{spec}}}}}"#
        )
    };
    for object in [
        pod(&format!(r#""tolerations":[{}{{}}]"#, "{},".repeat(300_000))),
        pod(&format!(r#""hostname":"{}""#, "a".repeat(9 << 20))),
    ] {
        allows_untouched("/mutate", review("CREATE", POD, &object, "null")).await;
    }
}

/// Others hold the memory: the apiserver may ask again.
#[tokio::test]
async fn a_pod_for_which_there_is_no_memory_does_not_count_as_too_large() {
    let owner = r#"{"apiVersion":"apps/v1","kind":"DaemonSet","name":"a","uid":"1","controller":true}"#;
    let pod = format!(
        r#"{{"metadata":{{"name":"p","ownerReferences":[{owner}]}},"spec":{{"nodeName":"n","tolerations":[{}{{}}]}}}}"#,
        "{},".repeat(25_000)
    );
    let limits = Limits { admission_memory: 100 * 1024, ..Limits::default() };
    let state = AppState::new(Policy::default(), limits, false);
    let body = review("CREATE", POD, &pod, "null");
    let request = Request::post("/mutate").body(Body::from(body)).unwrap();
    let response = router(state.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let metrics = String::from_utf8(state.metrics.text()).unwrap();
    assert!(
        metrics
            .contains(r#"daemonset_warden_admission_oversized_total{outcome="allowed",webhook="mutate"} 0"#)
    );
}

#[tokio::test]
async fn objects_near_the_apiservers_limit_are_checked() {
    let last_applied = "{\\\"a\\\":[1,2,{}],".repeat(10_000);
    let fields: String = (0..40_000).map(|number| format!(r#""f:field{number}":{{}},"#)).collect();
    let managed =
        format!(r#"{{"manager":"kubectl","operation":"Update","fieldsV1":{{{fields}"f:x":{{}}}}}}"#);
    let metadata = format!(
        r#","annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"{last_applied}"}},"managedFields":[{managed}]"#
    );
    let environment = vec![r#"{"name":"NAME","value":"value"}"#; 20].join(",");
    let containers: Vec<String> = (0..2_500)
        .map(|number| format!(r#"{{"name":"c{number}","image":"registry.example/agent:1","env":[{environment}],"resources":{{"requests":{{"cpu":"1m","memory":"1Mi"}},"limits":{{"memory":"1Mi"}}}},"ports":[{{"name":"metrics","containerPort":9100}}]}}"#))
        .collect();
    let object = daemon_set(&metadata, &format!(r#","containers":[{}]"#, containers.join(",")));
    assert!(object.len() > 2_900_000, "{}", object.len());
    let (_, answer) = post("/validate", review("CREATE", DAEMON_SET, &object, "null")).await;
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    assert!(answer["response"]["warnings"].is_null(), "{answer}");
    let changed = object.replacen("agent:1", "agent:2", 1).replacen(
        r#""priorityClassName":"p""#,
        r#""nodeName":"n""#,
        1,
    );
    let (_, answer) = post("/validate", review("UPDATE", DAEMON_SET, &changed, &object)).await;
    let warning = answer["response"]["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("node-name-in-template"), "{answer}");
}

#[tokio::test]
async fn the_texts_of_faults_are_bounded() {
    let references = format!(
        "[{}]",
        vec![r#"{"apiVersion":"v1","kind":"A","name":"a","uid":"1","controller":true}"#; 2_000].join(",")
    );
    let body =
        review("CREATE", DAEMON_SET, &daemon_set(&format!(r#","ownerReferences":{references}"#), ""), "null");
    let (_, answer) = post("/validate", body.clone()).await;
    let status = &answer["response"]["status"];
    assert!(
        body.len() < 150_000 && answer.to_string().len() < 400_000,
        "{} {}",
        body.len(),
        answer.to_string().len()
    );
    assert!(status["message"].as_str().unwrap().ends_with(", and more"));
    let labels: String = (0..50_000).map(|number| format!(r#""!{number}":"!","#)).collect();
    let body =
        review("CREATE", DAEMON_SET, &daemon_set(&format!(r#","labels":{{{labels}"a":"b"}}"#), ""), "null");
    let (_, answer) = post("/validate", body).await;
    assert!(answer.to_string().len() < 400_000, "{}", answer.to_string().len());
    // Every toleration is a fault of `tolerates-everything`.
    let tolerations = vec![r#"{"operator":"Exists"}"#; 5_000].join(",");
    let body =
        review("CREATE", DAEMON_SET, &daemon_set("", &format!(r#","tolerations":[{tolerations}]"#)), "null");
    let (_, answer) = post("/validate", body).await;
    assert!(answer["response"]["warnings"].as_array().unwrap().len() <= 50, "{answer}");
    // An error repeats what was sent, but not all of it.
    for (path, body) in [
        (
            "/validate",
            review("CREATE", DAEMON_SET, &format!(r#"{{"spec":"{}"}}"#, "\x7f".repeat(3_000_000)), "null"),
        ),
        (
            "/mutate",
            review(
                "CREATE",
                POD,
                &format!(r#"{{"spec":{{"hostNetwork":"{}"}}}}"#, "\x7f".repeat(100_000)),
                "null",
            ),
        ),
        ("/mutate", format!(r#"{{"apiVersion":"{}","request":{{}}}}"#, "v".repeat(1_000_000))),
        ("/scheduler/filter", format!(r#"{{"Pod":{{"spec":"{}"}},"NodeNames":[]}}"#, "\x7f".repeat(100_000))),
    ] {
        let (status, answer) = post(path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert!(answer["error"].as_str().unwrap().len() < 1_100, "{path}");
    }
}

#[tokio::test]
async fn calls_of_the_scheduler_that_become_too_much_memory_are_refused() {
    let terms = format!(r#"{{"nodeSelectorTerms":[{}{{}}]}}"#, "{},".repeat(1_000_000));
    let pod = format!(
        r#"{{"spec":{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{terms}}}}}}}}}"#
    );
    let too_large = StatusCode::PAYLOAD_TOO_LARGE;
    refuses(
        "/scheduler/filter",
        format!(r#"{{"Pod":{pod},"NodeNames":["n"]}}"#),
        too_large,
        "too many elements",
    )
    .await;
    refuses(
        "/scheduler/preempt",
        format!(r#"{{"Pod":{pod},"NodeNameToMetaVictims":{{}}}}"#),
        too_large,
        "too many elements",
    )
    .await;
    // The worst that etcd stores is read.
    let tolerations = format!("[{}{{}}]", "{},".repeat(150_000));
    let pod = format!(r#"{{"spec":{{"tolerations":{tolerations}}}}}"#);
    let (status, answer) = post("/scheduler/filter", format!(r#"{{"Pod":{pod},"NodeNames":["n"]}}"#)).await;
    assert_eq!((status, &answer["NodeNames"][0]), (StatusCode::OK, &"n".into()));
}
