//! Nomination: the scheduler counts the room that the warden holds for a daemon pod that it has failed.
//!
//! These tests use their own control planes: on the shared one the wardens of other tests would nominate their pods, too.

mod steering;

use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use daemonset_warden::reservation::cluster_write::Nomination;

use crate::harness::{
    ControlPlane, Extender, GONE_AFTER, SchedulerOptions, TestExtender, TestNamespace, Warden, WardenOptions,
    consistently, describe, eventually, eventually_within, is_bound, node_of,
};

/// The longest time from the failed attempt to the nomination.
const NOMINATED_WITHIN: Duration = Duration::from_secs(3);
/// A time in which a wrong nomination would happen.
const A_WHILE: Duration = Duration::from_secs(5);
/// The timeout of an extender call. With other tests on two cores a call can take more than 300 ms; then the scheduler goes on
/// without the extender, and the test proves nothing.
const TIMEOUT: &str = "5s";

fn plane() -> &'static ControlPlane {
    static PLANE: OnceLock<ControlPlane> = OnceLock::new();
    PLANE.get_or_init(|| ControlPlane::start("nomination"))
}

async fn new_namespace(name: &str) -> TestNamespace<&'static ControlPlane> {
    TestNamespace::on(tokio::task::spawn_blocking(plane).await.unwrap(), name).await
}

/// Starts a warden that holds room only in the test's namespace, while the Namespace has the label `holds: yes`.
async fn warden(namespace: &TestNamespace<&'static ControlPlane>, mut reservation: Value) -> Warden {
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let own = json!({ "kubernetes.io/metadata.name": namespace.name, "holds": "yes" });
    reservation["namespaceSelector"] = json!({ "matchLabels": own });
    Warden::start(WardenOptions { config: json!({ "reservation": reservation }), kubeconfig }).await
}

fn asks(warden: &Warden) -> SchedulerOptions {
    let extender = Extender { preempts: true, http_timeout: TIMEOUT, ..warden.extender() };
    SchedulerOptions { extenders: vec![extender], ..SchedulerOptions::default() }
}

async fn label_namespace(namespace: &TestNamespace<&'static ControlPlane>, holds: Value) {
    let api: Api<Namespace> = Api::all(namespace.client.clone());
    let labels = json!({ "metadata": { "labels": { "holds": holds } } });
    api.patch(&namespace.name, &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
}

/// Starts a scheduler that calls the warden, and creates one node with 500m left of 4 CPU.
async fn nearly_full(name: &str, reservation: Value) -> (TestExtender, String) {
    let namespace = new_namespace(name).await;
    label_namespace(&namespace, json!("yes")).await;
    let warden = warden(&namespace, reservation).await;
    let options = asks(&warden);
    let test = TestExtender::with(namespace, warden, options).await;
    let node = test.namespace.node().await;
    filler(&test, "filler", json!({})).await;
    (test, node)
}

/// Creates a pod of 3500m, and waits until it is bound.
async fn filler(test: &TestExtender, name: &str, changes: Value) {
    let mut pod = json!({ "spec": { "schedulerName": test.namespace.name } });
    json_patch::merge(&mut pod, &changes);
    test.namespace.create(&test.namespace.pod(name, "3500m", pod)).await;
    test.namespace.bound(name, 1).await;
}

fn nominated_node(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref()
}

fn has_failed(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "PodScheduled" && c.status == "False"))
}

async fn nominated(test: &TestExtender, app: &str, count: usize) {
    eventually_within(NOMINATED_WITHIN, &format!("{count} pods of {app} are nominated"), async || {
        let pods = test.namespace.pods(app).await;
        match pods.iter().filter(|pod| nominated_node(pod).is_some()).count() {
            nominated if nominated == count => Ok(()),
            nominated => Err(format!("{nominated} are; {}", describe(&pods))),
        }
    })
    .await;
}

