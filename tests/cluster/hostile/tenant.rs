//! A tenant with the ClusterRole `edit` in one namespace, who wants others' pods to wait.

mod deeds;
pub(crate) mod forgery;
mod templates;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::task::JoinHandle;

use super::dice::Dice;
use super::probe;
use super::tally::Tally;
use crate::harness::{ControlPlane, TestNamespace, object};
use deeds::Deed;
use templates::Template;

/// The longest pause between two deeds, in milliseconds.
const PAUSE: u64 = 600;

/// The running attack of a tenant.
pub(super) struct Tenant {
    is_over: Arc<AtomicBool>,
    attack: JoinHandle<Tally>,
}

/// The means of a tenant.
struct Means {
    client: Client,
    namespace: String,
    daemon_sets: Api<DaemonSet>,
    pods: Api<Pod>,
    /// The templates of each pool: the others' nodes, and the probe's.
    templates: Vec<(Template, usize, DaemonSet)>,
    /// The DaemonSets of the others, for their names and UIDs. A tenant reads those from Events and annotations on Nodes.
    others: Api<DaemonSet>,
    /// The scheduler that serves the run.
    scheduler: String,
    /// The probe's node.
    node: String,
}

impl Tenant {
    /// Begins, against the namespace `others`, which has a probe.
    pub(super) async fn start(
        own: &TestNamespace<&'static ControlPlane>,
        others: &TestNamespace<&'static ControlPlane>,
        dice: &mut Dice,
    ) -> Self {
        // One of most templates' pods, and some small ones.
        let quota = json!({ "metadata": { "name": "small" }, "spec": { "hard": { "pods": "20", "requests.cpu": "1" } } });
        own.create::<ResourceQuota>(&object(quota)).await;
        let claim = json!({
            "metadata": { "name": templates::UNBOUND_CLAIM },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": { "requests": { "storage": "1Gi" } },
            },
        });
        own.create::<PersistentVolumeClaim>(&object(claim)).await;
        let client = client(own).await;
        let scheduler = others.name.clone();
        let pools = [others.name.clone(), probe::pool(&others.name)];
        let mut all = Vec::new();
        for template in Template::ALL {
            for (number, pool) in pools.iter().enumerate() {
                let change = template.change(pool, number == 1, &scheduler);
                let mut daemon_set = own.daemon_set("d", change);
                daemon_set.metadata.name = Some(template.name_on(number));
                all.push((template, number, daemon_set));
            }
        }
        let means = Means {
            daemon_sets: Api::namespaced(client.clone(), &own.name),
            pods: Api::namespaced(client.clone(), &own.name),
            client,
            namespace: own.name.clone(),
            templates: all,
            others: others.api(),
            scheduler,
            node: pools[1].clone(),
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, mut dice) = (is_over.clone(), dice.split());
        let attack = tokio::spawn(async move {
            let mut tally = Tally::default();
            // A pod that waits for a scheduler that nobody serves: room is held for it until the budget is spent.
            let first = Deed::Create(Template::OtherScheduler, 1);
            tally.count(first.name(), means.commit(first, &mut dice).await);
            loop {
                let mut deeds = Deed::all();
                dice.shuffle(&mut deeds);
                for deed in deeds {
                    if over.load(Ordering::Relaxed) {
                        return tally;
                    }
                    tally.count(deed.name(), means.commit(deed, &mut dice).await);
                    tokio::time::sleep(Duration::from_millis(dice.below(PAUSE))).await;
                }
            }
        });
        Self { is_over, attack }
    }

    /// Ends the attack.
    pub(super) async fn stop(self) -> Tally {
        self.is_over.store(true, Ordering::Relaxed);
        self.attack.await.expect("no panic")
    }
}

/// Returns the kinds of deeds.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    Deed::all().into_iter().map(Deed::name)
}

/// Gives the user `developer` the ClusterRole `edit` in the namespace. Returns a client of that user which may use it.
pub(crate) async fn client<P>(namespace: &TestNamespace<P>) -> Client
where
    P: std::ops::Deref<Target = ControlPlane>,
{
    let edit: RoleBinding = object(json!({
        "metadata": { "name": "tenant" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "developer" }],
    }));
    namespace.create(&edit).await;
    let file = Kubeconfig::read_from(namespace.plane.kubeconfig_of("developer")).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("usable");
    let client = Client::try_from(config).expect("a client");
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), &namespace.name);
    crate::harness::eventually("the tenant has its role", async || {
        daemon_sets.list(&Default::default()).await.map_err(|e| e.to_string())
    })
    .await;
    client
}
