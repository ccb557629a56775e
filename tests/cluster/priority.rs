//! The default priority class: pods of trusted controllers get it, and pods with a forged owner reference do not.

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
    let namespace = TestNamespace::shared("priority").await;
    namespace.node().await;
    let class = namespace.priority_class("agents", 1000).await;
    let config = json!({ "admission": { "defaultPriorityClassName": class } });
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let config = namespace.holding_here(config);
    let warden = Warden::start(WardenOptions { config, kubeconfig }).await;
    namespace.register(&warden, "Fail").await;

    namespace.create(&namespace.daemon_set("agent", json!({}))).await;
    namespace.settled("agent", 1).await;
    let pods = namespace.bound("agent", 1).await;
    assert_eq!(class_of(&pods[0]), Some(class.clone()));
    assert_eq!(pods[0].spec.as_ref().unwrap().priority, Some(1000));

    let edit: RoleBinding = object(json!({
        "metadata": { "name": "developer" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "developer" }],
    }));
    namespace.create(&edit).await;
    let uid =
        namespace.api::<k8s_openapi::api::apps::v1::DaemonSet>().get("agent").await.unwrap().uid().unwrap();
    let forged =
        serde_json::to_string(&namespace.pod("forged", "100m", owned_by_daemon_set("agent", &uid))).unwrap();
    let outcome = namespace
        .kubectl_as("developer")
        .run_with_input(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &forged)
        .await;
    assert!(outcome.success, "{outcome:?}");
    let pod: Pod = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((class_of(&pod), pod.spec.unwrap().priority), (None, Some(0)));

    // A pod keeps the class of its template.
    let other = namespace.priority_class("own", 500).await;
    let own: Value = json!({ "spec": { "template": { "spec": { "priorityClassName": other } } } });
    namespace.create(&namespace.daemon_set("modest", own)).await;
    namespace.settled("modest", 1).await;
    assert_eq!(class_of(&namespace.bound("modest", 1).await[0]), Some(other));
}
