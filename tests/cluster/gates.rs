//! Readiness gates: ordinary pods stay off a node until a daemon pod is Ready there, once or each time, for a limited time.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::{
    NEVER, READY_AFTER, TestExtender, consistently, describe, eventually, eventually_within, is_bound,
    node_of,
};

/// The time until the daemon pods of these tests are Ready.
const SLOW: &str = "8s";

/// Starts a test whose namespace may use gates, with a node and a DaemonSet whose pods are Ready after `ready_after`.
async fn gated(name: &str, gate: &str, ready_after: &str, reservation: Value) -> (TestExtender, String) {
    let config = json!({
        "readinessGates": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } },
        "reservation": reservation,
    });
    let test = TestExtender::start(name, config).await;
    let changes = json!({
        "metadata": { "annotations": { "daemonset-warden.io/ready-before-pods": gate } },
        "spec": { "template": {
            "metadata": { "annotations": { READY_AFTER: ready_after } },
            "spec": { "schedulerName": name },
        } },
    });
    test.namespace.create(&test.namespace.daemon_set("agent", changes)).await;
    let node = test.namespace.node().await;
    (test, node)
}

async fn agent_is_ready(test: &TestExtender) -> bool {
    test.namespace.pods("agent").await.iter().filter(|pod| is_bound(pod)).any(|pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    })
}

/// Waits until a pod of the app is bound. Returns true if the agent was Ready by then.
async fn bound_while_ready(test: &TestExtender, app: &str) -> bool {
    eventually(&format!("{app} runs"), async || {
        let pods: Vec<Pod> = test.namespace.pods(app).await;
        if pods.iter().any(is_bound) { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    agent_is_ready(test).await
}

async fn agent_is_replaced(test: &TestExtender) {
    let before = test.namespace.pods("agent").await.remove(0);
    test.namespace.delete::<Pod>(&before.name_any()).await;
    eventually("another pod of the agent is bound", async || {
        let pods = test.namespace.pods("agent").await;
        let back = pods.iter().any(|pod| is_bound(pod) && pod.uid() != before.uid());
        if back { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    assert!(!agent_is_ready(test).await, "the test is too slow to show anything");
}

#[tokio::test]
async fn ordinary_pods_wait_until_the_agent_has_been_ready_once() {
    let (test, node) = gated("first-ready", "FirstReady", SLOW, json!({})).await;
    test.ordinary("early", 1, json!({})).await;
    assert!(bound_while_ready(&test, "early").await);

    let api: Api<Node> = Api::all(test.client());
    eventually("the Node remembers it", async || {
        let annotations = api.get(&node).await.map_err(|e| e.to_string())?.annotations().clone();
        let remembered = annotations.keys().any(|key| key.starts_with("first-ready.daemonset-warden.io/"));
        if remembered { Ok(()) } else { Err(format!("{annotations:?}")) }
    })
    .await;
    agent_is_replaced(&test).await;
    test.ordinary("later", 1, json!({})).await;
    assert!(!bound_while_ready(&test, "later").await, "once is enough");
}

#[tokio::test]
async fn ordinary_pods_wait_each_time_if_the_gate_is_always() {
    let (test, _) = gated("always-ready", "Always", SLOW, json!({})).await;
    test.ordinary("early", 1, json!({})).await;
    assert!(bound_while_ready(&test, "early").await);
    agent_is_replaced(&test).await;
    test.ordinary("later", 1, json!({})).await;
    assert!(bound_while_ready(&test, "later").await);
}

#[tokio::test]
async fn a_gate_whose_agent_is_never_ready_opens_after_hold_timeout() {
    let (test, node) = gated("never-ready", "Always", NEVER, json!({ "holdTimeout": "8s" })).await;
    test.ordinary("web", 2, json!({})).await;
    consistently(Duration::from_secs(4), "ordinary pods wait", async || {
        let pods = test.namespace.pods("web").await;
        if pods.iter().any(is_bound) { Err(describe(&pods)) } else { Ok(()) }
    })
    .await;
    let waiting = Instant::now();
    eventually_within(Duration::from_secs(25), "ordinary pods run", async || {
        let pods = test.namespace.pods("web").await;
        let on_it = pods.iter().filter(|pod| is_bound(pod) && node_of(pod) == Some(&node)).count();
        if on_it == 2 { Ok(()) } else { Err(format!("after {:?}: {}", waiting.elapsed(), describe(&pods))) }
    })
    .await;
    assert!(!agent_is_ready(&test).await);
}
