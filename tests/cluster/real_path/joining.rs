//! A cluster with the chart's release and a backlog, to which nodes are added one after the other.

use std::fmt::{Display, Formatter, Result as FormatResult};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use super::Routing;
use super::transitions::Transition;
use crate::harness::{
    Binding, ControlPlane, Kubelet, NodeOptions, PREVIOUS, RELEASE, Release, Scheduler, SchedulerOptions,
    ServiceProxy, TestNamespace, chart, eventually, eventually_within, is_bound,
};

const DAEMONS: [&str; 3] = ["cni", "csi", "logs"];
/// The label of the nodes on which the replicas run.
const REPLICAS_HERE: &str = "daemonset-warden.test/replicas";
/// Nodes of the replicas: more than there are replicas, because a drained one takes no Pod.
const REPLICA_NODES: usize = 4;
/// The pause between two nodes of a join: a binding comes every few milliseconds meanwhile.
const PAUSE: Duration = Duration::from_millis(400);
/// The time without a change after which the daemon pods that are missing count as lost: twice the scheduler's longest back-off.
const QUIET: Duration = Duration::from_secs(20);
/// The gauge of the replica that judges.
const JUDGING: &str = "daemonset_warden_leader_election_judging";

/// A cluster with two replicas.
pub(super) struct JoiningCluster {
    pub(super) namespace: TestNamespace<Arc<ControlPlane>>,
    pub(super) kubelet: Kubelet,
    pub(super) release: Arc<Release>,
    /// The nodes that have joined.
    nodes: usize,
    /// The daemon pods that earlier joins have cost.
    lost: usize,
    _scheduler: Scheduler,
    _proxies: Vec<ServiceProxy>,
}

/// The cost of a transition.
#[derive(Debug)]
pub(super) struct Lost {
    /// Daemon pods of this join that were not bound in the end.
    pub(super) daemons: usize,
    wanted: usize,
    /// Bindings that no replica judged: allowed by one that may not judge, or bound without an answer.
    pub(super) unjudged: f64,
    unanswered: f64,
    /// The time until another process judged.
    pub(super) replaced_after: Duration,
}

/// Bindings that no replica has judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unjudged {
    /// Allowed by a replica that may not judge.
    allowed: f64,
    /// Bound because no replica answered in time.
    unanswered: f64,
    /// Seen bound by the replica that judged then. The last answers before the end of a process are in no metric of it.
    seen_bound: f64,
}

impl Display for Lost {
    fn fmt(&self, f: &mut Formatter<'_>) -> FormatResult {
        let Self { daemons, wanted, unjudged, unanswered, replaced_after } = self;
        write!(f, "{daemons} of {wanted} | {unjudged} | {unanswered} | {:.1} s", replaced_after.as_secs_f32())
    }
}

impl JoiningCluster {
    /// Starts a cluster with the chart's release, of which one replica judges.
    pub(super) async fn start(routing: Routing, failure_policy: &str, is_full: bool) -> Self {
        let values = values(failure_policy, is_full);
        let cluster = Self::install(routing, &chart(), &values).await;
        cluster.recover().await;
        cluster.bind_is_called().await;
        cluster
    }