async fn failed(test: &TestExtender, app: &str, count: usize) {
    eventually(&format!("the scheduler has failed {count} pods of {app}"), async || {
        let pods = test.namespace.pods(app).await;
        let failed = pods.iter().filter(|pod| has_failed(pod)).count();
        if failed == count { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
}

async fn nobody_is_nominated(test: &TestExtender, app: &str) {
    consistently(A_WHILE, &format!("no pod of {app} is nominated"), async || {
        let pods = test.namespace.pods(app).await;
        match pods.iter().find_map(nominated_node) {
            None => Ok(()),
            Some(node) => Err(format!("one is nominated to {node}")),
        }
    })
    .await;
}

async fn written(warden: &Warden, outcome: &str) -> f64 {
    let labels = [("kind", "nomination"), ("outcome", outcome)];
    warden.metric("daemonset_warden_cluster_writes_total", &labels).await
}

#[tokio::test]
async fn a_daemon_pod_that_the_scheduler_failed_is_nominated_until_its_hold_ends() {
    let (test, node) = nearly_full("nominated", json!({})).await;
    test.daemon_set("agent", "800m", json!({})).await;
    failed(&test, "agent", 1).await;
    nominated(&test, "agent", 1).await;
    let pod = test.namespace.pods("agent").await.remove(0);
    assert_eq!(nominated_node(&pod), Some(node.as_str()));
    assert!(written(&test.warden, "done").await >= 1.0);

    // The scheduler tries the pod again, fails and clears the nomination: the warden nominates it again.
    let writes = written(&test.warden, "done").await;
    test.namespace.create(&test.namespace.pod("other", "10m", json!({ "spec": { "nodeName": node } }))).await;
    test.namespace.delete::<Pod>("other").await;
    eventually("the nomination is renewed", async || match written(&test.warden, "done").await {
        more if more > writes => Ok(()),
        same => Err(format!("{same} writes")),
    })
    .await;
    nominated(&test, "agent", 1).await;

    label_namespace(&test.namespace, json!("no")).await;
    the_nomination_is_taken_back(&test).await;
    nobody_is_nominated(&test, "agent").await;
    eventually("it is not counted any more", async || {
        match test.warden.metric("daemonset_warden_nominated_pods", &[]).await {
            0.0 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let cleared = [("kind", "clear_nomination"), ("outcome", "done")];
    assert!(test.warden.metric("daemonset_warden_cluster_writes_total", &cleared).await >= 1.0);
    assert_eq!(written(&test.warden, "failed").await, 0.0, "{}", test.warden.log());
}

async fn the_nomination_is_taken_back(test: &TestExtender) {
    eventually_within(NOMINATED_WITHIN, "the nomination is taken back", async || {
        match nominated_node(&test.namespace.pods("agent").await[0]) {
            None => Ok(()),
            Some(node) => Err(node.to_owned()),
        }
    })
    .await;
}

#[tokio::test]
async fn the_schedulers_own_nomination_is_left_alone() {
    let (test, node) = nearly_full("preempting", json!({})).await;
    let victim = json!({ "metadata": { "annotations": { GONE_AFTER: "6s" } } });
    test.namespace.delete::<Pod>("filler").await;
    filler(&test, "slow-filler", victim).await;
    let class = test.namespace.priority_class("agents", 1000).await;
    test.daemon_set("agent", "800m", json!({ "priorityClassName": class })).await;
    nominated(&test, "agent", 1).await;
    // The hold ends while the victim is still terminating.
    label_namespace(&test.namespace, json!("no")).await;
    consistently(Duration::from_secs(3), "the scheduler's nomination stands", async || match nominated_node(
        &test.namespace.pods("agent").await[0],
    ) {
        Some(at) if *at == node => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    test.namespace.bound("agent", 1).await;
    assert_eq!(written(&test.warden, "done").await, 0.0);
}

/// The warden nominates the pod first; then the scheduler preempts for it on the same node.
#[tokio::test]
async fn a_nomination_that_a_preemption_stands_on_is_left_alone() {
    let namespace = new_namespace("preempting-late").await;
    label_namespace(&namespace, json!("yes")).await;
    let warden = warden(&namespace, json!({})).await;
    let options = asks(&warden);
    let test = TestExtender::with(namespace, warden, options).await;
    let node = test.namespace.node().await;
    let class = test.namespace.priority_class("agents", 1000).await;
    let equal = json!({ "spec": { "priorityClassName": class, "schedulerName": "preempting-late" } });
    for (name, cpu) in [("large-equal", "3"), ("small-equal", "500m")] {
        test.namespace.create(&test.namespace.pod(name, cpu, equal.clone())).await;
        test.namespace.bound(name, 1).await;
    }
    test.daemon_set("agent", "800m", json!({ "priorityClassName": class })).await;
    failed_and_nominated(&test, 1).await;
    assert!(
        written(&test.warden, "done").await >= 1.0,
        "by the warden: the scheduler does not preempt pods of equal priority"
    );
    // The agent needs 800m, and 500m are free. The victim takes 400m of these, so that the agent needs its room after
    // `small-equal` has ended; its priority is lower.
    let victim = json!({ "metadata": { "annotations": { GONE_AFTER: "6s" } }, "spec": { "nodeName": node } });
    test.namespace.create(&test.namespace.pod("victim", "400m", victim)).await;
    test.namespace.bound("victim", 1).await;
    test.namespace.delete::<Pod>("small-equal").await;
    eventually("the scheduler preempts the victim", async || {
        let pods = test.namespace.pods("victim").await;
        let ends = pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
        if ends { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    label_namespace(&test.namespace, json!("no")).await;
    consistently(Duration::from_secs(3), "the nomination stands", async || {
        match nominated_node(&test.namespace.pods("agent").await[0]) {
            Some(at) if *at == node => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    test.namespace.bound("agent", 1).await;
}

/// The uid and resourceVersion in the patch make the apiserver refuse it for a pod that was changed or replaced.
#[tokio::test]
async fn a_pod_that_has_changed_or_was_replaced_is_not_patched() {
    let namespace = new_namespace("guarded").await;
    let pod_of = |name: &str| namespace.pod(name, "100m", json!({ "spec": { "schedulerName": "nobody" } }));
    let pod = namespace.create(&pod_of("waits")).await;
    let nomination = Nomination {
        namespace: "guarded".into(),
        name: "waits".into(),
        uid: pod.uid().unwrap().as_str().into(),
        resource_version: pod.resource_version().unwrap().into(),
        node: Some("elsewhere".into()),
    };
    let patch = async |nomination: &Nomination| {
        let patch = Patch::Merge(nomination.patch());
        let patched = namespace.api::<Pod>().patch_status("waits", &PatchParams::default(), &patch).await;
        patched.map_err(|error| match error {
            kube::Error::Api(status) => status.code,
            other => panic!("{other}"),
        })
    };
    let changed =
        namespace.change::<Pod>("waits", &json!({ "metadata": { "labels": { "changed": "yes" } } })).await;
    assert_eq!(patch(&nomination).await.map(drop), Err(409), "an older version");
    let version = changed.resource_version().unwrap();
    let current = Nomination { resource_version: version.as_str().into(), ..nomination.clone() };
    let patched = patch(&current).await.unwrap();
    assert_eq!(nominated_node(&patched), Some("elsewhere"));
    let version = patched.resource_version().unwrap();
    let cleared = Nomination { resource_version: version.as_str().into(), node: None, ..current };
    assert_eq!(nominated_node(&patch(&cleared).await.unwrap()), None);

    let at_once = DeleteParams::default().grace_period(0);
    namespace.api::<Pod>().delete("waits", &at_once).await.unwrap();
    namespace.create(&pod_of("waits")).await;
    assert_eq!(patch(&nomination).await.map(drop), Err(409), "another pod of the name");
}

async fn failed_and_nominated(test: &TestExtender, count: usize) {
    failed(test, "agent", count).await;
    nominated(test, "agent", count).await;
}

#[tokio::test]
async fn a_pod_of_higher_priority_preempts_on_a_node_with_a_nomination() {
    let (test, node) = nearly_full("above", json!({})).await;
    test.daemon_set("agent", "800m", json!({})).await;
    failed_and_nominated(&test, 1).await;
    let class = test.namespace.priority_class("vip", 1000).await;
    let vip = json!({ "spec": { "priorityClassName": class, "schedulerName": test.namespace.name } });
    test.namespace.create(&test.namespace.pod("vip", "3500m", vip)).await;
    let pods = test.namespace.bound("vip", 1).await;
    assert_eq!(node_of(&pods[0]), Some(node.as_str()));
    assert_eq!(test.namespace.recorder.preempted().len(), 1, "{:?}", test.namespace.recorder.preempted());
}

#[tokio::test]
async fn nothing_is_nominated_in_audit_mode_nor_where_it_is_switched_off() {
    for (name, reservation) in [("audit", json!({ "mode": "Audit" })), ("off", json!({ "nominate": false }))]
    {
        let (test, _) = nearly_full(&format!("nominate-{name}"), reservation).await;
        test.daemon_set("agent", "800m", json!({})).await;
        failed(&test, "agent", 1).await;
        nobody_is_nominated(&test, "agent").await;
        assert_eq!(test.warden.metric("daemonset_warden_nomination_permitted", &[]).await, 0.0, "{name}");
    }
}

#[tokio::test]
async fn without_the_right_it_says_so_and_the_rest_works() {
    let namespace = new_namespace("no-right").await;
    label_namespace(&namespace, json!("yes")).await;
    let kubeconfig = Some(namespace.kubeconfig_without_nomination().await);
    let own = json!({ "matchLabels": { "kubernetes.io/metadata.name": "no-right" } });
    let config = json!({ "reservation": { "namespaceSelector": own } });
    let warden = Warden::start(WardenOptions { config, kubeconfig }).await;
    let options = asks(&warden);
    let test = TestExtender::with(namespace, warden, options).await;
    test.namespace.node().await;
    filler(&test, "filler", json!({})).await;
    test.daemon_set("agent", "800m", json!({})).await;
    failed(&test, "agent", 1).await;
    nobody_is_nominated(&test, "agent").await;
    eventually("it says what is missing", async || {
        let log = test.warden.log();
        if log.contains("grant the verb patch on pods/status") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(test.warden.metric("daemonset_warden_nomination_permitted", &[]).await, 0.0);
    assert_eq!(written(&test.warden, "failed").await, 0.0, "the warden does not try to nominate");
    // The warden still holds room.
    let web = json!({ "spec": { "template": { "spec": { "schedulerName": test.namespace.name } } } });
    test.namespace.create(&test.namespace.deployment("web", 1, "300m", web)).await;
    failed(&test, "web", 1).await;
    assert!(test.warden.metric("daemonset_warden_holds_refusing_total", &[]).await >= 1.0);
}

/// With a nomination the scheduler refuses other pods by itself and does not call the warden; the hold must end all the same.
#[tokio::test]
async fn a_hold_whose_pod_is_nominated_ends_as_well() {
    the_small_pod_runs_in_the_end("ends", asks).await;
}

/// As on managed clusters, where no extender can be configured: the scheduler never calls the warden.
#[tokio::test]
async fn a_hold_whose_pod_is_nominated_ends_where_nobody_asks() {
    the_small_pod_runs_in_the_end("ends-unasked", |_| SchedulerOptions::default()).await;
}

async fn the_small_pod_runs_in_the_end(name: &str, options: impl FnOnce(&Warden) -> SchedulerOptions) {
    let namespace = new_namespace(name).await;
    label_namespace(&namespace, json!("yes")).await;
    let warden = warden(&namespace, json!({ "waitTimeout": "6s" })).await;
    let options = options(&warden);
    let test = TestExtender::with(namespace, warden, options).await;
    test.namespace.node().await;
    filler(&test, "filler", json!({})).await;
    test.daemon_set("agent", "800m", json!({})).await;
    failed_and_nominated(&test, 1).await;
    let web = json!({ "spec": { "template": { "spec": { "schedulerName": test.namespace.name } } } });
    test.namespace.create(&test.namespace.deployment("web", 1, "300m", web)).await;
    eventually_within(Duration::from_secs(30), "the small pod runs", async || {
        let pods = test.namespace.pods("web").await;
        if pods.iter().any(is_bound) { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    assert_eq!(test.namespace.pods("agent").await.iter().filter(|pod| is_bound(pod)).count(), 0);
}

#[tokio::test]
async fn two_replicas_nominate_without_harm() {
    let (test, node) = nearly_full("replicas", json!({})).await;
    let second = warden(&test.namespace, json!({})).await;
    test.daemon_set("agent", "800m", json!({})).await;
    failed_and_nominated(&test, 1).await;
    // One replica nominates, or both at the same time, and then neither again.
    tokio::time::sleep(A_WHILE).await;
    let mut writes = 0.0;
    for warden in [&test.warden, &second] {
        assert_eq!(written(warden, "failed").await, 0.0, "{}", warden.log());
        writes += written(warden, "done").await;
    }
    assert!((1.0..=3.0).contains(&writes), "{writes} writes");
    // The room becomes free, and the nominated pod gets it.
    test.namespace.delete::<Pod>("filler").await;
    let bound = test.namespace.bound("agent", 1).await;
    assert_eq!(node_of(&bound[0]), Some(node.as_str()));
}
