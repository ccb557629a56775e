//! Real autoscalers beside the extender and beside `/bind`. They simulate a scheduler without extenders and webhooks, so a pod that
//! only the warden refuses seems to fit, unless a nomination takes the room.
//!
//! The tests take the programs by their paths, because the control plane's module cannot build them (`docs/autoscalers.md`
//! says how to build them), and fail where a program is missing:
//!
//! ```sh
//! CLUSTER_AUTOSCALER=... cargo test --release --test cluster autoscalers::cluster_autoscaler -- --ignored --nocapture
//! KARPENTER=... KARPENTER_CRDS=DIR,DIR cargo test --release --test cluster autoscalers::karpenter -- --ignored --nocapture
//! ```
//! `SETUPS=plain,extender,nominated,bind-alone,bind,both` in the environment chooses the setups.

mod cluster_autoscaler;
mod karpenter;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::harness::{
    BindWebhook, ControlPlane, Doors, Extender, POOL, Scheduler, SchedulerOptions, TestNamespace, Warden,
    WardenOptions, describe, eventually_within, is_bound, node_of,
};

/// DaemonSets of 300m a pod, like the ordinary pods: a node of 4 CPU has room for these three, ten ordinary pods and 100m more.
const DAEMONS: [&str; 3] = ["cni", "csi", "logs"];
/// The DaemonSet that is created later, of 500m a pod: it fits on a node after two of the node's ordinary pods have ended.
const LATE: &str = "late";
/// The time limit for a change of the whole cluster.
const LONG: Duration = Duration::from_secs(300);

/// The doors at which the control plane asks the warden, and nomination.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WardenSetup {
    /// No warden.
    Plain,
    /// The extender without nomination.
    Extender,
    /// The extender with the default configuration, which nominates.
    Nominated,
    /// `/bind` without nomination.
    BindAlone,
    /// `/bind` with the default configuration.
    Bind,
    /// Both doors with the default configuration.
    Both,
}

impl WardenSetup {
    const ALL: [Self; 6] =
        [Self::Plain, Self::Extender, Self::Nominated, Self::BindAlone, Self::Bind, Self::Both];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Extender => "extender",
            Self::Nominated => "nominated",
            Self::BindAlone => "bind-alone",
            Self::Bind => "bind",
            Self::Both => "both",
        }
    }

    fn doors(self) -> Doors {
        match self {
            Self::Plain => Doors::Without,
            Self::Extender | Self::Nominated => Doors::Extender,
            Self::BindAlone | Self::Bind => Doors::Bind,
            Self::Both => Doors::Both,
        }
    }

    /// Returns true if the warden has its default configuration: then autoscalers have to keep up.
    fn nominates(self) -> bool {
        matches!(self, Self::Nominated | Self::Bind | Self::Both)
    }

    fn asked() -> Vec<Self> {
        let asked = std::env::var("SETUPS").ok();
        let is_asked = |setup: &Self| {
            asked.as_ref().is_none_or(|asked| asked.split(',').any(|name| name == setup.name()))
        };
        Self::ALL.into_iter().filter(is_asked).collect()
    }
}

/// An autoscaler that adds nodes of 4 CPU for the pods of an [`AutoscalerTest`].
trait Autoscaler {
    /// Creates the objects that the autoscaler needs and starts it, with scale-down disabled.
    async fn start(test: &AutoscalerTest) -> Self;
    /// Enables scale-down.
    async fn scale_down(&mut self, test: &AutoscalerTest);
}

/// A control plane with a scheduler and, by the setup, the warden.
struct AutoscalerTest {
    namespace: TestNamespace<Arc<ControlPlane>>,
    _scheduler: Scheduler,
    warden: Option<Warden>,
}

/// The numbers of pods and nodes at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PodCounts {
    daemons: usize,
    wanted: usize,
    ordinary: usize,
    nodes: usize,
}

impl AutoscalerTest {
    async fn new(setup: WardenSetup) -> Self {
        let plane = tokio::task::spawn_blocking(|| ControlPlane::start("autoscaler")).await.unwrap();
        let plane = Arc::new(plane);
        let namespace = TestNamespace::on(plane.clone(), "scaled").await;
        let mut options = SchedulerOptions::default();
        let mut warden = None;
        if setup.doors() != Doors::Without {
            let kubeconfig = Some(namespace.warden_kubeconfig().await);
            let config = json!({ "reservation": { "nominate": setup.nominates() } });
            let started = Warden::start(WardenOptions { config, kubeconfig }).await;
            if setup.doors().has_extender() {
                options.extenders.push(Extender { preempts: true, ..started.extender() });
            }
            if setup.doors().has_bind() {
                // The chart's timeout.
                let webhook = BindWebhook { timeout_seconds: 1, ..BindWebhook::default() };
                namespace.register_bind(&started, &webhook).await;
            }
            warden = Some(started);
        }
        let scheduler = tokio::task::spawn_blocking(move || plane.scheduler(&options)).await.unwrap();
        let test = Self { namespace, _scheduler: scheduler, warden };
        for name in DAEMONS {
            test.namespace.create(&test.namespace.daemon_set(name, json!({}))).await;
        }
        test
    }

