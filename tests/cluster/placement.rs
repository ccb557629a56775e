//! The nodes of daemon pods that the warden gives to the default scheduler.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, NEVER, NodeOptions, TestNamespace, Warden, WardenOptions, consistently, describe,
    eventually, is_bound, node_of,
};

type SharedNamespace = TestNamespace<&'static ControlPlane>;

async fn with_warden(name: &str) -> (SharedNamespace, Warden) {
    let namespace = TestNamespace::shared(name).await;
    let warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Fail").await;
    (namespace, warden)
}

/// Returns the template change that sets the node name. Without the warden no scheduler sees such a pod.
fn bound_to(node: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "nodeName": node } } } })
}

/// Returns the scheduler that bound the pod, from its `Scheduled` Event; `None` if a controller set the node name.
async fn scheduled_by(namespace: &SharedNamespace, pod: &Pod) -> Option<String> {
    let of_pod = format!("involvedObject.name={},reason=Scheduled", pod.name_any());
    let events = namespace.api::<Event>().list(&ListParams::default().fields(&of_pod)).await.unwrap();
    events.items.into_iter().find_map(|event| event.reporting_component)
}

async fn assert_scheduled_by_default_scheduler(namespace: &SharedNamespace, pod: &Pod) {
    eventually("the default scheduler says that it placed the pod", async || {
        match scheduled_by(namespace, pod).await {
            Some(who) if who == "default-scheduler" => Ok(()),
            who => Err(format!("{who:?}")),
        }
    })
    .await;
}

/// Creates four pods of 1 CPU, which fill a node of 4 CPU.
async fn fill(namespace: &SharedNamespace, class: &str) {
    for number in 1..=4 {
        let of_class =
            json!({ "metadata": { "labels": { "app": "filler" } }, "spec": { "priorityClassName": class } });
        namespace.create(&namespace.pod(&format!("filler-{number}"), "1", of_class)).await;
    }
    namespace.bound("filler", 4).await;
}

async fn assert_pending(namespace: &SharedNamespace, app: &str) {
    consistently(Duration::from_secs(4), &format!("the pod of {app} waits"), async || {
        let pods = namespace.pods(app).await;
        if pods.iter().any(is_bound) { Err(describe(&pods)) } else { Ok(()) }
    })
    .await;
    assert_eq!(namespace.pods(app).await.len(), 1, "one pod, and it waits");
}

#[tokio::test]
async fn a_node_bound_daemon_pod_is_placed_by_the_default_scheduler() {
    let (namespace, _warden) = with_warden("node-bound").await;
    let node = namespace.node().await;
    namespace.create(&namespace.daemon_set("agent", bound_to(&node))).await;
    namespace.settled("agent", 1).await;
    let pods = namespace.bound("agent", 1).await;
    assert_eq!(node_of(&pods[0]), Some(&*node));
    assert_scheduled_by_default_scheduler(&namespace, &pods[0]).await;
    assert_eq!(namespace.recorder.created_by("agent"), 1);
}

/// The control of the test above: without the warden no scheduler sees such a pod, and none can preempt for it.
#[tokio::test]
async fn without_the_warden_the_scheduler_never_sees_it() {
    let namespace = TestNamespace::shared("unwarded").await;
    let node = namespace.node().await;
    namespace.create(&namespace.daemon_set("agent", bound_to(&node))).await;
    let pods = namespace.bound("agent", 1).await;
    assert_eq!(scheduled_by(&namespace, &pods[0]).await, None);
}

