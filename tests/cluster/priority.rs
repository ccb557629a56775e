//! The default priority class: for the pods of trusted controllers, and for nobody who only says so.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::{TestNamespace, Warden, WardenOptions, object, owned_by_daemon_set};

fn class_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.priority_class_name.clone()
}

#[tokio::test]
async fn trusted_controllers_get_the_default_class_and_forgers_do_not() {
    let arena = TestNamespace::shared("priority").await;
    arena.node().await;
    let class = arena.priority_class("agents", 1000).await;
    let config = json!({ "admission": { "defaultPriorityClassName": class } });
    let kubeconfig = Some(arena.warden_kubeconfig().await);
    let config = arena.holding_here(config);
    let warden = Warden::start(WardenOptions { config, kubeconfig }).await;
    arena.register(&warden, "Fail").await;

    arena.create(&arena.daemon_set("agent", json!({}))).await;
    arena.settled("agent", 1).await;
    let pods = arena.bound("agent", 1).await;
    assert_eq!(class_of(&pods[0]), Some(class.clone()));
    assert_eq!(pods[0].spec.as_ref().unwrap().priority, Some(1000));

    let edit: RoleBinding = object(json!({
        "metadata": { "name": "developer" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "developer" }],
    }));
    arena.create(&edit).await;
    let uid = arena.api::<k8s_openapi::api::apps::v1::DaemonSet>().get("agent").await.unwrap().uid().unwrap();
    let forged =
        serde_json::to_string(&arena.pod("forged", "100m", owned_by_daemon_set("agent", &uid))).unwrap();
    let outcome = arena
        .kubectl_as("developer")
        .run_with_input(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &forged)
        .await;
    assert!(outcome.success, "{outcome:?}");
    let pod: Pod = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((class_of(&pod), pod.spec.unwrap().priority), (None, Some(0)));

    // A class of its own stays.
    let other = arena.priority_class("own", 500).await;
    let own: Value = json!({ "spec": { "template": { "spec": { "priorityClassName": other } } } });
    arena.create(&arena.daemon_set("modest", own)).await;
    arena.settled("modest", 1).await;
    assert_eq!(class_of(&arena.bound("modest", 1).await[0]), Some(other));
}
