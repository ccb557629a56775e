//! The heavy bodies with a cluster behind: each is answered, and the cache is locked for a short time only.
//!
//! For the figures: `cargo test --release --test offline overload::locked -- --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use daemonset_warden::policy::Policy;
use daemonset_warden::reservation::View;
use daemonset_warden::server::http::limits::Limits;
use daemonset_warden::server::{AppState, router};
use daemonset_warden::telemetry::metrics::{Metrics, WatchedResource};
use daemonset_warden::watch::shared_cache::SharedCache;
use daemonset_warden::watch::watch_status::WatchStatus;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::heavy::{self, Heavy};
use super::{FULL_SIZE, sized};

/// The processor's time of the longest hold of the lock. A debug build takes ten times as long.
pub(super) const LOCK: Duration = Duration::from_millis(if FULL_SIZE { 5 } else { 100 });
/// The time for an answer.
const ANSWER: Duration = Duration::from_secs(if FULL_SIZE { 1 } else { 10 });

pub(super) fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(super) fn name(number: usize) -> String {
    format!("node-{number:05}")
}

/// Returns a server with a fresh cache of `nodes` nodes, on all of which room is reserved for a missing daemon pod.
pub(super) fn server(nodes: usize) -> (AppState, SharedCache) {
    server_with(nodes, Policy::default(), Limits::default())
}

/// Returns a server as [`server`] does, with this policy and these limits.
pub(super) fn server_with(nodes: usize, policy: Policy, limits: Limits) -> (AppState, SharedCache) {
    let mut view = View::new(Arc::new(Policy::default()), None);
    for number in 0..nodes {
        view.cache.apply_node(object(json!({
            "metadata": {"name": name(number), "uid": number.to_string(), "labels": {"kubernetes.io/hostname": name(number), "a": "c"}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "x.io/1": "5"}},
        })));
    }
    view.cache.apply_daemon_set("apps", object(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "default", "uid": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"priority": 1000, "containers": [
                {"name": "agent", "resources": {"requests": {"cpu": "100m"}}, "ports": [{"hostPort": 9100}]},
            ]}},
        },
    })));
    view.cache.apply_namespace(object(json!({"metadata": {"name": "default"}})));
    let watch = Arc::new(WatchStatus::new(WatchedResource::Nodes, true));
    watch.mark_listed();
    let metrics = Arc::new(Metrics::default());
    view.observe(Instant::now());
    let View { cache, reservation } = &mut view;
    reservation.refresh_all(cache, Instant::now());
    let shared = SharedCache::new(view, vec![watch], metrics.clone(), |_| {});
    shared.tick(Instant::now());
    let cluster = Some(shared.clone());
    (AppState::with_cluster(policy, limits, false, metrics, cluster, None, None), shared)
}

pub(super) async fn post(state: &AppState, (path, body): Heavy) -> (StatusCode, Vec<u8>) {
    let request = Request::post(path).body(Body::from(body)).unwrap();
    let response = router(state.clone()).oneshot(request).await.unwrap();
    (response.status(), response.into_body().collect().await.unwrap().to_bytes().into())
}

pub(super) fn series(state: &AppState, name: &str) -> f64 {
    let text = String::from_utf8(state.metrics.text()).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Returns the smallest bucket that has every hold of the lock.
pub(super) fn longest_hold(state: &AppState) -> Duration {
    let text = String::from_utf8(state.metrics.text()).unwrap();
    let count = series(state, "daemonset_warden_cache_lock_cpu_seconds_count");
    let mut buckets = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("daemonset_warden_cache_lock_cpu_seconds_bucket{le=\"")?;
        let (bound, value) = rest.split_once("\"} ")?;
        (value.parse::<f64>().unwrap() == count).then(|| bound.parse::<f64>().unwrap())
    });
    buckets.next().map_or(Duration::MAX, |bound| Duration::try_from_secs_f64(bound).unwrap_or(Duration::MAX))
}

