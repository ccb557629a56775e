//! Runs a scenario: a cluster with DaemonSets and a backlog, one event, and the outcome.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::{
    BindWebhook, ControlPlane, Doors, POOL, Scheduler, SchedulerOptions, TestNamespace, Warden,
    WardenOptions, eventually_within, is_bound,
};

/// The time limit for a change of a whole cluster.
pub(super) const LONG: Duration = Duration::from_secs(300);
/// The number of nodes from which on a run is no small one.
const SMALL: usize = 20;
/// The number of nodes from which on a run keeps the control plane busy for minutes.
const LARGE: usize = 200;

/// The event of a scenario.
#[derive(Clone, Copy)]
pub(crate) enum Scenario {
    /// A and A2: every template changes, on full nodes with a backlog.
    Rollout { gone_after: &'static str },
    /// A with a quota that is exactly the daemon pods: it counts a pod for a while after it has gone.
    RolloutInQuota { gone_after: &'static str },
    /// A while the pods of a younger DaemonSet of the same priority wait on every node.
    RolloutBesideYounger,
    /// Every template changes with surge, and then one ordinary pod ends on each node.
    Surge,
    /// B and C: nodes join a cluster with a backlog, Ready at once or later.
    Join { ready_after: Option<&'static str> },
    /// Full nodes are deleted with their pods, and others come under their names.
    Renewed,
    /// D: daemon pods are deleted on full nodes with a backlog, one DaemonSet after the other.
    Deleted { times: usize, gone_after: &'static str },
    /// All pods of five full nodes are deleted, then those of the next five.
    Emptied,
    /// E: DaemonSets are created when the nodes are full, and then one ordinary pod ends on each node.
    Late,
    /// Full nodes get a label that the DaemonSets select, and then one ordinary pod ends on each node.
    Labelled,
}

impl Scenario {
    /// Returns true if all daemon pods have to be of a new template in the end.
    pub(super) fn changes_templates(self) -> bool {
        matches!(
            self,
            Self::Rollout { .. } | Self::RolloutInQuota { .. } | Self::RolloutBesideYounger | Self::Surge
        )
    }
}

/// The calls a second that the controllers and the scheduler may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientLimits {
    /// More than they need.
    Raised,
    /// Kubernetes' defaults: 20 and at most 30 at once for kube-controller-manager, 50 and 100 for kube-scheduler.
    Default,
}

impl ClientLimits {
    /// Returns the limits that the environment variable `LIMITS` names; raised ones without it.
    pub(crate) fn asked() -> Self {
        match std::env::var("LIMITS").as_deref() {
            Ok("default") => Self::Default,
            Ok("raised") | Err(_) => Self::Raised,
            Ok(other) => panic!("LIMITS={other}: default or raised"),
        }
    }

    async fn namespace(self, name: &str) -> TestNamespace<&'static ControlPlane> {
        static LIMITED: OnceLock<ControlPlane> = OnceLock::new();
        match self {
            Self::Raised => TestNamespace::shared(name).await,
            Self::Default => {
                let start =
                    || LIMITED.get_or_init(|| ControlPlane::start_with_controller_rate("limited", (20, 30)));
                let plane = tokio::task::spawn_blocking(start).await.expect("a control plane");
                TestNamespace::on(plane, name).await
            }
        }
    }

    fn of_scheduler(self) -> Option<Value> {
        let default = json!({ "clientConnection": { "qps": 50, "burst": 100 } });
        (self == Self::Default).then_some(default)
    }
}

/// The cluster of a scenario.
#[derive(Clone)]
pub(crate) struct ScenarioOptions {
    pub(crate) nodes: usize,
    pub(crate) doors: Doors,
    pub(crate) limits: ClientLimits,
    /// The number of DaemonSets.
    pub(crate) daemon_sets: usize,
    /// The milli-CPU of each daemon pod. A node has 4 CPU.
    pub(crate) daemon_cpu: usize,
    /// Ordinary pods of 1 CPU for each node, in the scenarios where the backlog is there before the nodes.
    pub(crate) backlog_a_node: usize,
    /// A namespace for whose DaemonSets the warden holds room, too.
    pub(crate) beside: Option<String>,
    /// The `reservation` of the warden's configuration.
    pub(crate) reservation: Value,
    /// A second scheduler takes half of the ordinary pods.
    pub(crate) has_second_scheduler: bool,
}

impl ScenarioOptions {
    /// Returns a cluster with three DaemonSets of 300m a pod, and raised client limits.
    pub(crate) fn new(nodes: usize, doors: Doors) -> Self {
        Self {
            nodes,
            doors,
            limits: ClientLimits::Raised,
            daemon_sets: 3,
            daemon_cpu: 300,
            backlog_a_node: 8,
            beside: None,
            reservation: json!({}),
            has_second_scheduler: false,
        }
    }

    /// Returns the names of the DaemonSets.
    fn daemons(&self) -> Vec<String> {
        (0..self.daemon_sets).map(|number| format!("agent-{number}")).collect()
    }
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
    /// Bindings that `/bind` refused.
    pub(crate) refused: f64,
    /// Bindings that `/bind` allowed without judging: of pods that the warden had not seen, on nodes without a hold.
    pub(crate) unjudged: f64,
    /// Bindings for which `/bind` did not answer in time.
    pub(crate) unanswered: u64,
}

/// A namespace, a scheduler of the same name, and the warden, or not.
pub(crate) struct ScenarioRun {
    pub(crate) namespace: TestNamespace<&'static ControlPlane>,
    pub(super) options: ScenarioOptions,
    pub(super) daemons: Vec<String>,
    /// The time without a change after which the scenario is over.
    quiet: Duration,
    _schedulers: Vec<Scheduler>,
    /// Bindings without an answer while `/bind` was registered.
    unanswered_before: u64,
    pub(crate) warden: Option<Warden>,
}

impl ScenarioRun {
    pub(crate) async fn start(name: &str, options: ScenarioOptions) -> Self {
        let namespace = options.limits.namespace(name).await;
        let mut of_schedulers = vec![SchedulerOptions {
            name: name.to_owned(),
            written: options.limits.of_scheduler(),
            ..SchedulerOptions::default()
        }];
        let mut warden = None;
        let mut unanswered_before = 0;
        if options.doors != Doors::Without {
            let started = start_warden(&namespace, &options).await;
            let is_small = options.nodes < SMALL;
            if options.doors.has_extender() {
                let mut extender = started.extender();
                extender.preempts = true;
                if is_small {
                    // With the other tests on two cores a call can take more than 300 ms; then the scheduler goes on without
                    // the extender, and the test proves nothing.
                    extender.http_timeout = "5s";
                }
                of_schedulers[0].extenders.push(extender);
            }
            if options.doors.has_bind() {
                let beside = options.beside.iter().cloned().collect();
                let mut webhook = BindWebhook { beside, ..BindWebhook::default() };
                if !is_small {
                    // As in the chart.
                    webhook.timeout_seconds = 1;
                }
                namespace.register_bind(&started, &webhook).await;
                unanswered_before = namespace.unanswered_bindings().await;
            }
            warden = Some(started);
        }
        if options.has_second_scheduler {
            of_schedulers.push(SchedulerOptions { name: second(name), ..of_schedulers[0].clone() });
        }
        let plane = namespace.plane;
        let start = move || of_schedulers.iter().map(|options| plane.scheduler(options)).collect();
        let schedulers = tokio::task::spawn_blocking(start).await.expect("schedulers");
        // After a refusal of `/bind` the scheduler backs off for up to 10 s. The full sizes wait twice as long; the small ones
        // less, to save time.
        let quiet = match (options.nodes, options.doors.has_bind()) {
            // The controllers and KWOK may stand still for longer than a scheduler.
            (LARGE.., _) => 90,
            (SMALL.., _) => 20,
            (_, true) => 12,
            (_, false) => 6,
        };
        let daemons = options.daemons();
        let quiet = Duration::from_secs(quiet);
        Self { namespace, options, daemons, quiet, _schedulers: schedulers, unanswered_before, warden }
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
        if self.options.doors.has_bind() {
            self.namespace.unregister_bind().await;
        }
    }

    /// Returns the change that sets the scheduler of a template.
    pub(super) fn by_own_scheduler(&self) -> Value {
        json!({ "spec": { "template": { "spec": { "schedulerName": self.namespace.name } } } })
    }

    /// Creates Deployments of ordinary pods: `web`, and `web-second` if there is a second scheduler, which takes a half.
    pub(super) async fn create_backlog(&self, replicas: usize, cpu: &str) {
        let mut halves = vec![("web", self.namespace.name.clone(), replicas)];
        if self.options.has_second_scheduler {
            halves[0].2 -= replicas / 2;
            halves.push(("web-second", second(&self.namespace.name), replicas / 2));
        }
        for (name, scheduler, replicas) in halves {
            let by = json!({ "spec": { "template": { "spec": { "schedulerName": scheduler } } } });
            self.namespace.create(&self.namespace.deployment(name, replicas, cpu, by)).await;
            self.number_of_pods(name, replicas).await;
        }
    }

    /// Waits until an app has so many pods, bound or not. The controllers may be slow.
    async fn number_of_pods(&self, app: &str, count: usize) {
        eventually_within(LONG, &format!("{count} pods of {app} exist"), async || {
            match self.namespace.pods(app).await.len() {
                there if there == count => Ok(()),
                there => Err(format!("{there} do")),
            }
        })
        .await;
    }

    pub(super) async fn daemon_pods_exist(&self, count: usize) {
        eventually_within(LONG, "all daemon pods exist", async || {
            let mut there = 0;
            for name in &self.daemons {
                there += self.namespace.pods(name).await.len();
            }
            if there == count { Ok(()) } else { Err(format!("{there} pods")) }
        })
        .await;
    }

    /// Waits until so many ordinary pods are bound, at least.
    pub(super) async fn ordinary_are_bound(&self, count: usize) {
        eventually_within(LONG, &format!("{count} ordinary pods are bound"), async || {
            match self.count().await.ordinary {
                bound if bound >= count => Ok(()),
                bound => Err(bound.to_string()),
            }
        })
        .await;
    }

    /// Waits for the daemon pods of `scenario` that are created late. Returns the numbers of bound ones, and of those with the new
    /// template, as soon as all are there, and after `at_most` in any case.
    pub(crate) async fn landed(&self, scenario: Scenario, at_most: Duration) -> (usize, usize) {
        let all = self.wanted();
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
    pub(super) async fn outcome(&self, happened: Instant, ordinary_a_node: usize) -> Outcome {
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
        counted.wanted = self.wanted();
        counted.ordinary_possible = ordinary_a_node * self.options.nodes;
        counted.evicted = self.namespace.recorder.preempted();
        counted.took = changed.duration_since(happened);
        if let Some(warden) = self.warden.as_ref().filter(|_| self.options.doors.has_bind()) {
            let refused = [("outcome", "refused")];
            counted.refused = warden.metric("daemonset_warden_bind_requests_total", &refused).await;
            let unjudged = [("outcome", "unjudged")];
            counted.unjudged = warden.metric("daemonset_warden_bind_requests_total", &unjudged).await;
            counted.unanswered = self.namespace.unanswered_bindings().await - self.unanswered_before;
        }
        counted
    }

    fn wanted(&self) -> usize {
        self.daemons.len() * self.options.nodes
    }

    pub(super) async fn count(&self) -> Outcome {
        let mut outcome = Outcome::default();
        for name in &self.daemons {
            for pod in self.namespace.pods(name).await.iter().filter(|pod| is_bound(pod)) {
                outcome.daemons += 1;
                outcome.updated += usize::from(pod.labels().get("version").is_some());
            }
        }
        for name in ["web", "web-second"] {
            outcome.ordinary += self.namespace.pods(name).await.iter().filter(|pod| is_bound(pod)).count();
        }
        outcome
    }
}

async fn start_warden(namespace: &TestNamespace<&'static ControlPlane>, options: &ScenarioOptions) -> Warden {
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let mut config = json!({ "reservation": options.reservation });
    // `NOMINATE=false` in the environment runs the scenario without nomination.
    if std::env::var("NOMINATE").is_ok_and(|value| value == "false") {
        config["reservation"]["nominate"] = json!(false);
    }
    let mut config = namespace.holding_here(config);
    if let Some(beside) = &options.beside {
        let namespaces = [beside, &namespace.name];
        let named = json!({ "key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces });
        config["reservation"]["namespaceSelector"] = json!({ "matchExpressions": [named] });
    }
    Warden::start(WardenOptions { config, kubeconfig }).await
}

/// Returns the name of the second scheduler.
fn second(name: &str) -> String {
    format!("{name}-second")
}
