//! The steps of each scenario: the cluster before the event, and the event.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::scenario_run::{LONG, Outcome, Scenario, ScenarioRun};
use crate::harness::{GONE_AFTER, NodeOptions, POOL, eventually_within, node_of, object};

/// The label that the DaemonSets of [`Scenario::Labelled`] select.
const LETS_IN: &str = "daemonset-warden.test/lets-in";
/// The nodes that are emptied at once.
const EMPTIED_AT_ONCE: usize = 5;

impl ScenarioRun {
    pub(crate) async fn run(&self, scenario: Scenario) -> Outcome {
        match scenario {
            Scenario::Rollout { gone_after } => self.rollout(gone_after, None).await,
            Scenario::RolloutInQuota { gone_after } => {
                let class = self.quota_of_daemon_pods().await;
                self.rollout(gone_after, Some(&class)).await
            }
            Scenario::RolloutBesideYounger => self.rollout_beside_younger().await,
            Scenario::Surge => self.surge().await,
            Scenario::Join { ready_after } => self.join(ready_after).await,
            Scenario::Renewed => self.renewed().await,
            Scenario::Deleted { times, gone_after } => self.deleted(times, gone_after).await,
            Scenario::Emptied => self.emptied().await,
            Scenario::Late => self.late().await,
            Scenario::Labelled => self.labelled().await,
        }
    }

    async fn rollout_beside_younger(&self) -> Outcome {
        self.fill_with_small_pods("0s", None).await;
        self.namespace.create(&self.namespace.daemon_set("younger", self.by_own_scheduler())).await;
        self.namespace.pods_exist("younger", self.options.nodes).await;
        self.change_templates().await
    }

    async fn rollout(&self, gone_after: &str, class: Option<&str>) -> Outcome {
        self.fill_with_small_pods(gone_after, class).await;
        self.change_templates().await
    }

    async fn change_templates(&self) -> Outcome {
        let happened = Instant::now();
        let image = json!({ "spec": { "template": { "metadata": { "labels": { "version": "2" } } } } });
        for name in &self.daemons {
            self.namespace.change::<DaemonSet>(name, &image).await;
        }
        self.outcome(happened, 10).await
    }

