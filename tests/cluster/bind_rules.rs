//! The rules of the reservation at `/bind`, with a plain scheduler: priorities both ways, gates, Audit mode.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::{
    Doors, NEVER, READY_AFTER, TestExtender, consistently, describe, eventually, eventually_within, is_bound,
    node_of,
};

/// The scheduler's longest back-off after a refusal, and some more.
const BACK_OFF: Duration = Duration::from_secs(25);
/// A time in which a pod that may be bound is bound.
const A_WHILE: Duration = Duration::from_secs(5);

async fn bound(test: &TestExtender, app: &str) -> usize {
    test.namespace.pods(app).await.iter().filter(|pod| is_bound(pod)).count()
}

async fn runs(test: &TestExtender, app: &str, count: usize) {
    eventually_within(BACK_OFF, &format!("{count} pods of {app} are bound"), async || {
        match bound(test, app).await {
            there if there == count => Ok(()),
            _ => Err(describe(&test.namespace.pods(app).await)),
        }
    })
    .await;
}

async fn stays_at(test: &TestExtender, app: &str, count: usize) {
    consistently(A_WHILE, &format!("{count} pods of {app} are bound"), async || {
        match bound(test, app).await {
            there if there == count => Ok(()),
            _ => Err(describe(&test.namespace.pods(app).await)),
        }
    })
    .await;
}

/// Starts with a node of 4 CPU on which a daemon pod of 1 CPU, with that priority, does not come.
async fn missing_on_one_node(name: &str, priority: i32, reservation: Value) -> TestExtender {
    let test = TestExtender::start_by(name, Doors::Bind, json!({ "reservation": reservation })).await;
    test.namespace.node().await;
    let class = test.namespace.priority_class("agents", priority).await;
    test.missing_daemon_set("agent", "1", json!({ "priorityClassName": class })).await;
    test.namespace.pods_exist("agent", 1).await;
    test
}

#[tokio::test]
async fn a_pod_of_higher_priority_gets_the_room_and_one_of_lower_or_equal_priority_does_not() {
    let test = missing_on_one_node("bind-priority", 1000, json!({})).await;
    test.ordinary("lower", 4, json!({})).await;
    runs(&test, "lower", 3).await;
    let equal = json!({ "priorityClassName": "bind-priority-agents" });
    test.namespace.delete::<k8s_openapi::api::apps::v1::Deployment>("lower").await;
    eventually("the pods are gone", async || match test.namespace.pods("lower").await.len() {
        0 => Ok(()),
        left => Err(left.to_string()),
    })
    .await;
    test.ordinary("equal", 4, equal).await;
    runs(&test, "equal", 3).await;
    stays_at(&test, "equal", 3).await;
    let class = test.namespace.class_that_never_preempts("above", 2000).await;
    test.ordinary("higher", 1, json!({ "priorityClassName": class })).await;
    runs(&test, "higher", 1).await;
}

#[tokio::test]
async fn room_is_not_reserved_against_a_pod_of_higher_priority_than_the_daemon() {
    let test = missing_on_one_node("bind-modest", -10, json!({})).await;
    test.ordinary("web", 4, json!({})).await;
    runs(&test, "web", 4).await;
    // A binding may have been refused because the warden had not seen the pod yet.
    assert_eq!(test.warden.metric("daemonset_warden_holds_refusing_total", &[]).await, 0.0);
}

#[tokio::test]
async fn audit_mode_refuses_nothing_and_judges_all() {
    let test = missing_on_one_node("bind-audit", 0, json!({ "mode": "Audit" })).await;
    test.ordinary("web", 4, json!({})).await;
    runs(&test, "web", 4).await;
    let count = async |outcome| {
        test.warden.metric("daemonset_warden_bind_requests_total", &[("outcome", outcome)]).await
    };
    assert_eq!(count("refused").await, 0.0);
    assert!(count("allowed").await >= 3.0);
    assert!(count("audited").await >= 1.0, "the fourth would have been refused");
}

/// Starts a test whose namespace may use gates, with a DaemonSet whose pods are Ready after `ready_after`, and one node.
async fn gated(name: &str, gate: &str, ready_after: &str, bind_timeout: &str) -> (TestExtender, String) {
    let config = json!({ "readinessGates": {
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } },
        "bindTimeout": bind_timeout,
    } });
    let test = TestExtender::start_by(name, Doors::Bind, config).await;
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

#[tokio::test]
async fn a_gate_refuses_bindings_until_the_daemon_pod_is_ready() {
    let (test, node) = gated("bind-gate", "FirstReady", "6s", "60s").await;
    test.ordinary("web", 1, json!({})).await;
    eventually("the refusal names the daemon pod", async || {
        let name = test.namespace.pods("web").await.first().ok_or("no pod")?.name_any();
        let shown = test.namespace.kubectl.succeed(&["describe", "pod", &name]).await;
        let says = format!("node {node:?} waits");
        let is_said = |line: &str| line.contains(&says) && line.contains("bind-gate/agent");
        if shown.lines().any(is_said) { Ok(()) } else { Err(shown) }
    })
    .await;
    eventually_within(BACK_OFF, "the pod runs", async || {
        if bound(&test, "web").await == 1 { Ok(()) } else { Err(describe(&test.namespace.pods("web").await)) }
    })
    .await;
    assert!(agent_is_ready(&test).await, "it was bound before the agent was Ready");
}

/// The daemon pod is bound, so that nothing can be nominated, and pods would try this node first for as long as `/bind` refuses it.
#[tokio::test]
async fn a_gate_at_bind_ends_after_bind_timeout() {
    let (test, node) = gated("bind-gate-ends", "Always", NEVER, "6s").await;
    test.ordinary("web", 2, json!({})).await;
    consistently(Duration::from_secs(3), "ordinary pods wait", async || match bound(&test, "web").await {
        0 => Ok(()),
        _ => Err(describe(&test.namespace.pods("web").await)),
    })
    .await;
    runs(&test, "web", 2).await;
    let pods = test.namespace.pods("web").await;
    assert!(
        pods.iter().all(|pod| node_of(pod) == Some(&*node)),
        "{:?}",
        pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    );
    assert!(!agent_is_ready(&test).await);
}