#[tokio::test]
async fn a_full_node_of_lower_priority_loses_exactly_one_pod() {
    let (namespace, _warden) = with_warden("preempts").await;
    let node = namespace.node().await;
    let (low, high) =
        (namespace.priority_class("low", 100).await, namespace.priority_class("high", 1000).await);
    fill(&namespace, &low).await;
    let mut urgent = bound_to(&node);
    urgent["spec"]["template"]["spec"]["priorityClassName"] = json!(high);
    namespace.create(&namespace.daemon_set("agent", urgent)).await;
    namespace.settled("agent", 1).await;
    eventually("one pod is preempted", async || match namespace.recorder.preempted().len() {
        1 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    namespace.bound("filler", 3).await;
    assert_eq!(namespace.recorder.preempted().len(), 1);
    assert_eq!(namespace.recorder.created_by("agent"), 1);
}

#[tokio::test]
async fn a_full_node_of_equal_priority_makes_it_wait() {
    let (namespace, _warden) = with_warden("equal").await;
    let node = namespace.node().await;
    let class = namespace.priority_class("same", 100).await;
    fill(&namespace, &class).await;
    let mut equal = bound_to(&node);
    equal["spec"]["template"]["spec"]["priorityClassName"] = json!(class);
    namespace.create(&namespace.daemon_set("agent", equal)).await;
    eventually("the pod exists", async || {
        if namespace.pods("agent").await.len() == 1 { Ok(()) } else { Err("no pod".to_owned()) }
    })
    .await;
    assert_pending(&namespace, "agent").await;

    namespace.delete::<Pod>("filler-1").await;
    namespace.settled("agent", 1).await;
    assert!(namespace.recorder.preempted().is_empty());
    assert_eq!(namespace.recorder.created_by("agent"), 1);
}

/// The scheduler name that controllers used before Kubernetes 1.12. No scheduler has this name.
#[tokio::test]
async fn the_legacy_scheduler_name_is_replaced() {
    let (namespace, _warden) = with_warden("legacy").await;
    let node = namespace.node().await;
    let mut legacy = bound_to(&node);
    legacy["spec"]["template"]["spec"]["schedulerName"] = json!("kubernetes.io/daemonset-controller");
    namespace.create(&namespace.daemon_set("agent", legacy)).await;
    namespace.settled("agent", 1).await;
    let pods = namespace.bound("agent", 1).await;
    assert_eq!(pods[0].spec.as_ref().unwrap().scheduler_name.as_deref(), Some("default-scheduler"));
    assert_scheduled_by_default_scheduler(&namespace, &pods[0]).await;
}

#[tokio::test]
async fn a_cordoned_node_gets_its_daemon_pod() {
    let (namespace, _warden) = with_warden("cordoned").await;
    let node = namespace.node().await;
    namespace.kubectl.succeed(&["cordon", &node]).await;
    eventually("the node is tainted", async || {
        let taints =
            namespace.kubectl.succeed(&["get", "node", &node, "-o", "jsonpath={.spec.taints[*].key}"]).await;
        if taints.contains("node.kubernetes.io/unschedulable") { Ok(()) } else { Err(taints) }
    })
    .await;
    namespace.create(&namespace.daemon_set("agent", json!({}))).await;
    namespace.create(&namespace.daemon_set("bound", bound_to(&node))).await;
    namespace.create(&namespace.pod("plain", "100m", json!({}))).await;
    namespace.settled("agent", 1).await;
    namespace.settled("bound", 1).await;
    assert_pending(&namespace, "plain").await;
}

#[tokio::test]
async fn a_node_that_is_not_ready_gets_only_the_pod_that_tolerates_it() {
    let (namespace, _warden) = with_warden("not-ready").await;
    let not_ready = NodeOptions { ready_after: Some(NEVER), ..NodeOptions::default() };
    let node = namespace.nodes(1, 1, &not_ready).await.remove(0);
    let tolerant = json!({ "spec": { "template": { "spec": { "tolerations": [
        { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule" },
    ] } } } });
    namespace.create(&namespace.daemon_set("tolerant", tolerant)).await;
    namespace.create(&namespace.daemon_set("intolerant", json!({}))).await;
    let pods = namespace.bound("tolerant", 1).await;
    assert_eq!(node_of(&pods[0]), Some(&*node));
    consistently(Duration::from_secs(4), "the other has no pod there", async || {
        let pods = namespace.pods("intolerant").await;
        if pods.is_empty() { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
}
