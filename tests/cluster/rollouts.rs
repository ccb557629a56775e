//! Rolling updates with surge on a full node, and the victims of preemption.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use crate::harness::{NodeOptions, TestExtender, consistently, describe, eventually, is_bound, node_of};

async fn bound(test: &TestExtender, app: &str, count: usize) -> Vec<Pod> {
    eventually(&format!("{count} pods of {app} are bound"), async || {
        let pods: Vec<_> = test.namespace.pods(app).await;
        if pods.iter().filter(|pod| is_bound(pod)).count() == count { Ok(pods) } else { Err(describe(&pods)) }
    })
    .await
}

/// With surge the old pod stays until the new one runs, so the node needs room for both.
#[tokio::test]
async fn a_surge_rollout_on_a_full_node_waits_for_room_and_then_finishes() {
    let test = TestExtender::start("surge", json!({})).await;
    test.namespace.node().await;
    test.daemon_set("agent", "1", json!({})).await;
    let surge = json!({ "spec": { "updateStrategy": {
        "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 },
    } } });
    test.namespace.change::<DaemonSet>("agent", &surge).await;
    test.namespace.settled("agent", 1).await;
    test.ordinary("web", 6, json!({})).await;
    bound(&test, "web", 3).await;
    let before = test.namespace.bound("agent", 1).await.remove(0);

    let version = json!({ "spec": { "template": { "metadata": { "labels": { "version": "2" } } } } });
    test.namespace.change::<DaemonSet>("agent", &version).await;
    test.namespace.pods_exist("agent", 2).await;
    consistently(Duration::from_secs(4), "the old pod runs, and the new one waits", async || {
        let pods = test.namespace.pods("agent").await;
        let bound: Vec<_> = pods.iter().filter(|pod| is_bound(pod)).map(ResourceExt::uid).collect();
        if bound == [before.uid()] && pods.len() == 2 { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;

    // The room of one ordinary pod is enough, although other ordinary pods have waited longer for it.
    let pods = test.namespace.pods("web").await;
    let ends = pods.iter().find(|pod| is_bound(pod)).unwrap().name_any();
    test.namespace.delete::<Pod>(&ends).await;
    test.namespace.settled("agent", 1).await;
    let after = test.namespace.bound("agent", 1).await.remove(0);
    assert_eq!(after.labels().get("version").map(String::as_str), Some("2"));
    bound(&test, "web", 3).await;
    assert!(test.namespace.recorder.preempted().is_empty());
}

/// kubernetes#141227: without the warden the scheduler chooses the victim of the lowest priority, which is the agent.
#[tokio::test]
async fn preemption_spares_daemon_pods_where_another_node_will_do() {
    let test = TestExtender::start("spared", json!({})).await;
    let labels = BTreeMap::from([("agent".to_owned(), "yes".to_owned())]);
    let small = NodeOptions { cpu: "2", ..NodeOptions::default() };
    let with_agent = test.namespace.nodes(1, 1, &NodeOptions { labels, ..small.clone() }).await.remove(0);
    let without = test.namespace.nodes(2, 1, &small).await.remove(0);
    let low = test.namespace.priority_class("low", 10).await;
    let middle = test.namespace.priority_class("middle", 20).await;
    let high = test.namespace.priority_class("high", 100).await;
    let agent = json!({ "nodeSelector": { "agent": "yes" }, "priorityClassName": low });
    test.daemon_set("agent", "1500m", agent).await;
    test.namespace.settled("agent", 1).await;
    let before = test.namespace.bound("agent", 1).await.remove(0);
    let ours = |class: &str| json!({ "spec": { "schedulerName": "spared", "priorityClassName": class } });
    test.namespace.create(&test.namespace.pod("web", "1500m", ours(&middle))).await;
    let web = test.namespace.bound("web", 1).await.remove(0);
    assert_eq!(node_of(&web), Some(&*without));

    test.namespace.create(&test.namespace.pod("important", "1500m", ours(&high))).await;
    let important = bound(&test, "important", 1).await.remove(0);
    assert_eq!(node_of(&important), Some(&*without));
    eventually("the Event is there", async || match test.namespace.recorder.preempted() {
        victims if victims == ["web"] => Ok(()),
        victims => Err(format!("{victims:?}")),
    })
    .await;
    let after = test.namespace.bound("agent", 1).await.remove(0);
    assert_eq!((after.uid(), node_of(&after)), (before.uid(), Some(&*with_agent)));
    let dropped = [("reason", "daemon_pod_victim")];
    let dropped = test.warden.metric("daemonset_warden_extender_dropped_nodes_total", &dropped).await;
    assert!(dropped > 0.0, "the scheduler wanted to evict the agent, and the warden removed the node");
}
