//! A tenant with the ClusterRole `edit` in one namespace, who wants others' pods to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::Dice;
use crate::harness::{ControlPlane, POOL, TestNamespace, object};

/// The running attack of a tenant.
pub(super) struct Tenant {
    is_over: Arc<AtomicBool>,
    attack: JoinHandle<u64>,
}

impl Tenant {
    /// Begins. `pool` names the nodes of the others; the probe's node is in a pool of its own.
    pub(super) async fn start(
        namespace: &TestNamespace<&'static ControlPlane>,
        pool: &str,
        mut dice: Dice,
    ) -> Self {
        let quota = json!({ "metadata": { "name": "small" }, "spec": { "hard": { "pods": "5", "requests.cpu": "1" } } });
        namespace.create::<ResourceQuota>(&object(quota)).await;
        let edit: RoleBinding = object(json!({
            "metadata": { "name": "tenant" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "developer" }],
        }));
        namespace.create(&edit).await;
        let client = client(namespace).await;
        let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), &namespace.name);
        let pods: Api<Pod> = Api::namespaced(client, &namespace.name);
        let pools = [pool.to_owned(), format!("{pool}-probe")];
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let template = |kind: u64, pool: &str| namespace.daemon_set("d", change(kind, pool, &namespace.name));
        let templates: Vec<DaemonSet> = (0..KINDS)
            .flat_map(|kind| pools.iter().map(move |pool| (kind, pool)))
            .map(|(kind, pool)| template(kind, pool))
            .collect();
        let attack = tokio::spawn(async move {
            let mut done = 0_u64;
            while !over.load(Ordering::Relaxed) {
                let number = usize::try_from(dice.below(templates.len() as u64)).unwrap();
                let mut daemon_set = templates[number].clone();
                let name = format!("d-{number}");
                daemon_set.metadata.name = Some(name.clone());
                match dice.below(4) {
                    // The apiserver may refuse any of it.
                    0 => drop(daemon_sets.delete(&name, &DeleteParams::default()).await),
                    1 => {
                        let change = json!({ "spec": { "template": { "metadata": { "annotations": { "changed": format!("{done}") } } } } });
                        drop(daemon_sets.patch(&name, &PatchParams::default(), &Patch::Merge(&change)).await);
                    }
                    2 => drop(
                        pods.delete_collection(
                            &DeleteParams::default().grace_period(0),
                            &ListParams::default(),
                        )
                        .await,
                    ),
                    _ => drop(daemon_sets.create(&PostParams::default(), &daemon_set).await),
                }
                done += 1;
                tokio::time::sleep(Duration::from_millis(100 + dice.below(900))).await;
            }
            done
        });
        Self { is_over, attack }
    }

    /// Ends the attack. Returns the number of its steps.
    pub(super) async fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.attack.await.expect("no panic")
    }
}

/// The kinds of DaemonSets whose pods cannot exist or cannot be scheduled.
const KINDS: u64 = 9;

fn change(kind: u64, pool: &str, scheduler: &str) -> Value {
    let cpu = |amount: &str| json!([{ "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": amount } } }]);
    let mut spec = json!({ "nodeSelector": { POOL: pool }, "schedulerName": "default-scheduler" });
    let more = match kind {
        0 => json!({ "priority": 1_999_999_999, "containers": cpu("3900m") }),
        1 => json!({ "containers": cpu("3900m") }),
        2 => json!({ "priorityClassName": "nobody", "containers": cpu("3900m") }),
        3 => json!({ "serviceAccountName": "nobody", "containers": cpu("3900m") }),
        4 => json!({ "schedulingGates": [{ "name": "example.test/gate" }], "containers": cpu("900m") }),
        5 => json!({
            "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "missing" } }], "containers": cpu("900m"),
        }),
        6 => json!({
            "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                { "labelSelector": { "matchLabels": { "nobody": "here" } }, "topologyKey": "kubernetes.io/hostname" },
            ] } },
            "containers": cpu("900m"),
        }),
        7 => json!({ "schedulerName": format!("{scheduler}-nobody"), "containers": cpu("900m") }),
        _ => {
            let ports: Vec<Value> =
                (1..5_000).map(|port| json!({ "containerPort": port, "hostPort": port })).collect();
            let mut containers = cpu("900m");
            containers[0]["ports"] = ports.into();
            json!({ "containers": containers })
        }
    };
    json_patch::merge(&mut spec, &more);
    json!({ "spec": { "template": { "spec": spec } } })
}

async fn client(namespace: &TestNamespace<&'static ControlPlane>) -> Client {
    let file = Kubeconfig::read_from(namespace.plane.kubeconfig_of("developer")).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("usable");
    Client::try_from(config).expect("a client")
}
