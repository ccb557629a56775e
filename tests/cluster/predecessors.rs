//! Daemon pods of high priority on full nodes, that fit into the room of their predecessors (kubernetes#102382). With the warden
//! the scheduler evicts no pod for them; without the warden it does, which is the control of these tests.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::{
    Extender, GONE_AFTER, NodeOptions, TestExtender, consistently, describe, eventually, eventually_within,
    is_bound, say,
};

/// The time in which an agent's pod ends.
const ENDS: &str = "5s";
/// The time from the end of one agent's pod until the next is bound: the scheduler's back-off after a few attempts, on a busy
/// machine.
const SOON: Duration = Duration::from_secs(10);

/// Starts a test with nodes of 4 CPU. Each has an agent of high priority and 1 CPU, and three ordinary pods of 1 CPU; `waiting`
/// more of these wait.
async fn full(name: &str, nodes: usize, waiting: usize, strategy: Value, with_warden: bool) -> TestExtender {
    let test = TestExtender::start_with(name, json!({}), |warden| {
        // With the other tests on two cores a call can take more than 300 ms; then the scheduler goes on without the extender,
        // and the test proves nothing.
        let extender = Extender { preempts: true, http_timeout: "5s", ..warden.extender() };
        if with_warden { vec![extender] } else { Vec::new() }
    })
    .await;
    test.namespace.nodes(1, nodes, &NodeOptions::default()).await;
    let class = test.namespace.priority_class("important", 1000).await;
    let agent = json!({ "spec": {
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": strategy },
        "template": {
            "metadata": { "annotations": { GONE_AFTER: ENDS } },
            "spec": {
                "schedulerName": name,
                "priorityClassName": class,
                "containers": [{
                    "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "1" } },
                }],
            },
        },
    } });
    test.namespace.create(&test.namespace.daemon_set("agent", agent)).await;
    test.namespace.settled("agent", i32::try_from(nodes).unwrap()).await;
    test.ordinary("web", 3 * nodes + waiting, json!({})).await;
    eventually("the nodes are full", async || {
        let pods = test.namespace.pods("web").await;
        if bound(&pods).len() == 3 * nodes { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    test
}

fn bound(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter(|pod| is_bound(pod)).filter_map(ResourceExt::uid).collect()
}

async fn somebody_is_evicted(test: &TestExtender) {
    eventually("an ordinary pod is evicted", async || match test.namespace.recorder.preempted() {
        victims if victims.is_empty() => Err("none".to_owned()),
        _ => Ok(()),
    })
    .await;
}

/// Deletes a pod of a DaemonSet that surges: the controller creates the next pod while the deleted one still has its room.
async fn its_pod_is_told_to_end(name: &str, with_warden: bool) -> (TestExtender, Pod) {
    let test = full(name, 1, 0, json!({ "maxSurge": 1, "maxUnavailable": 0 }), with_warden).await;
    let before = test.namespace.bound("agent", 1).await.remove(0);
    test.namespace.delete::<Pod>(&before.name_any()).await;
    (test, before)
}

#[tokio::test]
async fn without_the_warden_somebody_is_evicted_for_room_that_comes_free_anyway() {
    let (test, before) = its_pod_is_told_to_end("predecessor-without", false).await;
    somebody_is_evicted(&test).await;
    let still_ends = test.namespace.pods("agent").await.iter().any(|pod| pod.uid() == before.uid());
    assert!(still_ends, "the test is too slow to show anything");
}

#[tokio::test]
async fn a_daemon_pod_waits_for_its_predecessor_instead_of_evicting() {
    let (test, before) = its_pod_is_told_to_end("predecessor-with", true).await;
    let web = bound(&test.namespace.pods("web").await);
    eventually("the old pod is gone", async || {
        let pods = test.namespace.pods("agent").await;
        if pods.iter().all(|pod| pod.uid() != before.uid()) { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    let gone = Instant::now();
    eventually_within(SOON, "the new one is bound", async || {
        let pods = test.namespace.pods("agent").await;
        if bound(&pods).len() == 1 { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    say(&format!("bound {:.1} s after its predecessor had gone", gone.elapsed().as_secs_f32()));
    consistently(Duration::from_secs(2), "no pod is evicted", async || {
        let there = bound(&test.namespace.pods("web").await);
        let evicted = test.namespace.recorder.preempted();
        if there == web && evicted.is_empty() { Ok(()) } else { Err(format!("{evicted:?}")) }
    })
    .await;
    let dropped = [("reason", "predecessor_leaves")];
    let dropped = test.warden.metric("daemonset_warden_extender_dropped_nodes_total", &dropped).await;
    assert!(dropped > 0.0, "the scheduler wanted to evict a pod, and the warden removed the node");
}

const NODES: usize = 3;

/// Changes the template of a DaemonSet that does not surge: its next pod is created when the old one is gone, and by then the
/// backlog has taken the room.
async fn its_template_changes(name: &str, with_warden: bool) -> TestExtender {
    let test = full(name, NODES, 2 * NODES, json!({ "maxUnavailable": "100%" }), with_warden).await;
    let version = json!({ "spec": { "template": { "metadata": { "labels": { "version": "2" } } } } });
    test.namespace.change::<DaemonSet>("agent", &version).await;
    test
}

#[tokio::test]
async fn without_the_warden_a_rollout_evicts_those_who_took_its_room() {
    let test = its_template_changes("important-rollout-without", false).await;
    somebody_is_evicted(&test).await;
}

#[tokio::test]
async fn an_important_rollout_on_full_nodes_evicts_nobody() {
    let test = its_template_changes("important-rollout-with", true).await;
    let web = bound(&test.namespace.pods("web").await);
    test.namespace.settled("agent", i32::try_from(NODES).unwrap()).await;
    consistently(Duration::from_secs(2), "no pod is evicted", async || {
        let there = bound(&test.namespace.pods("web").await);
        let evicted = test.namespace.recorder.preempted();
        if there == web && evicted.is_empty() { Ok(()) } else { Err(format!("{evicted:?}")) }
    })
    .await;
}
