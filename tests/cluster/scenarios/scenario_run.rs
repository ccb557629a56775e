//! Runs a scenario: a cluster with three DaemonSets and a backlog, one event, and the outcome.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, GONE_AFTER, NodeOptions, POOL, Scheduler, SchedulerOptions, TestNamespace, Warden,
    WardenOptions, eventually_within, is_bound, node_of, object,
};

/// DaemonSets of 300m a pod: together 0.9 of a node's 4 CPU.
const DAEMONS: [&str; 3] = ["cni", "csi", "logs"];
/// The time limit for filling a whole cluster.
const LONG: Duration = Duration::from_secs(300);

/// The event of a scenario.
#[derive(Clone, Copy)]
pub(crate) enum Scenario {
    /// A and A2: every template changes, on full nodes with a backlog.
    Rollout { gone_after: &'static str },
    /// A with a quota that is exactly the daemon pods: it counts a pod for a while after it has gone.
    RolloutInQuota { gone_after: &'static str },
    /// A while the pods of a younger DaemonSet of the same priority wait on every node.
    RolloutBesideYounger,
    /// B and C: nodes join a cluster with a backlog, Ready at once or later.
    Join { ready_after: Option<&'static str> },
    /// D: daemon pods are deleted on full nodes with a backlog, one DaemonSet after the other.
    Deleted { times: usize, gone_after: &'static str },
    /// E: DaemonSets are created when the nodes are full, and then one ordinary pod ends on each node.
    Late,
}

/// The outcome of a scenario, when nothing changes any more.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Daemon pods bound and not terminating.
    pub(crate) daemons: usize,
    /// Daemon pods that should be bound.
    pub(crate) wanted: usize,
    /// Bound daemon pods of the new template.
    pub(crate) updated: usize,
    pub(crate) ordinary: usize,
    /// Ordinary pods that fit beside all daemon pods.
    pub(crate) ordinary_possible: usize,
    pub(crate) evicted: Vec<String>,
    /// The time from the event to the last change.
    pub(crate) took: Duration,
}

/// A namespace, a scheduler of the same name, and the warden, or not.
pub(crate) struct ScenarioRun {
    pub(crate) namespace: TestNamespace<&'static ControlPlane>,
    nodes: usize,
    /// The time without a change after which the scenario is over.
    quiet: Duration,
    _scheduler: Scheduler,
    pub(crate) warden: Option<Warden>,
}

impl ScenarioRun {
    pub(crate) async fn new(name: &str, nodes: usize, with_warden: bool) -> Self {
        Self::start(name, &[], nodes, with_warden).await
    }

    /// With the warden, which also holds room for the DaemonSets of another namespace.
    pub(crate) async fn beside(name: &str, other: &str, nodes: usize) -> Self {
        Self::start(name, &[other], nodes, true).await
    }

    async fn start(name: &str, others: &[&str], nodes: usize, with_warden: bool) -> Self {
        let namespace = TestNamespace::shared(name).await;
        let mut options = SchedulerOptions { name: name.to_owned(), ..SchedulerOptions::default() };
        let mut warden = None;
        if with_warden {
            let kubeconfig = Some(namespace.warden_kubeconfig().await);
            // `NOMINATE=false` in the environment runs the scenario without nomination.
            let nominate = std::env::var("NOMINATE").is_ok_and(|value| value == "false").then_some(false);
            let config =
                nominate.map_or(json!({}), |nominate| json!({ "reservation": { "nominate": nominate } }));
            let mut config = namespace.holding_here(config);
            if !others.is_empty() {
                let namespaces: Vec<&str> = others.iter().copied().chain([name]).collect();
                let named =
                    json!({ "key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces });
                config["reservation"]["namespaceSelector"] = json!({ "matchExpressions": [named] });
            }
            let started = Warden::start(WardenOptions { config, kubeconfig }).await;
            let mut extender = started.extender();
            extender.preempts = true;
            if nodes <= 20 {
                // With the other tests on two cores a call can take more than 300 ms; then the scheduler goes on without
                // the extender, and the test proves nothing.
                extender.http_timeout = "5s";
            }
            options.extenders.push(extender);
            warden = Some(started);
        }
        let plane = namespace.plane;
        let scheduler =
            tokio::task::spawn_blocking(move || plane.scheduler(&options)).await.expect("a scheduler");
        // The full sizes use twice the scheduler's longest back-off; the small ones less, to save time.
        let quiet = Duration::from_secs(if nodes > 20 { 20 } else { 6 });
        Self { namespace, nodes, quiet, _scheduler: scheduler, warden }
    }

    pub(crate) async fn run(&self, scenario: Scenario) -> Outcome {
        match scenario {
            Scenario::Rollout { gone_after } => self.rollout(gone_after, None).await,
            Scenario::RolloutInQuota { gone_after } => {
                let class = self.quota_of_daemon_pods().await;
                self.rollout(gone_after, Some(&class)).await
            }
            Scenario::RolloutBesideYounger => self.rollout_beside_younger().await,
            Scenario::Join { ready_after } => self.join(ready_after).await,
            Scenario::Deleted { times, gone_after } => self.deleted(times, gone_after).await,
            Scenario::Late => self.late().await,
        }
    }

    /// Deletes all objects of the scenario.
    pub(crate) async fn clear(self) {
        let pool = format!("{POOL}={}", self.namespace.name);
        self.namespace.kubectl.succeed(&["delete", "daemonsets,deployments", "--all", "--wait=false"]).await;
        self.namespace.kubectl.succeed(&["delete", "nodes", "-l", &pool, "--wait=false"]).await;
        self.namespace
            .kubectl
            .succeed(&["delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false"])
            .await;
    }

    async fn rollout_beside_younger(&self) -> Outcome {
        self.fill_with_small_pods("0s", None).await;
        self.namespace.create(&self.namespace.daemon_set("younger", self.by_own_scheduler())).await;
        self.namespace.pods_exist("younger", self.nodes).await;
        self.change_templates().await
    }

    async fn rollout(&self, gone_after: &str, class: Option<&str>) -> Outcome {
        self.fill_with_small_pods(gone_after, class).await;
        self.change_templates().await
    }

    async fn change_templates(&self) -> Outcome {
        let happened = Instant::now();
        let image = json!({ "spec": { "template": { "metadata": { "labels": { "version": "2" } } } } });
        for name in DAEMONS {
            self.namespace.change::<DaemonSet>(name, &image).await;
        }
        self.outcome(happened, 10).await
    }

    /// Creates a quota for as many pods of a class as there are daemon pods. Returns the class, of priority 0.
    async fn quota_of_daemon_pods(&self) -> String {
        let class = self.namespace.priority_class("agents", 0).await;
        let quota: ResourceQuota = object(json!({
            "metadata": { "name": "daemon-pods" },
            "spec": {
                "hard": { "pods": (DAEMONS.len() * self.nodes).to_string() },
                "scopeSelector": { "matchExpressions": [
                    { "scopeName": "PriorityClass", "operator": "In", "values": [class] },
                ] },
            },
        }));
        self.namespace.create(&quota).await;
        class
    }

    async fn join(&self, ready_after: Option<&'static str>) -> Outcome {
        self.create_daemon_sets("0s", None).await;
        self.create_backlog(8 * self.nodes, "1").await;
        let happened = Instant::now();
        self.namespace.add_nodes(1, self.nodes, &NodeOptions { ready_after, ..NodeOptions::default() }).await;
        self.outcome(happened, 3).await
    }

    async fn deleted(&self, times: usize, gone_after: &str) -> Outcome {
        self.fill_with_small_pods(gone_after, None).await;
        let mut outcome = Outcome::default();
        let mut longest = Duration::ZERO;
        for time in 0..times {
            let happened = Instant::now();
            let app = DAEMONS[time % DAEMONS.len()];
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

    async fn late(&self) -> Outcome {
        self.namespace.nodes(1, self.nodes, &NodeOptions::default()).await;
        self.create_backlog(6 * self.nodes, "1").await;
        self.wait_for_bound("web", 4 * self.nodes).await;
        self.create_daemon_sets("0s", None).await;
        eventually_within(LONG, "all daemon pods exist", async || {
            let mut there = 0;
            for name in DAEMONS {
                there += self.namespace.pods(name).await.len();
            }
            if there == DAEMONS.len() * self.nodes { Ok(()) } else { Err(format!("{there} pods")) }
        })
        .await;

        let happened = Instant::now();
        let mut freed = std::collections::BTreeSet::new();
        for pod in self.namespace.pods("web").await {
            if let Some(node) = node_of(&pod).map(str::to_owned)
                && freed.insert(node)
            {
                let now = DeleteParams::default().grace_period(0);
                let _ = self.namespace.api::<Pod>().delete(&pod.name_any(), &now).await;
            }
        }
        self.outcome(happened, 3).await
    }

    /// Fills the nodes with daemon pods and ordinary pods of the same size; more ordinary pods wait.
    async fn fill_with_small_pods(&self, gone_after: &str, class: Option<&str>) {
        self.namespace.nodes(1, self.nodes, &NodeOptions::default()).await;
        self.create_daemon_sets(gone_after, class).await;
        for name in DAEMONS {
            self.namespace.settled(name, self.nodes as i32).await;
        }
        self.create_backlog(12 * self.nodes + 4 * self.nodes, "300m").await;
        self.wait_for_bound("web", 10 * self.nodes).await;
    }

    async fn create_daemon_sets(&self, gone_after: &str, class: Option<&str>) {
        for name in DAEMONS {
            let mut changes = self.by_own_scheduler();
            if let Some(class) = class {
                changes["spec"]["template"]["spec"]["priorityClassName"] = json!(class);
            }
            changes["spec"]["template"]["metadata"] = json!({ "annotations": { GONE_AFTER: gone_after } });
            changes["spec"]["updateStrategy"] =
                json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "10%" } });
            self.namespace.create(&self.namespace.daemon_set(name, changes)).await;
        }
    }

    async fn create_backlog(&self, replicas: usize, cpu: &str) {
        self.namespace
            .create(&self.namespace.deployment("web", replicas, cpu, self.by_own_scheduler()))
            .await;
        self.namespace.pods_exist("web", replicas).await;
    }

    fn by_own_scheduler(&self) -> Value {
        json!({ "spec": { "template": { "spec": { "schedulerName": self.namespace.name } } } })
    }

    async fn wait_for_bound(&self, app: &str, count: usize) {
        eventually_within(LONG, &format!("{count} pods of {app} are bound"), async || {
            match self.namespace.pods(app).await.iter().filter(|pod| is_bound(pod)).count() {
                bound if bound >= count => Ok(()),
                bound => Err(bound.to_string()),
            }
        })
        .await;
    }

    /// Waits for the daemon pods of `scenario` that are created late. Returns the numbers of bound ones, and of those with the new
    /// template, as soon as all are there, and after `at_most` in any case.
    pub(crate) async fn landed(&self, scenario: Scenario, at_most: Duration) -> (usize, usize) {
        let all = DAEMONS.len() * self.nodes;
        let updated = if matches!(scenario, Scenario::Rollout { .. }) { all } else { 0 };
        let begun = Instant::now();
        loop {
            let now = self.count().await;
            if (now.daemons, now.updated) == (all, updated) || begun.elapsed() > at_most {
                return (now.daemons, now.updated);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Counts the pods until nothing has changed for the time `quiet`.
    async fn outcome(&self, happened: Instant, ordinary_a_node: usize) -> Outcome {
        let mut counted = Outcome::default();
        let mut changed = Instant::now();
        loop {
            let now = self.count().await;
            if (now.daemons, now.updated, now.ordinary)
                != (counted.daemons, counted.updated, counted.ordinary)
            {
                changed = Instant::now();
                counted = now;
            }
            if changed.elapsed() > self.quiet {
                break;
            }
            assert!(happened.elapsed() < 2 * LONG, "still changing: {counted:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        counted.wanted = DAEMONS.len() * self.nodes;
        counted.ordinary_possible = ordinary_a_node * self.nodes;
        counted.evicted = self.namespace.recorder.preempted();
        counted.took = changed.duration_since(happened);
        counted
    }

    async fn count(&self) -> Outcome {
        let mut outcome = Outcome::default();
        for name in DAEMONS {
            for pod in self.namespace.pods(name).await.iter().filter(|pod| is_bound(pod)) {
                outcome.daemons += 1;
                outcome.updated += usize::from(pod.labels().get("version").is_some());
            }
        }
        outcome.ordinary = self.namespace.pods("web").await.iter().filter(|pod| is_bound(pod)).count();
        outcome
    }
}
