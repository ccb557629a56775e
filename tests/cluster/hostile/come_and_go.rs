//! Pods of the tenant's own that name its DaemonSet: on one node after the other one lands, is deleted, and has been the
//! predecessor of a daemon pod that never comes.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use super::door::Door;
use super::tenant::forgery::owned_pod;
use super::{AFTER_HOLDS, BUDGET};
use crate::harness::{
    NodeOptions, TestExtender, TestNamespace, eventually, eventually_within, is_bound, object, say,
};

/// The time from one pod to the next. Each node has had one within the time for which a predecessor counts (60 s).
const PAUSE: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_quota_of_one_pod_does_not_keep_every_node() {
    let test = TestExtender::start("come-and-go", json!({})).await;
    let namespace = &test.namespace;
    let nodes = namespace.nodes(1, 3, &NodeOptions::default()).await;
    let quota =
        json!({ "metadata": { "name": "one" }, "spec": { "hard": { "pods": "1", "requests.cpu": "4" } } });
    namespace.create::<ResourceQuota>(&object(quota)).await;
    let template = json!({ "spec": {
        "serviceAccountName": "nobody",
        "schedulerName": namespace.name,
        "containers": [{
            "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "3900m" } },
        }],
    } });
    // OnDelete: the controller lets pods be that it has not made.
    let spec = json!({ "updateStrategy": { "type": "OnDelete" }, "template": template });
    let owner: DaemonSet = namespace.create(&namespace.daemon_set("d", json!({ "spec": spec }))).await;
    let pods: Vec<Pod> = nodes
        .iter()
        .map(|node| owned_pod(&format!("on-{node}"), &owner, node, &namespace.name, "3900m"))
        .collect();
    let api: Api<Pod> = namespace.api();
    for pod in &pods {
        come_and_go(&api, pod).await;
    }

    // In a namespace of its own: the quota is the tenant's.
    let others = TestNamespace::shared("come-and-go-others").await;
    let mut waits = namespace.pod("waits", "800m", json!({ "spec": { "schedulerName": namespace.name } }));
    waits.metadata.namespace = Some(others.name.clone());
    others.create(&waits).await;
    let attack = tokio::spawn(async move {
        for pod in pods.iter().cycle() {
            tokio::time::sleep(PAUSE).await;
            come_and_go(&api, pod).await;
        }
    });
    let waiting: Api<Pod> = others.api();
    eventually_within(BUDGET + AFTER_HOLDS, "the waiting pod is bound", async || {
        let pod = waiting.get("waits").await.map_err(|e| e.to_string())?;
        if is_bound(&pod) { Ok(()) } else { Err("it waits".to_owned()) }
    })
    .await;
    attack.abort();
    let events = others.api().list(&ListParams::default()).await.expect("Events can be listed").items;
    say(&format!(
        "come-and-go: {} refusals",
        events.iter().filter(|event| Door::Filter.is_refusal(event)).count()
    ));
}

async fn come_and_go(api: &Api<Pod>, pod: &Pod) {
    let name = pod.metadata.name.as_deref().expect("a name");
    // The status of the quota is behind: it counts the pod before for a while.
    eventually("the quota takes it", async || {
        api.create(&PostParams::default(), pod).await.map_err(|e| e.to_string())
    })
    .await;
    eventually("it lands", async || {
        let there = api.get(name).await.map_err(|e| e.to_string())?;
        if is_bound(&there) { Ok(()) } else { Err("it waits".to_owned()) }
    })
    .await;
    api.delete(name, &DeleteParams::default().grace_period(0)).await.expect("it was there");
}
