//! Objects that pose as another's.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::harness::object;

/// Creates an Event in the tenant's namespace that reports a failure of another's DaemonSet, by its UID and its name, in the year
/// 9999.
pub(crate) async fn failed_create(client: &Client, namespace: &str, other: &DaemonSet) -> Result<(), String> {
    let event: Event = object(json!({
        "metadata": { "generateName": "forged-" },
        "involvedObject": {
            "apiVersion": "apps/v1", "kind": "DaemonSet", "namespace": namespace, "name": other.name_any(), "uid": other.uid(),
        },
        "reason": "FailedCreate", "type": "Warning", "message": "forged",
        "firstTimestamp": "9999-01-01T00:00:00Z", "lastTimestamp": "9999-01-01T00:00:00Z", "count": 1,
        "source": { "component": "daemonset-controller" },
    }));
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &event).await.map(drop).map_err(|e| e.to_string())
}

/// Returns a pod that names a DaemonSet of the tenant, with the selector `app: d`, as its controller, for one node.
pub(crate) fn owned_pod(name: &str, owner: &DaemonSet, node: &str, scheduler: &str, cpu: &str) -> Pod {
    let expression = json!({ "key": "metadata.name", "operator": "In", "values": [node] });
    let terms = json!({ "nodeSelectorTerms": [{ "matchFields": [expression] }] });
    let mut pod: Value = json!({
        "metadata": {
            "name": name,
            "labels": { "app": "d" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "DaemonSet", "name": owner.name_any(), "uid": owner.uid(),
                "controller": true,
            }],
        },
        "spec": {
            "schedulerName": scheduler,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": cpu } },
            }],
        },
    });
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = terms;
    object(pod)
}