    /// The old pod of each daemon stays until the new one runs. So one pod of 300m that ends on a node is room for the new pods of
    /// all three DaemonSets, one after the other.
    async fn surge(&self) -> Outcome {
        self.fill_with_small_pods("0s", None).await;
        let surge = json!({ "spec": {
            "updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "100%", "maxUnavailable": 0 },
            },
            "template": { "metadata": { "labels": { "version": "2" } } },
        } });
        for name in &self.daemons {
            self.namespace.change::<DaemonSet>(name, &surge).await;
        }
        self.daemon_pods_exist(2 * self.daemons.len() * self.options.nodes).await;
        let happened = Instant::now();
        self.one_ordinary_pod_ends_on_each_node().await;
        self.outcome(happened, 10).await
    }

    /// Creates a quota for as many pods of a class as there are daemon pods. Returns the class, of priority 0.
    async fn quota_of_daemon_pods(&self) -> String {
        let class = self.namespace.priority_class("agents", 0).await;
        let quota: ResourceQuota = object(json!({
            "metadata": { "name": "daemon-pods" },
            "spec": {
                "hard": { "pods": (self.daemons.len() * self.options.nodes).to_string() },
                "scopeSelector": { "matchExpressions": [
                    { "scopeName": "PriorityClass", "operator": "In", "values": [class] },
                ] },
            },
        }));
        self.namespace.create(&quota).await;
        class
    }

    async fn join(&self, ready_after: Option<&'static str>) -> Outcome {
        self.create_daemon_sets(json!({}), "0s", None).await;
        self.create_backlog(self.options.backlog_a_node * self.options.nodes, "1").await;
        let happened = Instant::now();
        let nodes = self.options.nodes;
        self.namespace.add_nodes(1, nodes, &NodeOptions { ready_after, ..NodeOptions::default() }).await;
        self.outcome(happened, self.ordinary_beside_daemons()).await
    }

    /// The ordinary pods of 1 CPU that fit on a node beside its daemon pods.
    fn ordinary_beside_daemons(&self) -> usize {
        (4000 - self.daemons.len() * self.options.daemon_cpu) / 1000
    }

    async fn renewed(&self) -> Outcome {
        self.fill_with_small_pods("0s", None).await;
        let happened = Instant::now();
        let of_pool = ListParams::default().labels(&format!("{POOL}={}", self.namespace.name));
        let nodes: Api<Node> = Api::all(self.namespace.client.clone());
        nodes.delete_collection(&DeleteParams::default(), &of_pool).await.expect("nodes can be deleted");
        eventually_within(LONG, "the nodes are gone", async || {
            match nodes.list(&of_pool).await.map_err(|e| e.to_string())?.items.len() {
                0 => Ok(()),
                left => Err(left.to_string()),
            }
        })
        .await;
        // As a cloud's controller does, or the garbage collector of pods a minute later.
        self.delete_pods(|_| true).await;
        self.namespace.add_nodes(1, self.options.nodes, &NodeOptions::default()).await;
        self.outcome(happened, 10).await
    }

    async fn deleted(&self, times: usize, gone_after: &str) -> Outcome {
        self.fill_with_small_pods(gone_after, None).await;
        let mut outcome = Outcome::default();
        let mut longest = Duration::ZERO;
        for time in 0..times {
            let happened = Instant::now();
            let app = &self.daemons[time % self.daemons.len()];
            for pod in self.namespace.pods(app).await {
                self.namespace.delete::<Pod>(&pod.name_any()).await;
            }
            outcome = self.outcome(happened, 10).await;
            longest = longest.max(outcome.took);
            if outcome.daemons < outcome.wanted {
                break;
            }
        }
        // The time of the slowest deletion, because the test waits between the deletions.
        Outcome { took: longest, ..outcome }
    }

    async fn emptied(&self) -> Outcome {
        self.fill_with_small_pods("0s", None).await;
        let mut outcome = Outcome::default();
        let mut longest = Duration::ZERO;
        let numbers: Vec<usize> = (1..=self.options.nodes).collect();
        for five in numbers.chunks(EMPTIED_AT_ONCE) {
            let happened = Instant::now();
            let names: BTreeSet<_> =
                five.iter().map(|number| format!("{}-{number}", self.namespace.name)).collect();
            self.delete_pods(|node| names.contains(node)).await;
            outcome = self.outcome(happened, 10).await;
            longest = longest.max(outcome.took);
        }
        Outcome { took: longest, ..outcome }
    }

    async fn late(&self) -> Outcome {
        self.namespace.nodes(1, self.options.nodes, &NodeOptions::default()).await;
        self.create_backlog(6 * self.options.nodes, "1").await;
        self.ordinary_are_bound(4 * self.options.nodes).await;
        self.create_daemon_sets(json!({}), "0s", None).await;
        self.room_comes_to_waiting_daemon_pods().await
    }

    async fn labelled(&self) -> Outcome {
        let names = self.namespace.nodes(1, self.options.nodes, &NodeOptions::default()).await;
        self.create_backlog(6 * self.options.nodes, "1").await;
        self.ordinary_are_bound(4 * self.options.nodes).await;
        self.create_daemon_sets(json!({ LETS_IN: "yes" }), "0s", None).await;
        for name in &names {
            let label = json!({ "metadata": { "labels": { LETS_IN: "yes" } } });
            self.namespace.change_node(name, &label).await;
        }
        self.room_comes_to_waiting_daemon_pods().await
    }

    async fn room_comes_to_waiting_daemon_pods(&self) -> Outcome {
        self.daemon_pods_exist(self.daemons.len() * self.options.nodes).await;
        let happened = Instant::now();
        self.one_ordinary_pod_ends_on_each_node().await;
        self.outcome(happened, 3).await
    }

    /// Deletes one ordinary pod on each node; its Deployment creates another.
    async fn one_ordinary_pod_ends_on_each_node(&self) {
        let mut freed = BTreeSet::new();
        for pod in self.namespace.pods("web").await {
            if let Some(node) = node_of(&pod).map(str::to_owned)
                && freed.insert(node)
            {
                let now = DeleteParams::default().grace_period(0);
                let _ = self.namespace.api::<Pod>().delete(&pod.name_any(), &now).await;
            }
        }
    }

    /// Deletes the pods that are bound to some nodes, without a grace period.
    async fn delete_pods(&self, is_there: impl Fn(&str) -> bool) {
        let api = self.namespace.api::<Pod>();
        let pods = api.list(&ListParams::default()).await.expect("pods can be listed").items;
        let names = pods.iter().filter(|pod| node_of(pod).is_some_and(&is_there)).map(ResourceExt::name_any);
        let now = DeleteParams::default().grace_period(0);
        let deletions = names.map(|name| {
            let (api, now) = (&api, &now);
            async move { api.delete(&name, now).await.map(drop) }
        });
        futures::future::join_all(deletions).await;
    }

    /// Fills the nodes with daemon pods and ordinary pods of the same size; more ordinary pods wait.
    async fn fill_with_small_pods(&self, gone_after: &str, class: Option<&str>) {
        self.namespace.nodes(1, self.options.nodes, &NodeOptions::default()).await;
        self.create_daemon_sets(json!({}), gone_after, class).await;
        let all = self.daemons.len() * self.options.nodes;
        eventually_within(LONG, "the daemon pods run", async || match self.count().await.daemons {
            there if there == all => Ok(()),
            there => Err(format!("{there} of {all}")),
        })
        .await;
        for name in &self.daemons {
            self.namespace.settled(name, self.options.nodes as i32).await;
        }
        self.create_backlog(12 * self.options.nodes + 4 * self.options.nodes, "300m").await;
        self.ordinary_are_bound(10 * self.options.nodes).await;
    }

    /// Creates the DaemonSets. `selects` is added to their node selectors.
    async fn create_daemon_sets(&self, selects: Value, gone_after: &str, class: Option<&str>) {
        for name in &self.daemons {
            let mut changes = self.by_own_scheduler();
            let spec = &mut changes["spec"]["template"]["spec"];
            if let Some(class) = class {
                spec["priorityClassName"] = json!(class);
            }
            spec["nodeSelector"] = selects.clone();
            spec["containers"] = json!([{
                "name": "main", "image": "example.test/main:1",
                "resources": { "requests": { "cpu": format!("{}m", self.options.daemon_cpu) } },
            }]);
            changes["spec"]["template"]["metadata"] = json!({ "annotations": { GONE_AFTER: gone_after } });
            changes["spec"]["updateStrategy"] =
                json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "10%" } });
            self.namespace.create(&self.namespace.daemon_set(name, changes)).await;
        }
    }
}