async fn answers_all(bodies: Vec<Heavy>) -> AppState {
    let nodes = sized(5_000);
    let (state, _) = server(nodes);
    let ask = json!({"Pod": {"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": {"containers": [{"resources": {"requests": {"cpu": "3950m"}}}]}}, "NodeNames": [name(0)]});
    let (_, held) = post(&state, ("/scheduler/filter", ask.to_string())).await;
    assert!(String::from_utf8_lossy(&held).contains("node-00000\":\""), "room is reserved");
    let (mut slowest, mut largest) = (Duration::ZERO, 0);
    for (path, body) in bodies {
        let (asked, length) = (Instant::now(), body.len());
        let start = body[..body.len().min(300)].to_owned();
        let (status, answer) = post(&state, (path, body)).await;
        assert!(status.is_success() || status.is_client_error(), "{path} {status} {start}");
        slowest = slowest.max(asked.elapsed());
        largest = largest.max(answer.len());
        assert!(asked.elapsed() < ANSWER, "{path} {length} B: {:?} {start}", asked.elapsed());
        assert!(longest_hold(&state) <= LOCK, "{path} {length} B: {:?} {start}", longest_hold(&state));
    }
    let longest = longest_hold(&state);
    println!(
        "{nodes} nodes: answers within {slowest:.1?} and of {largest} B, the lock for {longest:.1?} at most"
    );
    assert_eq!(series(&state, "daemonset_warden_panics_total"), 0.0);
    state
}

#[tokio::test]
async fn lists_of_small_items() {
    let state = answers_all(heavy::lists(sized(8_000_000))).await;
    let denied =
        series(&state, r#"daemonset_warden_admission_oversized_total{outcome="denied",webhook="validate"}"#);
    let allowed =
        series(&state, r#"daemonset_warden_admission_oversized_total{outcome="allowed",webhook="mutate"}"#);
    assert!(!FULL_SIZE || denied > 0.0 && allowed > 0.0, "{denied} {allowed}");
}

#[tokio::test]
async fn thousands_of_faults() {
    answers_all(heavy::faults(sized(3_000_000))).await;
}

#[tokio::test]
async fn calls_that_name_one_node_often_or_have_a_pod_of_many_parts() {
    let state = answers_all(heavy::calls(sized(100_000), &name(0))).await;
    assert!(series(&state, r#"daemonset_warden_extender_unjudged_total{verb="filter"}"#) > 0.0);
    assert!(series(&state, r#"daemonset_warden_extender_unjudged_total{verb="preempt"}"#) > 0.0);
}

/// A review reads every node, a few for each hold of the lock.
#[tokio::test]
async fn reviews_of_daemon_sets() {
    let terms = r#"{"matchExpressions":[{"key":"a","operator":"In","values":["b","d"]},{"key":"b","operator":"Exists"}]}"#;
    let spec = |terms: String, cpu: &str| {
        format!(
            r#"{{"metadata":{{"name":"new"}},"spec":{{"selector":{{"matchLabels":{{"app":"new"}}}},"template":{{"metadata":{{"labels":{{"app":"new"}}}},"spec":{{"containers":[{{"name":"c","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]{terms}}}}}}}}}"#
        )
    };
    let affinity = |count: usize| {
        let terms = vec![terms; count].join(",");
        format!(
            r#","affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{terms}]}}}}}}"#
        )
    };
    let kind = r#"{"group":"apps","version":"v1","kind":"DaemonSet"}"#;
    let bodies = [
        spec(String::new(), "1"),
        spec(String::new(), "9"),
        spec(affinity(20), "1"),
        spec(affinity(20_000), "1"),
    ];
    let bodies = bodies.map(|object| ("/validate", crate::support::review("CREATE", kind, &object, "null")));
    let state = answers_all(bodies.to_vec()).await;
    let (_, answer) = post(&state, bodies[1].clone()).await;
    assert!(String::from_utf8_lossy(&answer).contains("will not fit on"), "live data is read");
}
