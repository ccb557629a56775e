//! `/bind` by the real router, without a cluster and with one that this process feeds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use daemonset_warden::policy::{Policy, ReservationMode};
use daemonset_warden::reservation::View;
use daemonset_warden::reservation::judge::{Judge, JudgeTimes};
use daemonset_warden::server::http::limits::Limits;
use daemonset_warden::server::{AppState, router};
use daemonset_warden::telemetry::metrics::{Metrics, WatchedResource};
use daemonset_warden::watch::shared_cache::SharedCache;
use daemonset_warden::watch::watch_status::WatchStatus;
use daemonset_warden::writes::lease::SharedJudge;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

/// A server with a node on which a missing daemon pod of 300m leaves 700m, and a pod of 800m that waits.
fn reserving() -> AppState {
    reserving_with(Policy::default(), Limits::default(), None)
}

fn reserving_with(policy: Policy, limits: Limits, judge: Option<SharedJudge>) -> AppState {
    let watch = Arc::new(WatchStatus::new(WatchedResource::Nodes, true));
    let view = View::new(Arc::new(policy.clone()), None);
    let metrics: Arc<Metrics> = Arc::default();
    let cluster = SharedCache::new(view, vec![watch.clone()], metrics.clone(), |_| {});
    let object = |value: Value| serde_json::from_value(value).unwrap();
    {
        let mut view = cluster.lock();
        view.cache.apply_namespace(serde_json::from_value(json!({"metadata": {"name": "ns"}})).unwrap());
        let allocatable = json!({"cpu": "1", "memory": "4Gi", "pods": "10"});
        let node = json!({"metadata": {"name": "n1", "uid": "n1"}, "status": {"allocatable": allocatable}});
        view.cache.apply_node(serde_json::from_value(node).unwrap());
        let container = |cpu: &str| json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
        let template =
            json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": container("300m")}});
        view.cache.apply_daemon_set(
            "apps",
            object(json!({
                "apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": {"name": "d", "namespace": "ns", "uid": "d"},
                "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template},
            })),
        );
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "p"},
            "spec": {"containers": container("800m")}, "status": {"phase": "Pending"},
        });
        view.cache.apply_pod(&serde_json::from_value(pod).unwrap());
    }
    watch.mark_listed();
    cluster.tick(Instant::now());
    AppState::with_cluster(policy, limits, false, metrics, Some(cluster), judge, None)
}

fn binding(change: Value) -> Value {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "review-1", "kind": {"group": "", "version": "v1", "kind": "Binding"},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "subResource": "binding",
            "name": "p", "namespace": "ns", "operation": "CREATE", "dryRun": false,
            "object": {
                "apiVersion": "v1", "kind": "Binding",
                "metadata": {"name": "p", "namespace": "ns", "uid": "p"},
                "target": {"kind": "Node", "name": "n1"},
            },
        },
    });
    json_patch::merge(&mut review, &change);
    review
}

async fn post(state: &AppState, body: impl Into<Body>) -> (StatusCode, HeaderMap, Value) {
    let request = Request::post("/bind").body(body.into()).unwrap();
    let response = router(state.clone()).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, serde_json::from_slice(&body).unwrap())
}