    /// Returns the label by which the pods select the nodes.
    fn pool(&self) -> (&'static str, &str) {
        (POOL, &self.namespace.name)
    }

    async fn create_ordinary(&self, replicas: usize) {
        self.namespace.create(&self.namespace.deployment("web", replicas, "300m", json!({}))).await;
    }

    /// Creates the late DaemonSet, and waits until the scheduler has failed its pod on each node.
    async fn late_daemon_comes(&self) {
        let large = json!({ "spec": { "template": { "spec": { "containers": [{
            "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "500m" } },
        }] } } } });
        let nodes = self.nodes().await.len();
        self.namespace.create(&self.namespace.daemon_set(LATE, large)).await;
        eventually_within(LONG, "the late daemon's pods are tried", async || {
            let pods = self.namespace.pods(LATE).await;
            let tried = |pod: &&Pod| {
                let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
                conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "PodScheduled"))
            };
            if pods.iter().filter(tried).count() >= nodes { Ok(()) } else { Err(describe(&pods)) }
        })
        .await;
        // 2 s for the nomination, and the rest for the autoscaler to see it.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }

    /// Deletes one ordinary pod on each node; the Deployment creates another.
    async fn one_pod_ends_on_each(&self) {
        let mut freed = BTreeSet::new();
        for pod in self.namespace.pods("web").await {
            if let Some(node) = node_of(&pod).map(str::to_owned)
                && freed.insert(node)
            {
                let at_once = DeleteParams::default().grace_period(0);
                let _ = self.namespace.api::<Pod>().delete(&pod.name_any(), &at_once).await;
            }
        }
    }

    async fn nodes(&self) -> Vec<Node> {
        let (key, value) = self.pool();
        let of_pool = ListParams::default().labels(&format!("{key}={value}"));
        let nodes =
            Api::<Node>::all(self.namespace.client.clone()).list(&of_pool).await.expect("nodes").items;
        nodes.into_iter().filter(|node| node.metadata.deletion_timestamp.is_none()).collect()
    }

    async fn count(&self, sets: usize) -> PodCounts {
        let nodes = self.nodes().await.len();
        let mut daemons = 0;
        for name in DAEMONS.into_iter().chain([LATE]) {
            daemons += self.namespace.pods(name).await.iter().filter(|pod| is_bound(pod)).count();
        }
        let ordinary = self.namespace.pods("web").await.iter().filter(|pod| is_bound(pod)).count();
        PodCounts { daemons, wanted: sets * nodes, ordinary, nodes }
    }

    /// Waits until `is_enough` returns true, or until nothing has changed for the time `quiet`. Returns the last counts, and the
    /// time from the start to the last change.
    async fn rest(
        &self,
        sets: usize,
        quiet: Duration,
        is_enough: impl Fn(&PodCounts) -> bool,
    ) -> (PodCounts, Duration) {
        let begun = Instant::now();
        let (mut counted, mut changed) = (self.count(sets).await, Instant::now());
        while !is_enough(&counted) && changed.elapsed() < quiet && begun.elapsed() < LONG {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.count(sets).await;
            if now != counted {
                (counted, changed) = (now, Instant::now());
            }
        }
        (counted, changed.duration_since(begun))
    }

    /// Scales the Deployment down so that nine ordinary pods stay on each node, and four on one node. Returns the uids of these
    /// four.
    async fn ordinary_pods_end_for_good(&self) -> BTreeSet<String> {
        let pods = self.namespace.pods("web").await;
        let mut left: std::collections::BTreeMap<&str, usize> = Default::default();
        let emptied = pods.iter().filter_map(node_of).max().expect("a node").to_owned();
        let mut ending = 0;
        for pod in &pods {
            let node = node_of(pod).expect("bound");
            let remaining = left.entry(node).or_default();
            *remaining += 1;
            if *remaining > if node == emptied { 4 } else { 9 } {
                let last = json!({ "metadata": { "annotations": {
                    "controller.kubernetes.io/pod-deletion-cost": "-100",
                } } });
                self.namespace.change::<Pod>(&pod.name_any(), &last).await;
                ending += 1;
            }
        }
        let rest = pods.len() - ending;
        self.namespace.change::<Deployment>("web", &json!({ "spec": { "replicas": rest } })).await;
        self.namespace.pods_exist("web", rest).await;
        let pods = self.namespace.pods("web").await;
        pods.iter().filter(|pod| node_of(pod) == Some(&*emptied)).filter_map(ResourceExt::uid).collect()
    }
}
