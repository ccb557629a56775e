//! Holds by priority, size and node label: one node of 4 CPU, daemon pods that no scheduler places, and ordinary pods of 1 CPU
//! each.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::{
    NodeOptions, SchedulerOptions, TestExtender, TestNamespace, Warden, WardenOptions, consistently,
    describe, eventually, eventually_within, is_bound, node_of, object,
};

/// A time in which a pod that should wait would be bound.
const A_WHILE: Duration = Duration::from_secs(4);

async fn with_one_node(name: &str) -> (TestExtender, String) {
    let test = TestExtender::start(name, json!({})).await;
    let node = test.namespace.node().await;
    (test, node)
}

/// Waits until `count` pods of the app are bound, and checks that no more are bound for a while.
async fn bound_and_no_more(test: &TestExtender, app: &str, count: usize) {
    let probe = async || {
        let pods = test.namespace.pods(app).await;
        if pods.iter().filter(|pod| is_bound(pod)).count() == count { Ok(()) } else { Err(describe(&pods)) }
    };
    eventually(&format!("{count} pods of {app} are bound"), probe).await;
    consistently(A_WHILE, &format!("{count} pods of {app} are bound"), probe).await;
}

async fn wanted(test: &TestExtender, daemon_set: &str, count: i32) {
    let api: Api<DaemonSet> = test.namespace.api();
    eventually(&format!("{daemon_set} is wanted on {count} nodes"), async || {
        let status = api.get(daemon_set).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        if status.desired_number_scheduled == count { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_hold_comes_and_goes_with_a_label() {
    let (test, node) = with_one_node("by-label").await;
    test.missing_daemon_set("agent", "1", json!({ "nodeSelector": { "agent": "yes" } })).await;
    test.namespace.change_node(&node, &json!({ "metadata": { "labels": { "agent": "yes" } } })).await;
    wanted(&test, "agent", 1).await;
    test.ordinary("web", 4, json!({})).await;
    bound_and_no_more(&test, "web", 3).await;

    test.namespace.change_node(&node, &json!({ "metadata": { "labels": { "agent": null } } })).await;
    bound_and_no_more(&test, "web", 4).await;
}

/// The scheduler waits in PreBind until the volume is made. It knows that the pod takes room; we know it from its call alone.
#[tokio::test]
async fn a_pod_whose_volume_is_being_made_counts_until_it_is_bound() {
    let namespace = TestNamespace::shared("slow-volume").await;
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let warden = Warden::start(WardenOptions { config: namespace.holding_here(json!({})), kubeconfig }).await;
    // As before Kubernetes 1.35, where the scheduler does not write the node into the pod's status while it waits.
    let flags: &[_] = &["--feature-gates=NominatedNodeNameForExpectation=false"];
    let extenders = vec![warden.extender()];
    let options = SchedulerOptions { extenders, flags, ..SchedulerOptions::default() };
    let test = TestExtender::with(namespace, warden, options).await;
    test.namespace.node().await;
    let classes: Api<StorageClass> = Api::all(test.client());
    let class = object(json!({
        "metadata": { "name": test.namespace.name }, "provisioner": "example.test/never",
        "volumeBindingMode": "WaitForFirstConsumer",
    }));
    classes.create(&PostParams::default(), &class).await.expect("a storage class");
    let claim = object::<PersistentVolumeClaim>(json!({
        "metadata": { "name": "data" },
        "spec": {
            "storageClassName": test.namespace.name, "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "1Gi" } },
        },
    }));
    test.namespace.create(&claim).await;
    test.missing_daemon_set("agent", "1", json!({})).await;
    wanted(&test, "agent", 1).await;

    let two = json!([{ "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "2" } } }]);
    let data = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    test.ordinary("slow", 1, json!({ "containers": two, "volumes": data })).await;
    let claims: Api<PersistentVolumeClaim> = test.namespace.api();
    eventually("the scheduler has chosen the node and waits for the volume", async || {
        let claim = claims.get("data").await.map_err(|e| e.to_string())?;
        let chosen = claim.annotations().contains_key("volume.kubernetes.io/selected-node");
        if chosen { Ok(()) } else { Err(format!("{:?}", claim.annotations())) }
    })
    .await;
    // Longer than a pod without claims stays assumed.
    tokio::time::sleep(Duration::from_secs(8)).await;
    test.ordinary("quick", 1, json!({ "containers": two })).await;
    bound_and_no_more(&test, "quick", 0).await;
    assert!(!is_bound(&test.namespace.pods("slow").await[0]));
    classes.delete(&test.namespace.name, &DeleteParams::default()).await.expect("the class is deleted");
}

#[tokio::test]
async fn no_room_is_held_against_pods_of_higher_priority() {
    let (test, _) = with_one_node("higher").await;
    let (low, high) =
        (test.namespace.priority_class("low", 10).await, test.namespace.priority_class("high", 100).await);
    test.missing_daemon_set("agent", "1", json!({ "priorityClassName": low })).await;
    wanted(&test, "agent", 1).await;
    test.ordinary("web", 4, json!({ "priorityClassName": high })).await;
    bound_and_no_more(&test, "web", 4).await;
}

#[tokio::test]
async fn room_is_held_for_the_highest_daemons_that_fit_together() {
    let (test, _) = with_one_node("three").await;
    for (name, priority) in [("first", 300), ("second", 200), ("third", 100)] {
        let class = test.namespace.priority_class(name, priority).await;
        test.missing_daemon_set(name, "1500m", json!({ "priorityClassName": class })).await;
        wanted(&test, name, 1).await;
    }
    // The warden holds 3 of 4 CPU for the first and the second DaemonSet. The third does not fit beside them, and has no hold.
    test.ordinary("web", 3, json!({})).await;
    bound_and_no_more(&test, "web", 1).await;
    // For these pods only the hold of the first counts: 1.5 CPU held, 1 used, so one more pod fits.
    let between = test.namespace.class_that_never_preempts("between", 250).await;
    test.ordinary("important", 3, json!({ "priorityClassName": between })).await;
    bound_and_no_more(&test, "important", 1).await;
}

#[tokio::test]
async fn no_room_is_held_for_what_can_never_fit() {
    let (test, _) = with_one_node("never-fits").await;
    test.missing_daemon_set("giant", "8", json!({})).await;
    wanted(&test, "giant", 1).await;
    test.ordinary("web", 4, json!({})).await;
    bound_and_no_more(&test, "web", 4).await;
}

/// A kubelet that runs out of memory evicts a daemon pod, and the controller creates another after a pause.
#[tokio::test]
async fn an_evicted_daemon_pod_comes_back() {
    let (test, node) = with_one_node("evicted").await;
    full_with_backlog(&test, json!({})).await;
    let pod = test.namespace.pods("agent").await.remove(0);
    let failed = json!({ "status": { "phase": "Failed", "reason": "Evicted" } });
    let api: Api<Pod> = test.namespace.api();
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(failed)).await.unwrap();
    comes_back(&test, &pod, &node).await;
}

#[tokio::test]
async fn on_delete_takes_effect_when_somebody_deletes() {
    let (test, node) = with_one_node("on-delete").await;
    full_with_backlog(
        &test,
        json!({ "spec": { "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } } }),
    )
    .await;
    let version = json!({ "spec": { "template": { "metadata": { "labels": { "version": "2" } } } } });
    test.namespace.change::<DaemonSet>("agent", &version).await;
    let pod = test.namespace.pods("agent").await.remove(0);
    consistently(A_WHILE, "the old pod stays", async || {
        let pods = test.namespace.pods("agent").await;
        if pods.len() == 1 && pods[0].uid() == pod.uid() { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    test.namespace.delete::<Pod>(&pod.name_any()).await;
    let back = comes_back(&test, &pod, &node).await;
    assert_eq!(back.labels().get("version").map(String::as_str), Some("2"));
}

/// Fills the node with an agent of 1 CPU and three ordinary pods; three more wait.
async fn full_with_backlog(test: &TestExtender, changes: Value) {
    test.daemon_set("agent", "1", json!({})).await;
    if changes != json!({}) {
        test.namespace.change::<DaemonSet>("agent", &changes).await;
    }
    test.namespace.settled("agent", 1).await;
    test.ordinary("web", 6, json!({})).await;
    bound_and_no_more(test, "web", 3).await;
}

async fn comes_back(test: &TestExtender, before: &Pod, node: &str) -> Pod {
    let back = eventually("another pod of the agent is bound", async || {
        let pods = test.namespace.pods("agent").await;
        let back = pods.iter().find(|pod| is_bound(pod) && pod.uid() != before.uid());
        back.cloned().ok_or_else(|| describe(&pods))
    })
    .await;
    assert_eq!(node_of(&back), Some(node));
    bound_and_no_more(test, "web", 3).await;
    back
}

#[tokio::test]
async fn a_node_that_is_drained_and_deleted_holds_nothing() {
    let (test, first) = with_one_node("drained").await;
    test.daemon_set("agent", "1", json!({})).await;
    test.namespace.settled("agent", 1).await;
    test.ordinary("web", 4, json!({})).await;
    bound_and_no_more(&test, "web", 3).await;

    let second = test.namespace.nodes(2, 1, &NodeOptions::default()).await.remove(0);
    bound_and_no_more(&test, "web", 4).await;
    test.namespace.settled("agent", 2).await;
    test.namespace
        .kubectl
        .succeed(&["drain", &first, "--ignore-daemonsets", "--force", "--timeout=60s"])
        .await;
    bound_and_no_more(&test, "web", 3).await;
    let nodes: Api<Node> = Api::all(test.client());
    nodes.delete(&first, &DeleteParams::default()).await.unwrap();
    // The pod garbage collector deletes the pods of a deleted Node after a minute; then the controllers count them as gone.
    eventually_within(Duration::from_secs(150), "the node's pods are gone", async || {
        let pods = test.namespace.pods("agent").await;
        if pods.len() == 1 { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    test.namespace.settled("agent", 1).await;
    let pods = test.namespace.pods("web").await;
    assert!(
        pods.iter().filter(|pod| is_bound(pod)).all(|pod| node_of(pod) == Some(&*second)),
        "{}",
        describe(&pods)
    );

    // A new Node with the same name: the warden holds room for its agent, too.
    test.namespace.nodes(1, 1, &NodeOptions::default()).await;
    test.namespace.settled("agent", 2).await;
    bound_and_no_more(&test, "web", 4).await;
}

/// Any author can write an owner reference. A pod passes a hold only if the DaemonSet exists and its selector matches the pod.
#[tokio::test]
async fn forged_owner_references_gain_nothing() {
    let (test, _) = with_one_node("forged").await;
    test.missing_daemon_set("agent", "1", json!({})).await;
    wanted(&test, "agent", 1).await;
    test.ordinary("web", 3, json!({})).await;
    bound_and_no_more(&test, "web", 3).await;

    let daemon_set = test.namespace.api::<DaemonSet>().get("agent").await.unwrap();
    let genuine = daemon_set.uid().unwrap();
    for (name, uid) in
        [("other-uid", "00000000-0000-0000-0000-000000000000"), ("other-labels", genuine.as_str())]
    {
        let mut forged = crate::harness::owned_by_daemon_set("agent", uid);
        forged["spec"] = json!({ "schedulerName": test.namespace.name });
        test.namespace.create(&test.namespace.pod(name, "1", forged)).await;
    }
    consistently(A_WHILE, "forged pods wait", async || {
        let mut pods = test.namespace.pods("other-uid").await;
        pods.extend(test.namespace.pods("other-labels").await);
        if pods.iter().any(is_bound) { Err(describe(&pods)) } else { Ok(()) }
    })
    .await;
}