    /// Starts a cluster, and installs a chart of any version.
    pub(super) async fn install(routing: Routing, chart: &Path, values: &[String]) -> Self {
        let flags: &[&str] = match routing {
            Routing::Aggregator => &["--enable-aggregator-routing=true"],
            Routing::ClusterIp => &[],
        };
        let plane =
            tokio::task::spawn_blocking(move || ControlPlane::start_with_flags("real-path", flags)).await;
        let plane = Arc::new(plane.expect("a control plane"));
        let for_scheduler = plane.clone();
        let scheduler =
            tokio::task::spawn_blocking(move || for_scheduler.scheduler(&SchedulerOptions::default())).await;
        let scheduler = scheduler.expect("a scheduler");
        let release = Release::on(plane.clone()).await;
        replica_nodes(&release).await;
        release.install_chart(chart, &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let release = Arc::new(release);
        let mut proxies = Vec::new();
        if routing == Routing::ClusterIp {
            for service in [RELEASE.to_owned(), format!("{RELEASE}-bind")] {
                proxies.push(ServiceProxy::start(&release.client, RELEASE, &service).await);
            }
        }
        let kubelet = Kubelet::start(release.clone());
        let namespace = TestNamespace::on(plane, "joins").await;
        let cluster =
            Self { namespace, kubelet, release, nodes: 0, lost: 0, _scheduler: scheduler, _proxies: proxies };
        for name in DAEMONS {
            cluster.namespace.create(&cluster.namespace.daemon_set(name, json!({}))).await;
        }
        cluster.namespace.create(&cluster.namespace.deployment("web", 0, "1", json!({}))).await;
        cluster
    }

    /// Adds nodes one after the other to a cluster with a backlog, and begins a transition after a third of them.
    pub(super) async fn join(&mut self, count: usize, transition: Transition) -> Lost {
        let first = self.backlog(count).await;
        let before = self.unjudged().await;
        let active = self.active().await.expect("one replica judges");
        let mut replaced = None;
        for number in first..first + count {
            if number == first + count / 3 {
                let (client, kubectl) = (self.release.client.clone(), self.release.kubectl.clone());
                transition.begin(&active, &client, &kubectl, &self.kubelet).await;
                replaced = Some(self.wait_until_replaced(&active, transition));
            }
            self.namespace.add_nodes(number, 1, &NodeOptions::default()).await;
            tokio::time::sleep(PAUSE).await;
        }
        let replaced_after = replaced.expect("begun").await;
        if transition == Transition::Frozen {
            self.kubelet.thaw(&active).await;
        }
        let daemons = self.missing().await;
        let after = self.unjudged().await;
        Lost {
            daemons,
            wanted: DAEMONS.len() * count,
            unjudged: (after.allowed - before.allowed + after.unanswered - before.unanswered)
                .max(after.seen_bound - before.seen_bound),
            unanswered: after.unanswered - before.unanswered,
            replaced_after,
        }
    }

    /// Adds nodes one after the other to a cluster with a backlog, and calls `meanwhile` after a third of them. Returns the daemon
    /// pods that are lost, and those that were wanted.
    pub(super) async fn join_while(
        &mut self,
        count: usize,
        meanwhile: impl Future<Output = ()>,
    ) -> (usize, usize) {
        let first = self.backlog(count).await;
        let add = async |number| {
            self.namespace.add_nodes(number, 1, &NodeOptions::default()).await;
            tokio::time::sleep(PAUSE).await;
        };
        for number in first..first + count / 3 {
            add(number).await;
        }
        let others = async {
            for number in first + count / 3..first + count {
                add(number).await;
            }
        };
        futures::join!(others, meanwhile);
        (self.missing().await, DAEMONS.len() * count)
    }

    /// Lets more ordinary pods wait than fit on so many nodes more. Returns the number of the first of these.
    async fn backlog(&mut self, count: usize) -> usize {
        let first = self.nodes + 1;
        self.nodes += count;
        // 3 pods of 1 CPU fit on each node beside its daemon pods.
        let replicas = 3 * self.nodes + 5 * count;
        self.namespace.change::<Deployment>("web", &json!({ "spec": { "replicas": replicas } })).await;
        eventually_within(Duration::from_secs(300), "the backlog exists", async || {
            match self.namespace.pods("web").await.len() {
                there if there == replicas => Ok(()),
                there => Err(format!("{there} of {replicas}")),
            }
        })
        .await;
        first
    }

    /// Waits until no more daemon pods are bound. Returns the number of those that this join has cost.
    async fn missing(&mut self) -> usize {
        let wanted = DAEMONS.len() * self.nodes - self.lost;
        let missing = wanted.saturating_sub(self.landed(wanted).await);
        self.lost += missing;
        missing
    }

    /// Returns a future of the time until another process judges than the one that judged. It runs from now on.
    fn wait_until_replaced(
        &self,
        active: &str,
        transition: Transition,
    ) -> impl Future<Output = Duration> + use<> {
        let begun = Instant::now();
        let judging = self.kubelet.watch_gauge(JUDGING);
        let active = active.to_owned();
        // A container that is started again is another process in the same Pod.
        let may_be_the_same = matches!(transition, Transition::Terminated | Transition::Killed);
        let waiting = tokio::spawn(async move {
            let mut has_stopped = !may_be_the_same;
            loop {
                let now = judging.now().await;
                has_stopped |= !now.contains(&active);
                if has_stopped && now.iter().any(|name| may_be_the_same || *name != active) {
                    return begun.elapsed();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        async move {
            let within = tokio::time::timeout(Duration::from_secs(60), waiting).await;
            within.expect("another process judges within a minute").expect("no panic")
        }
    }

    /// Waits until two replicas run and one of them judges. Replaces what a transition has left behind.
    pub(super) async fn recover(&self) {
        let nodes: Api<Node> = Api::all(self.release.client.clone());
        let here = ListParams::default().labels(&format!("{REPLICAS_HERE}=yes"));
        for node in nodes.list(&here).await.expect("nodes can be listed").items {
            if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
                let name = node.metadata.name.as_deref().expect("a name");
                self.release.kubectl.succeed(&["uncordon", name]).await;
            }
        }
        for name in self.kubelet.lost().await {
            self.release.kubectl.succeed(&["delete", "pod", &name, "--wait=false"]).await;
        }
        eventually_within(Duration::from_secs(120), "two replicas run, and one judges", async || {
            let (living, active) = (self.kubelet.living().await, self.active().await);
            let pods: Api<Pod> = Api::namespaced(self.release.client.clone(), RELEASE);
            let there = pods.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items.len();
            let labelled = ListParams::default().labels("daemonset-warden.io/active=true");
            let labelled = pods.list(&labelled).await.map_err(|e| e.to_string())?.items.len();
            match (living.len(), there, labelled, &active) {
                (2, 2, 1, Some(_)) => Ok(()),
                _ => Err(format!("{living:?} run of {there}, {labelled} labelled, {active:?} judges")),
            }
        })
        .await;
    }

    /// Returns the number of Pods of the Deployment, ending ones too.
    pub(super) async fn replicas(&self) -> usize {
        let pods: Api<Pod> = Api::namespaced(self.release.client.clone(), RELEASE);
        let of_release = ListParams::default().labels("app.kubernetes.io/component=server");
        pods.list(&of_release).await.expect("pods can be listed").items.len()
    }

    /// Waits until each node has as many ordinary pods as fit beside the daemon pods that are bound.
    pub(super) async fn ordinary_pods_fill_the_rest(&self) {
        // A node without one of its daemon pods has room for one ordinary pod more, or not.
        let least = 3 * self.nodes;
        eventually_within(Duration::from_secs(120), "ordinary pods fill what is left", async || {
            let bound = self.namespace.pods("web").await.iter().filter(|pod| is_bound(pod)).count();
            if bound >= least { Ok(()) } else { Err(format!("{bound} of {least}")) }
        })
        .await;
    }

    /// Waits until the apiserver calls `/bind` and gets answers.
    pub(super) async fn bind_is_called(&self) {
        let probe = self.namespace.create(&self.namespace.unscheduled_pod("probe", "1m", json!({}))).await;
        eventually("the apiserver calls /bind", async || {
            let _ = self.namespace.bind(&Binding { dry_run: true, ..Binding::new(&probe, "nowhere") }).await;
            match self.release.answered("bind").await {
                0.0 => Err("it does not".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        self.namespace.delete::<Pod>("probe").await;
    }

    /// Returns the name of the Pod that judges, if exactly one does.
    async fn active(&self) -> Option<String> {
        let mut judging = self.kubelet.watch_gauge(JUDGING).now().await;
        if judging.len() == 1 { judging.pop() } else { None }
    }

    /// Returns the numbers of bindings that no replica has judged so far.
    pub(super) async fn unjudged(&self) -> Unjudged {
        let unjudged = [("outcome", "unjudged")];
        let name = "apiserver_admission_webhook_fail_open_count";
        Unjudged {
            allowed: self.kubelet.sum("daemonset_warden_bind_requests_total", &unjudged).await,
            unanswered: self.release.apiserver_metric(name, &[("name", "bind.daemonset-warden.io")]).await,
            seen_bound: self.kubelet.sum("daemonset_warden_bound_unjudged_pods_total", &[]).await,
        }
    }

    /// Waits until that many daemon pods are bound, or nothing has changed for a while. Returns their number.
    async fn landed(&self, wanted: usize) -> usize {
        let of_daemons = ListParams::default().labels("app in (cni,csi,logs)");
        let api: Api<Pod> = self.namespace.api();
        let (mut landed, mut changed) = (0, Instant::now());
        while landed < wanted && changed.elapsed() < QUIET {
            let pods = api.list(&of_daemons).await.expect("pods can be listed").items;
            let now = pods.iter().filter(|pod| is_bound(pod)).count();
            if now != landed {
                (landed, changed) = (now, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        landed
    }
}

async fn replica_nodes(release: &Release) {
    let api: Api<Node> = Api::all(release.client.clone());
    let labels = [(REPLICAS_HERE.to_owned(), "yes".to_owned())].into();
    let options = NodeOptions { labels, ..NodeOptions::default() };
    for number in 1..=REPLICA_NODES {
        let node = options.node(&format!("replicas-{number}"));
        api.create(&PostParams::default(), &node).await.expect("a node");
    }
}

/// Returns the values of the chart: this test's kubelet runs the replicas.
pub(super) fn values(failure_policy: &str, is_full: bool) -> Vec<String> {
    let mut values: Vec<String> = Kubelet::values(REPLICAS_HERE).into();
    values.extend(["--set".to_owned(), format!("bindingWebhook.failurePolicy={failure_policy}")]);
    if !is_full {
        // Shorter, to save time, and longer, because other tests share the cores; the full size has the chart's.
        for value in ["deployment.preStopSleepSeconds=3", "bindingWebhook.timeoutSeconds=5"] {
            values.extend(["--set".to_owned(), value.to_owned()]);
        }
    }
    values
}

/// Returns the values for the chart of the version before this one.
pub(super) fn previous_values() -> Vec<String> {
    let mut values: Vec<String> = Kubelet::values(REPLICAS_HERE).into();
    values.extend(["--set".to_owned(), format!("image.tag={PREVIOUS}")]);
    values
}
