//! When room is kept, for whom, and against whom: one node of 4 CPU, daemon pods that nobody places, ordinary pods of
//! 1 CPU each.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::{
    NodeOptions, TestExtender, consistently, describe, eventually, eventually_within, is_bound, node_of,
};

/// Long enough to see a pod that should wait go somewhere all the same.
const A_WHILE: Duration = Duration::from_secs(4);

async fn served(name: &str) -> (TestExtender, String) {
    let served = TestExtender::start(name, json!({})).await;
    let node = served.arena.node().await;
    (served, node)
}

/// Waits until that many pods of the app are bound, and sees that it stays so.
async fn bound_and_no_more(served: &TestExtender, app: &str, count: usize) {
    let probe = async || {
        let pods = served.arena.pods(app).await;
        if pods.iter().filter(|pod| is_bound(pod)).count() == count { Ok(()) } else { Err(describe(&pods)) }
    };
    eventually(&format!("{count} pods of {app} are bound"), probe).await;
    consistently(A_WHILE, &format!("{count} pods of {app} are bound"), probe).await;
}

async fn wanted(served: &TestExtender, daemon_set: &str, count: i32) {
    let api: Api<DaemonSet> = served.arena.api();
    eventually(&format!("{daemon_set} is wanted on {count} nodes"), async || {
        let status = api.get(daemon_set).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        if status.desired_number_scheduled == count { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_hold_comes_and_goes_with_a_label() {
    let (served, node) = served("by-label").await;
    served.missing_daemon_set("agent", "1", json!({ "nodeSelector": { "agent": "yes" } })).await;
    served.arena.change_node(&node, &json!({ "metadata": { "labels": { "agent": "yes" } } })).await;
    wanted(&served, "agent", 1).await;
    served.ordinary("web", 4, json!({})).await;
    bound_and_no_more(&served, "web", 3).await;

    served.arena.change_node(&node, &json!({ "metadata": { "labels": { "agent": null } } })).await;
    bound_and_no_more(&served, "web", 4).await;
}

#[tokio::test]
async fn no_room_is_kept_against_pods_of_higher_priority() {
    let (served, _) = served("higher").await;
    let (low, high) =
        (served.arena.priority_class("low", 10).await, served.arena.priority_class("high", 100).await);
    served.missing_daemon_set("agent", "1", json!({ "priorityClassName": low })).await;
    wanted(&served, "agent", 1).await;
    served.ordinary("web", 4, json!({ "priorityClassName": high })).await;
    bound_and_no_more(&served, "web", 4).await;
}

#[tokio::test]
async fn room_is_kept_for_the_highest_daemons_that_fit_together() {
    let (served, _) = served("three").await;
    for (name, priority) in [("first", 300), ("second", 200), ("third", 100)] {
        let class = served.arena.priority_class(name, priority).await;
        served.missing_daemon_set(name, "1500m", json!({ "priorityClassName": class })).await;
        wanted(&served, name, 1).await;
    }
    // 3 of 4 CPU are kept for the first and the second; the third would not fit beside them, and is left out.
    served.ordinary("web", 3, json!({})).await;
    bound_and_no_more(&served, "web", 1).await;
    // Against these only the first counts: 1.5 kept, 1 used, so that one more fits.
    let between = served.arena.class_that_never_preempts("between", 250).await;
    served.ordinary("important", 3, json!({ "priorityClassName": between })).await;
    bound_and_no_more(&served, "important", 1).await;
}

#[tokio::test]
async fn no_room_is_kept_for_what_can_never_fit() {
    let (served, _) = served("never-fits").await;
    served.missing_daemon_set("giant", "8", json!({})).await;
    wanted(&served, "giant", 1).await;
    served.ordinary("web", 4, json!({})).await;
    bound_and_no_more(&served, "web", 4).await;
}

/// A kubelet that runs out of memory fails a daemon pod, and the controller makes another after a pause.
#[tokio::test]
async fn an_evicted_daemon_pod_comes_back() {
    let (served, node) = served("evicted").await;
    full_with_backlog(&served, json!({})).await;
    let pod = served.arena.pods("agent").await.remove(0);
    let failed = json!({ "status": { "phase": "Failed", "reason": "Evicted" } });
    let api: Api<Pod> = served.arena.api();
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(failed)).await.unwrap();
    comes_back(&served, &pod, &node).await;
}

#[tokio::test]
async fn on_delete_takes_effect_when_somebody_deletes() {
    let (served, node) = served("on-delete").await;
    full_with_backlog(
        &served,
        json!({ "spec": { "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } } }),
    )
    .await;
    let version = json!({ "spec": { "template": { "metadata": { "labels": { "version": "2" } } } } });
    served.arena.change::<DaemonSet>("agent", &version).await;
    let pod = served.arena.pods("agent").await.remove(0);
    consistently(A_WHILE, "the old pod stays", async || {
        let pods = served.arena.pods("agent").await;
        if pods.len() == 1 && pods[0].uid() == pod.uid() { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    served.arena.delete::<Pod>(&pod.name_any()).await;
    let back = comes_back(&served, &pod, &node).await;
    assert_eq!(back.labels().get("version").map(String::as_str), Some("2"));
}

/// An agent of 1 CPU that runs, three ordinary pods beside it, and more that wait.
async fn full_with_backlog(served: &TestExtender, changes: Value) {
    served.daemon_set("agent", "1", json!({})).await;
    if changes != json!({}) {
        served.arena.change::<DaemonSet>("agent", &changes).await;
    }
    served.arena.settled("agent", 1).await;
    served.ordinary("web", 6, json!({})).await;
    bound_and_no_more(served, "web", 3).await;
}

async fn comes_back(served: &TestExtender, before: &Pod, node: &str) -> Pod {
    let back = eventually("another pod of the agent is bound", async || {
        let pods = served.arena.pods("agent").await;
        let back = pods.iter().find(|pod| is_bound(pod) && pod.uid() != before.uid());
        back.cloned().ok_or_else(|| describe(&pods))
    })
    .await;
    assert_eq!(node_of(&back), Some(node));
    bound_and_no_more(served, "web", 3).await;
    back
}

#[tokio::test]
async fn a_node_that_is_drained_and_deleted_holds_nothing() {
    let (served, first) = served("drained").await;
    served.daemon_set("agent", "1", json!({})).await;
    served.arena.settled("agent", 1).await;
    served.ordinary("web", 4, json!({})).await;
    bound_and_no_more(&served, "web", 3).await;

    let second = served.arena.nodes(2, 1, &NodeOptions::default()).await.remove(0);
    bound_and_no_more(&served, "web", 4).await;
    served.arena.settled("agent", 2).await;
    served.arena.kubectl.succeed(&["drain", &first, "--ignore-daemonsets", "--force", "--timeout=60s"]).await;
    bound_and_no_more(&served, "web", 3).await;
    let nodes: Api<Node> = Api::all(served.client());
    nodes.delete(&first, &DeleteParams::default()).await.unwrap();
    // The controllers collect the pods of a Node that is gone after a minute, and only then count anew.
    eventually_within(Duration::from_secs(150), "the node's pods are gone", async || {
        let pods = served.arena.pods("agent").await;
        if pods.len() == 1 { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    served.arena.settled("agent", 1).await;
    let pods = served.arena.pods("web").await;
    assert!(
        pods.iter().filter(|pod| is_bound(pod)).all(|pod| node_of(pod) == Some(&*second)),
        "{}",
        describe(&pods)
    );

    // The same name again is another node: the agent comes first there, too.
    served.arena.nodes(1, 1, &NodeOptions::default()).await;
    served.arena.settled("agent", 2).await;
    bound_and_no_more(&served, "web", 4).await;
}

/// An owner reference is what its author says: to get past a hold it takes a DaemonSet that wants the pod.
#[tokio::test]
async fn forged_owner_references_gain_nothing() {
    let (served, _) = served("forged").await;
    served.missing_daemon_set("agent", "1", json!({})).await;
    wanted(&served, "agent", 1).await;
    served.ordinary("web", 3, json!({})).await;
    bound_and_no_more(&served, "web", 3).await;

    let daemon_set = served.arena.api::<DaemonSet>().get("agent").await.unwrap();
    let genuine = daemon_set.uid().unwrap();
    for (name, uid) in
        [("other-uid", "00000000-0000-0000-0000-000000000000"), ("other-labels", genuine.as_str())]
    {
        let mut forged = crate::harness::owned_by_daemon_set("agent", uid);
        forged["spec"] = json!({ "schedulerName": served.arena.namespace });
        served.arena.create(&served.arena.pod(name, "1", forged)).await;
    }
    consistently(A_WHILE, "forged pods wait", async || {
        let mut pods = served.arena.pods("other-uid").await;
        pods.extend(served.arena.pods("other-labels").await);
        if pods.iter().any(is_bound) { Err(describe(&pods)) } else { Ok(()) }
    })
    .await;
}
