//! The measure of a run: pods that are created all the time, calls, and the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::caller::Caller;
use super::door::{Door, forged_pod};
use super::process::Identity;
use crate::harness::{ControlPlane, NodeOptions, POOL, TestNamespace, Warden, is_bound};

/// The CPU of the probe's node. Two of its pods fit, and one beside a hold of 900m does not.
const CPU: &str = "1200m";
/// The CPU of each pod.
const POD_CPU: &str = "400m";
/// The interval between two looks at the pods: the error of each measured time.
const INTERVAL: Duration = Duration::from_millis(100);
/// One call in so many has a connection of its own: a newcomer.
const NEWCOMERS: usize = 5;

/// The measures of a run.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) lasted: Duration,
    /// The number of times that pods of each priority were created.
    pub(super) turns: u64,
    /// The number of pods of higher priority that were refused for reserved room.
    pub(super) important_refused: usize,
    /// The number of pods of equal priority that were refused for reserved room, by the tenant's DaemonSets alone.
    pub(super) equal_refused: usize,
    /// The time for which pods of equal priority waited longer than those on a node that no DaemonSet selects.
    pub(super) waited: Duration,
    pub(super) calls: Calls,
    pub(super) peak_mib: u64,
    /// The process at the start and at the end.
    pub(super) process: (Identity, Option<Identity>),
}

/// The times of the calls.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) count: usize,
    pub(super) failed: Vec<String>,
    pub(super) median: Duration,
    /// The time within which 95 of 100 were answered.
    pub(super) most: Duration,
    pub(super) slowest: Duration,
}

/// A running measure.
pub(super) struct Probe {
    begun: Instant,
    is_over: Arc<AtomicBool>,
    pods: JoinHandle<(Duration, u64)>,
    calls: JoinHandle<Calls>,
    events: Api<Event>,
    process: Identity,
    door: Door,
}

/// Returns the pool of the node that only the tenant's DaemonSets select, which is also its name.
pub(super) fn pool(namespace: &str) -> String {
    format!("{namespace}-probe")
}

impl Probe {
    /// Creates a node that only the tenant's DaemonSets select and one that no DaemonSet selects, and begins.
    pub(super) async fn start(
        namespace: &TestNamespace<&'static ControlPlane>,
        warden: &Warden,
        door: Door,
    ) -> Self {
        let client = namespace.client.clone();
        let class = namespace.priority_class("prod", 1_000_000).await;
        let pools = [pool(&namespace.name), format!("{}-control", namespace.name)];
        for pool in &pools {
            let mut node = NodeOptions { cpu: CPU, ..NodeOptions::default() }.node(pool);
            node.labels_mut().insert(POOL.to_owned(), pool.clone());
            Api::all(client.clone()).create(&PostParams::default(), &node).await.expect("a node");
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let pod = |name: &str, class: &str, pool: &str| -> Pod {
            let change = json!({ "spec": {
                "schedulerName": namespace.name, "nodeSelector": { POOL: pool }, "priorityClassName": class,
            } });
            namespace.pod(name, POD_CPU, change)
        };
        // In this order: the important pod is on the node, or on its way there, when the equal one is tried.
        let pods =
            [pod("important", &class, &pools[0]), pod("equal", "", &pools[0]), pod("control", "", &pools[1])];
        let (api, over): (Api<Pod>, _) = (namespace.api(), is_over.clone());
        let pods = tokio::spawn(async move { run_pods(&api, &pods, &over).await });
        // At `/bind` only a pod that exists is judged, and no scheduler takes this one.
        let asked = match door {
            Door::Filter => None,
            Door::Bind => {
                let pod = namespace.create(&namespace.unscheduled_pod("asked", "1m", json!({}))).await;
                Some(json!(pod))
            }
        };
        let (config, node, over) = (Caller::config(warden), pools[0].clone(), is_over.clone());
        // On a thread of its own, so that it measures nothing of this process.
        let calls = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(run_calls(door, asked, &config, &[node], &over))
        });
        let process = Identity::of(warden.id()).expect("it runs");
        Self { begun: Instant::now(), is_over, pods, calls, events: namespace.api(), process, door }
    }

    /// Ends the measure.
    pub(super) async fn stop(self) -> Report {
        let lasted = self.begun.elapsed();
        self.is_over.store(true, Ordering::Relaxed);
        let (waited, turns) = self.pods.await.expect("no panic");
        let calls = self.calls.await.expect("no panic");
        let events = self.events.list(&ListParams::default()).await.expect("Events can be listed").items;
        let refused = |prefix: &str| {
            let is_about = |event: &&Event| {
                event.involved_object.name.as_ref().is_some_and(|name| name.starts_with(prefix))
            };
            events.iter().filter(is_about).filter(|event| self.door.is_refusal(event)).count()
        };
        Report {
            lasted,
            turns,
            important_refused: refused("important-"),
            equal_refused: refused("equal-"),
            waited,
            calls,
            peak_mib: self.process.peak_mib(),
            process: (self.process, Identity::of(self.process.id)),
        }
    }
}

/// Creates the three pods, waits until they are bound, deletes them, and begins again. Returns the time for which equal pods waited
/// longer than control pods, and the number of turns.
async fn run_pods(api: &Api<Pod>, pods: &[Pod; 3], is_over: &AtomicBool) -> (Duration, u64) {
    let (mut waited, mut turns) = (Duration::ZERO, 0);
    while !is_over.load(Ordering::Relaxed) {
        turns += 1;
        let mut names = Vec::new();
        for pod in pods {
            let mut pod = pod.clone();
            let name = format!("{}-{turns}", pod.name_any());
            pod.metadata.name = Some(name.clone());
            api.create(&PostParams::default(), &pod).await.expect("a pod");
            names.push(name);
        }
        // The times at which the equal pod and the control were seen bound.
        let mut bound = [None; 2];
        while bound.contains(&None) && !is_over.load(Ordering::Relaxed) {
            for (bound, name) in bound.iter_mut().zip(&names[1..]).filter(|(bound, _)| bound.is_none()) {
                if api.get(name).await.is_ok_and(|pod| is_bound(&pod)) {
                    *bound = Some(Instant::now());
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
        let [equal, control] = bound.map(|bound| bound.unwrap_or_else(Instant::now));
        waited += equal.saturating_duration_since(control);
        for name in names {
            let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
        }
        tokio::time::sleep(3 * INTERVAL).await;
    }
    (waited, turns)
}

/// Asks ten times a second, as a scheduler does.
async fn run_calls(
    door: Door,
    asked: Option<Value>,
    config: &Config,
    nodes: &[String],
    is_over: &AtomicBool,
) -> Calls {
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    let caller = Caller::with(config.clone());
    while !is_over.load(Ordering::Relaxed) {
        let forged = || forged_pod(&format!("call-{}", times.len()), "1m");
        let pod = asked.clone().unwrap_or_else(forged);
        let newcomer = times.len().is_multiple_of(NEWCOMERS).then(|| Caller::with(config.clone()));
        let begun = Instant::now();
        if let Err(why) = door.ask(newcomer.as_ref().unwrap_or(&caller), &pod, nodes).await {
            failed.push(why);
        }
        times.push(begun.elapsed());
        tokio::time::sleep(INTERVAL).await;
    }
    times.sort();
    let share = |percent: usize| times[(times.len() - 1) * percent / 100];
    Calls { count: times.len(), failed, median: share(50), most: share(95), slowest: share(100) }
}
