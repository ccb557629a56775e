//! The webhooks as a real apiserver calls them: the requests that reach them, and the effect of their responses.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::harness::{
    HttpsServer, TestNamespace, Warden, WardenOptions, eventually, mutating_webhook, owned_by_daemon_set,
};

#[tokio::test]
async fn only_daemon_pods_and_daemon_sets_reach_the_warden() {
    let namespace = TestNamespace::shared("reach").await;
    let node = namespace.node().await;
    let warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Fail").await;
    let webhook = "reach-warden";
    let before = (namespace.mutating_calls(webhook).await, namespace.validating_calls().await);

    namespace.create(&namespace.deployment("web", 2, "100m", json!({}))).await;
    namespace.bound("web", 2).await;
    namespace.create(&namespace.pod("plain", "100m", json!({}))).await;
    let mirror = json!({
        "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } },
        "spec": { "nodeName": node },
    });
    namespace.create(&namespace.pod("mirror", "100m", mirror)).await;
    let mut mirror_of_daemon_set = owned_by_daemon_set("gone", "00000000");
    mirror_of_daemon_set["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
    mirror_of_daemon_set["spec"] = json!({ "nodeName": node });
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    namespace
        .api()
        .create(&dry_run, &namespace.pod("mirror-too", "100m", mirror_of_daemon_set))
        .await
        .unwrap();
    let mut guest = owned_by_daemon_set("gone", "00000000");
    guest["metadata"]["ownerReferences"][0]["controller"] = json!(false);
    namespace.api().create(&dry_run, &namespace.pod("guest", "100m", guest)).await.unwrap();
    namespace.kubectl.succeed(&["delete", "pod", "plain", "--wait=false"]).await;
    let after = (namespace.mutating_calls(webhook).await, namespace.validating_calls().await);
    assert_eq!(
        after, before,
        "the apiserver sends no Deployments, plain pods, mirror pods or pods that a DaemonSet owns without controlling them"
    );

    namespace.create(&namespace.daemon_set("agent", json!({}))).await;
    namespace.settled("agent", 1).await;
    let after = (namespace.mutating_calls(webhook).await, namespace.validating_calls().await);
    assert_eq!(
        after,
        (before.0, before.1 + 1),
        "one DaemonSet; its status updates do not count, and its pod lacks nothing"
    );
    let bound = json!({ "spec": { "template": { "spec": { "nodeName": node } } } });
    namespace.create(&namespace.daemon_set("bound", bound)).await;
    namespace.settled("bound", 1).await;
    assert_eq!(namespace.mutating_calls(webhook).await, before.0 + 1, "a pod that its controller bound");
}

#[tokio::test]
async fn a_dry_run_is_answered_and_leaves_nothing() {
    let namespace = TestNamespace::shared("dry-run").await;
    let node = namespace.node().await;
    let warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Fail").await;

    let mut pod = owned_by_daemon_set("agent", "00000000");
    pod["spec"] = json!({ "nodeName": node });
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let pod: Pod = namespace.api().create(&dry_run, &namespace.pod("agent-x", "100m", pod)).await.unwrap();
    assert_eq!(pod.spec.as_ref().unwrap().node_name, None, "given to the scheduler");
    assert_eq!(names_of_required_terms(&pod), [node]);

    let manifest = serde_json::to_string(&namespace.daemon_set("agent", json!({}))).unwrap();
    let applied =
        namespace.kubectl.run_with_input(&["apply", "--dry-run=server", "-f", "-"], &manifest).await;
    assert!(applied.success, "{applied:?}");
    assert!(applied.stdout.contains("daemonset.apps/agent created (server dry run)"), "{applied:?}");
    assert!(namespace.pods("agent").await.is_empty());
    assert_eq!(namespace.kubectl.succeed(&["get", "daemonsets", "-o", "name"]).await, "");
}

#[tokio::test]
async fn warnings_are_what_kubectl_prints() {
    let namespace = TestNamespace::shared("warnings").await;
    let warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Fail").await;
    let node_bound = json!({ "spec": { "template": { "spec": { "nodeName": "somewhere" } } } });
    let manifest = serde_json::to_string(&namespace.daemon_set("bound", node_bound)).unwrap();
    let applied = namespace.kubectl.apply(&manifest).await;
    assert!(applied.success, "{applied:?}");
    let warnings: Vec<_> = applied.stderr.lines().filter(|line| line.starts_with("Warning: ")).collect();
    assert!(warnings.iter().any(|warning| warning.contains("spec.template.spec.nodeName")), "{applied:?}");
    assert!(warnings.iter().all(|warning| warning.len() <= "Warning: ".len() + 256), "{applied:?}");
}

/// Another webhook, called after the warden's, reverts the warden's patch: the apiserver calls the warden again, which
/// patches the pod again.
#[tokio::test]
async fn a_second_mutating_webhook_has_the_warden_called_again() {
    let namespace = TestNamespace::shared("reinvocation").await;
    let node = namespace.node().await;
    let warden = Warden::start(WardenOptions::default()).await;
    let foreign = HttpsServer::start(mutating_webhook(widen)).await;
    namespace.register_mutating("reinvocation-1-warden", &warden, "Fail").await;
    let second = "reinvocation-2-foreign";
    namespace.register_foreign(second, &format!("{}/mutate", foreign.url), &foreign.ca).await;

    let before = namespace.mutating_calls("reinvocation-1-warden").await;
    let bound = json!({ "spec": { "template": { "spec": { "nodeName": node } } } });
    namespace.create(&namespace.daemon_set("agent", bound)).await;
    namespace.settled("agent", 1).await;
    let pods = namespace.bound("agent", 1).await;
    let affinity = pods[0].spec.as_ref().unwrap().affinity.as_ref().unwrap().node_affinity.as_ref().unwrap();
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref().unwrap();
    assert_eq!(required.node_selector_terms.len(), 1, "{required:?}");
    assert_eq!(names_of_required_terms(&pods[0]), [node]);
    assert_eq!(namespace.mutating_calls("reinvocation-1-warden").await - before, 2, "once, and once again");
    assert_eq!(namespace.recorder.created_by("agent"), 1);
    // The label that the other webhook added is still there: the warden does not change labels.
    assert_eq!(pods[0].labels().get("foreign").map(String::as_str), Some("true"));
}

/// Returns a patch, once a pod, that allows every node beside the pod's own, as a careless policy would.
fn widen(pod: &Value) -> Vec<Value> {
    let terms =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    if pod["metadata"]["labels"].get("foreign").is_some() || pod.pointer(terms).is_none() {
        return Vec::new();
    }
    let anywhere = json!({ "matchExpressions": [{ "key": "kubernetes.io/os", "operator": "Exists" }] });
    vec![
        json!({ "op": "add", "path": "/metadata/labels/foreign", "value": "true" }),
        json!({ "op": "add", "path": format!("{terms}/0"), "value": anywhere }),
    ]
}

/// With `failurePolicy: Ignore` and no warden, the apiserver admits everything unchanged.
#[tokio::test]
async fn a_dead_warden_blocks_nothing() {
    let namespace = TestNamespace::shared("dead-webhooks").await;
    let node = namespace.node().await;
    let mut warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Ignore").await;
    warden.kill();
    namespace.create(&namespace.daemon_set("orphan", json!({}))).await;
    namespace.settled("orphan", 1).await;
    let bound = json!({ "spec": { "template": { "spec": { "nodeName": node } } } });
    namespace.create(&namespace.daemon_set("bound", bound.clone())).await;
    namespace.settled("bound", 1).await;

    warden.restart();
    namespace.create(&namespace.daemon_set("again", bound)).await;
    eventually("the warden is asked again", async || {
        let asked =
            warden.metric("daemonset_warden_admission_requests_total", &[("webhook", "mutate")]).await;
        if asked > 0.0 { Ok(()) } else { Err(warden.log()) }
    })
    .await;
    namespace.settled("again", 1).await;
}

/// Returns the node names of the required node affinity, in order.
fn names_of_required_terms(pod: &Pod) -> Vec<String> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = required.map(|selector| selector.node_selector_terms.clone()).unwrap_or_default();
    terms
        .into_iter()
        .flat_map(|term| term.match_fields.unwrap_or_default())
        .filter(|field| field.key == "metadata.name")
        .flat_map(|field| field.values.unwrap_or_default())
        .collect()
}
