//! The harness itself: if these fail, no other test means anything.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use serde_json::json;

use crate::harness::{Arena, NodeOptions, consistently, eventually};

#[tokio::test]
async fn a_daemon_pod_lands_on_a_node() {
    let arena = Arena::shared("smoke").await;
    let node = arena.node().await;
    arena.create(&arena.daemon_set("agent", json!({}))).await;
    arena.settled("agent", 1).await;
    let pods = arena.bound("agent", 1).await;
    assert_eq!(pods[0].spec.as_ref().unwrap().node_name, Some(node));
    assert_eq!(arena.recorder.created_by("agent"), 1);
    assert!(arena.recorder.preempted().is_empty());
}

#[tokio::test]
async fn kubectl_speaks_the_servers_version() {
    let arena = Arena::shared("versions").await;
    let versions = arena.kubectl.succeed(&["version", "--output=json"]).await;
    let versions: serde_json::Value = serde_json::from_str(&versions).unwrap();
    assert_eq!(
        versions["clientVersion"]["gitVersion"], versions["serverVersion"]["gitVersion"],
        "{versions}"
    );
    assert!(versions["serverVersion"]["gitVersion"].as_str().unwrap().starts_with("v1.36."), "{versions}");
}

#[tokio::test]
async fn nodes_and_pods_take_their_time() {
    let arena = Arena::shared("delays").await;
    let options = NodeOptions { ready_after: Some("3s"), ..NodeOptions::default() };
    let started = Instant::now();
    let node = arena.nodes(1, 1, &options).await.remove(0);
    let api: Api<Node> = Api::all(arena.client.clone());
    eventually("the node is Ready", async || {
        let status = api.get(&node).await.unwrap().status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready =
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if ready { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
    assert!(started.elapsed() > Duration::from_millis(2500), "Ready after {:?}", started.elapsed());

    let slow = json!({ "metadata": { "annotations": { "daemonset-warden.test/gone-after": "3s" } } });
    arena.create(&arena.pod("slow", "100m", slow)).await;
    arena.bound("slow", 1).await;
    let started = Instant::now();
    arena.delete::<Pod>("slow").await;
    eventually("the pod is gone", async || match arena.pods("slow").await.len() {
        0 => Ok(()),
        _ => Err("it is there".to_owned()),
    })
    .await;
    assert!(started.elapsed() > Duration::from_millis(2500), "gone after {:?}", started.elapsed());

    let never = NodeOptions { ready_after: Some(crate::harness::NEVER), ..NodeOptions::default() };
    let node = arena.nodes(2, 1, &never).await.remove(0);
    consistently(Duration::from_secs(3), "the node is not Ready", async || {
        let taints = api.get(&node).await.unwrap().spec.unwrap().taints.unwrap_or_default();
        match taints.iter().any(|taint| taint.key == "node.kubernetes.io/not-ready") {
            true => Ok(()),
            false => Err(format!("{taints:?}")),
        }
    })
    .await;
}