async fn ask(state: &AppState, review: &Value) -> Value {
    let (status, headers, mut answer) = post(state, review.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(!headers.contains_key(header::CONNECTION), "the apiserver keeps its connection");
    assert_eq!(answer["response"]["uid"], "review-1");
    answer["response"].take()
}

fn metric(state: &AppState, series: &str) -> f64 {
    let text = String::from_utf8(state.metrics.text()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series}"));
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn a_refusal_is_a_403_in_a_review_that_says_for_whom() {
    let state = reserving();
    let response = ask(&state, &binding(json!({}))).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(
        (&response["status"]["code"], &response["status"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );
    assert_eq!(
        response["status"]["message"],
        r#"node "n1" reserves room for daemon pods that have not landed yet: ns/d (300m cpu); this pod asks 800m cpu, and 700m is left beside them"#
    );
    assert!(response["status"]["details"]["retryAfterSeconds"].is_null());
    assert_eq!(metric(&state, r#"daemonset_warden_bind_requests_total{outcome="refused"}"#), 1.0);
    // The legacy resource, without a UID.
    let legacy = binding(json!({"request": {
        "resource": {"resource": "bindings"}, "subResource": null, "name": null, "object": {"metadata": {"uid": null}},
    }}));
    assert_eq!(ask(&state, &legacy).await["allowed"], false);
    assert_eq!(ask(&state, &binding(json!({"request": {"dryRun": true}}))).await["allowed"], false);
}

#[tokio::test]
async fn a_binding_that_the_apiserver_refuses_itself_is_allowed_and_changes_nothing() {
    let state = reserving();
    let of_object = |change: Value| binding(json!({"request": {"object": change}}));
    for review in [
        of_object(json!({"target": null})),
        of_object(json!({"target": {"name": ""}})),
        of_object(json!({"target": {"kind": "Pod"}})),
        of_object(json!({"target": [1]})),
        of_object(json!({"metadata": {"namespace": "other"}})),
        binding(json!({"request": {"object": null}})),
        binding(json!({"request": {"operation": "UPDATE"}})),
        binding(json!({"request": {"kind": {"kind": "Pod"}}})),
        binding(json!({"request": {"subResource": "eviction"}})),
        binding(json!({"request": {"namespace": ""}})),
    ] {
        let response = ask(&state, &review).await;
        assert_eq!((&response["allowed"], &response["status"]), (&json!(true), &Value::Null), "{review}");
    }
    assert_eq!(metric(&state, r#"daemonset_warden_bind_unjudged_total{reason="not_a_binding"}"#), 10.0);
    assert_eq!(state.cluster.as_ref().unwrap().lock().reservation.assumed_len(), 0);
}

#[tokio::test]
async fn without_a_cluster_every_binding_is_allowed() {
    let state = AppState::new(Policy::default(), Limits::default(), false);
    assert_eq!(ask(&state, &binding(json!({}))).await["allowed"], true);
    assert_eq!(metric(&state, r#"daemonset_warden_bind_unjudged_total{reason="standalone"}"#), 1.0);
}

#[tokio::test]
async fn what_is_no_review_is_refused_and_a_large_one_is_allowed() {
    let state = reserving();
    for body in
        ["", "{}", "[]", r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#]
    {
        let (status, _, answer) = post(&state, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
    }
    assert_eq!(metric(&state, r#"daemonset_warden_bind_requests_total{outcome="bad"}"#), 4.0);
    let annotations = json!({"a": "x".repeat(70_000)});
    let large = binding(json!({"request": {"object": {"metadata": {"annotations": annotations}}}}));
    let (status, headers, answer) = post(&state, in_gos_order(&large)).await;
    assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(true)), "{answer}");
    assert_eq!(headers[header::CONNECTION], "close", "its rest is not read");
    assert_eq!(metric(&state, r#"daemonset_warden_bind_unjudged_total{reason="too_large"}"#), 1.0);
}

/// Writes a review as the apiserver does: what identifies the request comes before the object.
fn in_gos_order(review: &Value) -> String {
    let request = &review["request"];
    let fields =
        ["uid", "kind", "resource", "subResource", "name", "namespace", "operation", "object", "dryRun"];
    let fields: Vec<_> = fields.iter().map(|field| format!("{}:{}", json!(field), request[field])).collect();
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{{}}}}}"#,
        fields.join(",")
    )
}

/// A replica that has just been started, and knows of no judge: it denies for one lease duration.
#[tokio::test]
async fn a_replica_that_does_not_judge_denies_for_a_while_and_ends_the_connection() {
    let standby = |lease_duration| {
        let times = JudgeTimes {
            lease_duration,
            renew_deadline: Duration::from_millis(30),
            retry_period: Duration::from_millis(10),
        };
        SharedJudge::new(Judge::new("a_1".to_owned(), Some("a".to_owned()), times, Instant::now()))
    };
    let of = |mode, judge| {
        let mut policy = Policy::default();
        policy.reservation.mode = mode;
        reserving_with(policy, Limits::default(), Some(judge))
    };
    let state = of(ReservationMode::Enforce, standby(Duration::from_secs(3_600)));
    let (status, headers, answer) = post(&state, binding(json!({})).to_string()).await;
    assert_eq!((status, &headers[header::CONNECTION]), (StatusCode::OK, &"close".parse().unwrap()));
    let response = &answer["response"];
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(503)));
    assert_eq!(metric(&state, r#"daemonset_warden_bind_requests_total{outcome="denied"}"#), 1.0);

    let unjudged = |reason: &str| format!("daemonset_warden_bind_unjudged_total{{reason=\"{reason}\"}}");
    for mode in [ReservationMode::Audit, ReservationMode::Off] {
        let state = of(mode, standby(Duration::from_secs(3_600)));
        let (_, _, answer) = post(&state, binding(json!({})).to_string()).await;
        assert_eq!(answer["response"]["allowed"], true, "{mode:?} denies nothing");
        assert_eq!(metric(&state, &unjudged("standby")), 1.0);
    }
    // A process that stands still for longer than the renew deadline waits anew, so this is tried until it did not.
    let begun = Instant::now();
    let state = of(ReservationMode::Enforce, standby(Duration::from_millis(40)));
    loop {
        let (_, _, answer) = post(&state, binding(json!({})).to_string()).await;
        if answer["response"]["allowed"] == true {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody judges, and it is denied still");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(40));
    assert_eq!(metric(&state, &unjudged("no_judge")), 1.0);
}

/// Each kind of route has places of its own.
#[tokio::test]
async fn webhooks_that_take_all_places_do_not_turn_judging_off() {
    let limits = Limits { requests: 2, ..Limits::default() };
    let state = reserving_with(Policy::default(), limits, None);
    let mut stalled = Vec::new();
    for _ in 0..6 {
        let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let request = Request::post("/validate").body(body).unwrap();
        stalled.push(tokio::spawn(router(state.clone()).oneshot(request)));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(stalled.iter().filter(|call| call.is_finished()).count() >= 4, "all places are taken");
    assert_eq!(ask(&state, &binding(json!({}))).await["status"]["code"], 403);
    stalled.iter().for_each(tokio::task::JoinHandle::abort);
}
