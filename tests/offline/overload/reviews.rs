//! Reviews of DaemonSets that take long to check against the cluster: what waits for them, and when they end.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use daemonset_warden::policy::{Level, Policy};
use daemonset_warden::server::http::limits::Limits;
use serde_json::{Value, json};

use super::locked::{LOCK, longest_hold, post, series, server, server_with};
use super::{FULL_SIZE, sized};

const KIND: &str = r#"{"group":"apps","version":"v1","kind":"DaemonSet"}"#;
const OVERSIZED: [&str; 2] = [
    r#"daemonset_warden_admission_oversized_total{outcome="denied",webhook="validate"}"#,
    r#"daemonset_warden_admission_oversized_total{outcome="allowed",webhook="validate"}"#,
];

/// Returns the review of a DaemonSet with this pod template, without a fault otherwise.
fn review(spec: &Value) -> String {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "new", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "new"}}, "template": {
            "metadata": {"labels": {"app": "new"}},
            "spec": {
                "priorityClassName": "system-node-critical",
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}],
            },
        }},
    });
    json_patch::merge(&mut object, &json!({"spec": {"template": {"spec": spec}}}));
    crate::support::review("CREATE", KIND, &object.to_string(), "null")
}

fn affinity(terms: &[Value]) -> Value {
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
}

fn exists(key: &str) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": "Exists"}]})
}

/// Terms that a node is compared with in full, because none matches it.
fn many_terms(count: usize) -> Value {
    affinity(&vec![exists("none"); count])
}

/// Returns the policy in which only one rule with live data applies.
fn only(level: Level) -> Policy {
    let mut policy = Policy::default();
    for id in ["does-not-fit", "missing-priority-class", "critical-class-quota"] {
        policy.admission.rules.insert(id.to_owned(), Level::Off);
    }
    policy.admission.rules.insert("no-matching-node".to_owned(), level);
    policy
}

#[tokio::test]
async fn long_texts_do_not_hold_the_lock() {
    let (state, _) = server(sized(5_000));
    let long = "x".repeat(3 << 20);
    for spec in [
        json!({"nodeSelector": {"a": long}}),
        json!({"priorityClassName": long}),
        affinity(&vec![exists(&"a".repeat(60_000)); 50]),
        affinity(&vec![exists("!"); 2_000]),
    ] {
        let (status, answer) = post(&state, ("/validate", review(&spec))).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &true.into()), "{answer}");
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(warning.contains("has not checked this DaemonSet against the cluster"), "{warning}");
        assert!(longest_hold(&state) <= LOCK, "{:?}", longest_hold(&state));
    }
    assert_eq!(OVERSIZED.map(|name| series(&state, name)), [0.0, 4.0]);
}

#[tokio::test]
async fn a_review_that_is_not_ended_in_time_is_denied_or_said_to_be_unchecked() {
    let limits = Limits { review_time: Duration::ZERO, ..Limits::default() };
    for (level, denied, text) in [
        (Level::Deny, 1.0, "to check it against the cluster took too long; make it smaller"),
        (Level::Warn, 0.0, "has not checked this DaemonSet against the cluster: to check it"),
    ] {
        let (state, _) = server_with(10, only(level), limits.clone());
        let (_, answer) = post(&state, ("/validate", review(&json!({})))).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains(text), "{answer}");
        assert_eq!(OVERSIZED.map(|name| series(&state, name)), [denied, 1.0 - denied]);
    }
}

/// The connections of a thread wait for what is done on it: here, the task that ticks.
#[tokio::test]
async fn a_short_review_of_many_steps_is_not_checked_on_the_thread_of_its_connection() {
    let (state, _) = server_with(2_000, only(Level::Warn), Limits::default());
    let body = review(&many_terms(700));
    assert!(body.len() < 64 * 1024, "{}", body.len());
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let ticks = tokio::spawn(async move {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        while stopped.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    });
    let asked = Instant::now();
    let (_, answer) = post(&state, ("/validate", body)).await;
    let took = asked.elapsed();
    let _ = stop.send(());
    let longest = ticks.await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("none of the cluster's 2000 nodes matches"));
    println!("{took:.1?}, of which the connection's thread was not free for {longest:.1?}");
    assert!(longest < took / 3, "{longest:?} of {took:?}");
}

#[tokio::test]
async fn of_many_reviews_at_once_each_is_answered_in_time() {
    let (count, review_time) = (sized(100), Duration::from_millis(200));
    let limits = Limits { review_time, ..Limits::default() };
    let (state, _) = server_with(2_000, only(Level::Deny), limits);
    let asked = Instant::now();
    let reviews = (0..count).map(|_| {
        let (state, body) = (state.clone(), review(&many_terms(700)));
        tokio::spawn(async move {
            let (_, answer) = post(&state, ("/validate", body)).await;
            (asked.elapsed(), String::from_utf8(answer).unwrap())
        })
    });
    let mut slowest = Duration::ZERO;
    for review in reviews.collect::<Vec<_>>() {
        let (took, answer) = review.await.unwrap();
        slowest = slowest.max(took);
        assert!(answer.contains("\"allowed\":false"), "{answer}");
    }
    let late = series(&state, OVERSIZED[0]);
    println!("{count} reviews within {slowest:.1?}, {late} of them unchecked");
    assert!(late > 0.0);
    assert!(!FULL_SIZE || slowest < Duration::from_secs(3), "{slowest:?}");
}
