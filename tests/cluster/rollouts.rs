//! Rolling updates with surge on a full node, and preemption: who goes when somebody has to.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use crate::harness::{NodeOptions, TestExtender, consistently, describe, eventually, is_bound, node_of};

async fn bound(served: &TestExtender, app: &str, count: usize) -> Vec<Pod> {
    eventually(&format!("{count} pods of {app} are bound"), async || {
        let pods: Vec<_> = served.arena.pods(app).await;
        if pods.iter().filter(|pod| is_bound(pod)).count() == count { Ok(pods) } else { Err(describe(&pods)) }
    })
    .await
}

/// Surge needs room for two: the old pod stays until the new one runs.
#[tokio::test]
async fn a_surge_rollout_on_a_full_node_waits_for_room_and_then_finishes() {
    let served = TestExtender::start("surge", json!({})).await;
    served.arena.node().await;
    served.daemon_set("agent", "1", json!({})).await;
    let surge = json!({ "spec": { "updateStrategy": {
        "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 },
    } } });
    served.arena.change::<DaemonSet>("agent", &surge).await;
    served.arena.settled("agent", 1).await;
    served.ordinary("web", 6, json!({})).await;
    bound(&served, "web", 3).await;
    let before = served.arena.bound("agent", 1).await.remove(0);

    let version = json!({ "spec": { "template": { "metadata": { "labels": { "version": "2" } } } } });
    served.arena.change::<DaemonSet>("agent", &version).await;
    served.arena.pods_exist("agent", 2).await;
    consistently(Duration::from_secs(4), "the old pod runs, and the new one waits", async || {
        let pods = served.arena.pods("agent").await;
        let bound: Vec<_> = pods.iter().filter(|pod| is_bound(pod)).map(ResourceExt::uid).collect();
        if bound == [before.uid()] && pods.len() == 2 { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;

    // The room of one ordinary pod is enough, although others have waited longer for it.
    let pods = served.arena.pods("web").await;
    let ends = pods.iter().find(|pod| is_bound(pod)).unwrap().name_any();
    served.arena.delete::<Pod>(&ends).await;
    served.arena.settled("agent", 1).await;
    let after = served.arena.bound("agent", 1).await.remove(0);
    assert_eq!(after.labels().get("version").map(String::as_str), Some("2"));
    bound(&served, "web", 3).await;
    assert!(served.arena.recorder.preempted().is_empty());
}

/// kubernetes#141227: the scheduler by itself takes the victim of the lowest priority, and that is the agent.
#[tokio::test]
async fn preemption_spares_daemon_pods_where_another_node_will_do() {
    let served = TestExtender::start("spared", json!({})).await;
    let labels = BTreeMap::from([("agent".to_owned(), "yes".to_owned())]);
    let small = NodeOptions { cpu: "2", ..NodeOptions::default() };
    let with_agent = served.arena.nodes(1, 1, &NodeOptions { labels, ..small.clone() }).await.remove(0);
    let without = served.arena.nodes(2, 1, &small).await.remove(0);
    let low = served.arena.priority_class("low", 10).await;
    let middle = served.arena.priority_class("middle", 20).await;
    let high = served.arena.priority_class("high", 100).await;
    let agent = json!({ "nodeSelector": { "agent": "yes" }, "priorityClassName": low });
    served.daemon_set("agent", "1500m", agent).await;
    served.arena.settled("agent", 1).await;
    let before = served.arena.bound("agent", 1).await.remove(0);
    let ours = |class: &str| json!({ "spec": { "schedulerName": "spared", "priorityClassName": class } });
    served.arena.create(&served.arena.pod("web", "1500m", ours(&middle))).await;
    let web = served.arena.bound("web", 1).await.remove(0);
    assert_eq!(node_of(&web), Some(&*without));

    served.arena.create(&served.arena.pod("important", "1500m", ours(&high))).await;
    let important = bound(&served, "important", 1).await.remove(0);
    assert_eq!(node_of(&important), Some(&*without));
    eventually("the Event is there", async || match served.arena.recorder.preempted() {
        victims if victims == ["web"] => Ok(()),
        victims => Err(format!("{victims:?}")),
    })
    .await;
    let after = served.arena.bound("agent", 1).await.remove(0);
    assert_eq!((after.uid(), node_of(&after)), (before.uid(), Some(&*with_agent)));
    let dropped = [("reason", "daemon_pod_victim")];
    let dropped = served.warden.metric("daemonset_warden_extender_dropped_nodes_total", &dropped).await;
    assert!(dropped > 0.0, "the scheduler would have taken the agent, and was told not to");
}
