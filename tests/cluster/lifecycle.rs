//! The usual operations on DaemonSets work with the webhooks, and the controller creates exactly the pods that it should.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, NodeOptions, TestNamespace, Warden, WardenOptions, consistently, describe, eventually,
    is_bound,
};

const NODES: usize = 3;

async fn settled(name: &str) -> (TestNamespace<&'static ControlPlane>, Warden) {
    let namespace = TestNamespace::shared(name).await;
    let warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Fail").await;
    namespace.nodes(1, NODES, &NodeOptions::default()).await;
    namespace.create(&namespace.daemon_set("agent", json!({}))).await;
    namespace.settled("agent", NODES as i32).await;
    (namespace, warden)
}

fn image(tag: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "containers": [{
        "name": "main", "image": format!("example.test/main:{tag}"), "resources": { "requests": { "cpu": "300m" } },
    }] } } } })
}

/// Checks that the controller has created exactly `pods` pods, and creates no other for 3 s.
async fn assert_created(namespace: &TestNamespace<&'static ControlPlane>, pods: usize) {
    consistently(Duration::from_secs(3), &format!("{pods} pods were ever made"), async || {
        match namespace.recorder.created_by("agent") {
            made if made == pods => Ok(()),
            made => Err(format!("{made}; {}", describe(&namespace.pods("agent").await))),
        }
    })
    .await;
}

#[tokio::test]
async fn a_rollout_and_its_undo_make_each_pod_once() {
    let (namespace, _warden) = settled("rollout").await;
    assert_created(&namespace, NODES).await;

    namespace.change::<DaemonSet>("agent", &image("2")).await;
    namespace.settled("agent", NODES as i32).await;
    assert_created(&namespace, 2 * NODES).await;

    let history = namespace.kubectl.succeed(&["rollout", "history", "daemonset/agent"]).await;
    let revisions: Vec<_> =
        history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert_eq!(revisions.len(), 2, "{history}");

    let undone = namespace.kubectl.succeed(&["rollout", "undo", "daemonset/agent"]).await;
    assert_eq!(undone.trim_end(), "daemonset.apps/agent rolled back");
    let status = namespace.kubectl.succeed(&["rollout", "status", "daemonset/agent", "--timeout=60s"]).await;
    assert!(status.contains("successfully rolled out"), "{status}");
    namespace.settled("agent", NODES as i32).await;
    assert_created(&namespace, 3 * NODES).await;
    let pods = namespace.bound("agent", NODES).await;
    let images: Vec<_> =
        pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.clone()).collect();
    assert_eq!(images, ["example.test/main:1"; NODES]);
    let revisions = namespace.api::<ControllerRevision>().list(&ListParams::default()).await.unwrap();
    assert_eq!(revisions.items.len(), 2);
}

#[tokio::test]
async fn a_cascading_delete_takes_the_pods_along() {
    let (namespace, _warden) = settled("cascade").await;
    namespace
        .kubectl
        .succeed(&["delete", "daemonset", "agent", "--cascade=foreground", "--timeout=60s"])
        .await;
    eventually("no pod is left", async || {
        let pods = namespace.pods("agent").await;
        if pods.is_empty() { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    assert_created(&namespace, NODES).await;
}

#[tokio::test]
async fn an_orphaning_delete_leaves_pods_that_the_next_one_adopts() {
    let (namespace, _warden) = settled("orphans").await;
    namespace.kubectl.succeed(&["delete", "daemonset", "agent", "--cascade=orphan"]).await;
    consistently(Duration::from_secs(3), "the pods stay", async || {
        let pods = namespace.pods("agent").await;
        if pods.iter().filter(|pod| is_bound(pod)).count() == NODES { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;

    let next = namespace.create(&namespace.daemon_set("agent", json!({}))).await;
    namespace.settled("agent", NODES as i32).await;
    let pods = namespace.bound("agent", NODES).await;
    let owners: Vec<_> = pods.iter().flat_map(|pod| pod.owner_references()).map(|owner| &owner.uid).collect();
    assert_eq!(owners, [next.metadata.uid.as_ref().unwrap(); NODES]);
    assert_created(&namespace, NODES).await;
}

/// Pods with a node name in the template, which the controller does not set. The controller must accept the patched pods as
/// its own, and not create them again.
#[tokio::test]
async fn a_node_bound_daemon_set_does_not_loop() {
    let namespace = TestNamespace::shared("no-loop").await;
    let warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Fail").await;
    let node = namespace.nodes(1, 2, &NodeOptions::default()).await.remove(0);
    let bound = json!({ "spec": { "template": { "spec": { "nodeName": node } } } });
    namespace.create(&namespace.daemon_set("agent", bound)).await;
    namespace.settled("agent", 1).await;
    assert_created(&namespace, 1).await;

    namespace.change::<DaemonSet>("agent", &image("2")).await;
    namespace.settled("agent", 1).await;
    assert_created(&namespace, 2).await;
}
