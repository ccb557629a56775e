//! The measure of a run: pods that are created all the time, calls, and the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{ControlPlane, NodeOptions, POOL, TestNamespace, Warden, is_bound};

/// The time in which a pod is bound that nothing keeps off.
const PROMPT: Duration = Duration::from_secs(3);

/// The measures of a run.
#[derive(Debug)]
pub(super) struct Report {
    /// The number of pods of higher priority that were refused for reserved room.
    pub(super) important_refused: usize,
    /// The time in which a pod of equal priority waited on a node that only the tenant's DaemonSets want.
    pub(super) waited: Duration,
    pub(super) slowest_call: Duration,
    pub(super) peak_mib: u64,
    pub(super) process: u32,
}

/// A running measure.
pub(super) struct Probe {
    is_over: Arc<AtomicBool>,
    pods: JoinHandle<Duration>,
    calls: JoinHandle<Duration>,
    events: Api<Event>,
    process: u32,
}

impl Probe {
    /// Creates a node that only the tenant's DaemonSets want, and begins.
    pub(super) async fn start(namespace: &TestNamespace<&'static ControlPlane>, warden: &Warden) -> Self {
        let client = namespace.client.clone();
        let class = namespace.priority_class("prod", 1_000_000).await;
        let pool = format!("{}-probe", namespace.name);
        let mut node = NodeOptions::default().node(&pool);
        node.labels_mut().insert(POOL.to_owned(), pool.clone());
        Api::all(client.clone()).create(&PostParams::default(), &node).await.expect("a node");
        let is_over = Arc::new(AtomicBool::new(false));
        let pod = |name: &str, class: &str, count: u64| -> Pod {
            let change = json!({
                "metadata": { "name": format!("{name}-{count}") },
                "spec": {
                    "schedulerName": namespace.name,
                    "nodeSelector": { POOL: pool.clone() },
                    "priorityClassName": class,
                },
            });
            namespace.pod(name, "400m", change)
        };
        let (equal, important) = (pod("equal", "", 0), pod("important", &class, 0));
        let api: Api<Pod> = namespace.api();
        let over = is_over.clone();
        let pods = tokio::spawn(async move { run_pods(api, equal, important, &over).await });
        let (calls_over, url) = (is_over.clone(), Caller::of(warden));
        let name = pool.clone();
        let calls = tokio::spawn(async move { run_calls(&url, &name, &calls_over).await });
        Self { is_over, pods, calls, events: namespace.api(), process: warden.id() }
    }

    pub(super) async fn stop(self) -> Report {
        self.is_over.store(true, Ordering::Relaxed);
        let waited = self.pods.await.expect("no panic");
        let slowest_call = self.calls.await.expect("no panic");
        let failed = ListParams::default().fields("reason=FailedScheduling");
        let events = self.events.list(&failed).await.expect("Events can be listed").items;
        let is_about_important = |event: &&Event| {
            event.involved_object.name.as_ref().is_some_and(|name| name.starts_with("important-"))
                && event.message.as_ref().is_some_and(|message| message.contains("kept room"))
        };
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process)).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        Report {
            important_refused: events.iter().filter(is_about_important).count(),
            waited,
            slowest_call,
            peak_mib: peak_kib / 1024,
            process: self.process,
        }
    }
}

/// Creates a pod of each priority, waits until they are bound, deletes them, and begins again. Returns the time that pods of equal priority
/// waited beyond the ordinary.
async fn run_pods(api: Api<Pod>, equal: Pod, important: Pod, is_over: &AtomicBool) -> Duration {
    let mut waited = Duration::ZERO;
    let mut count = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        count += 1;
        let named = |pod: &Pod| {
            let mut pod = pod.clone();
            let name = pod.name_any();
            pod.metadata.name = Some(format!("{}-{count}", name.trim_end_matches("-0")));
            pod
        };
        let begun = Instant::now();
        let names: Vec<String> =
            [named(&important), named(&equal)].iter().map(ResourceExt::name_any).collect();
        for pod in [named(&important), named(&equal)] {
            api.create(&PostParams::default(), &pod).await.expect("a pod");
        }
        let is_equal_bound = async || api.get(&names[1]).await.is_ok_and(|pod| is_bound(&pod));
        while !is_equal_bound().await && !is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        waited += begun.elapsed().saturating_sub(PROMPT);
        for name in names {
            let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    waited
}

/// Calls the filter ten times a second, as a scheduler does. Returns the longest time of a call.
async fn run_calls(caller: &Caller, node: &str, is_over: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    let mut count = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        count += 1;
        let body = filter_body(&format!("call-{count}"), "1m", &[node.to_owned()]);
        let begun = Instant::now();
        caller.post("/scheduler/filter", body.to_string()).await.expect("an answer");
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    slowest
}

/// Asks with a pod that does not exist. Returns true if it is refused on every node.
pub(super) async fn asks(warden: &Warden, cpu: &str, nodes: &[String]) -> bool {
    let body = filter_body("asked", cpu, nodes);
    let answer = Caller::of(warden).post("/scheduler/filter", body.to_string()).await.expect("an answer");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    answer["NodeNames"].as_array().is_none_or(Vec::is_empty)
}

pub(super) fn filter_body(uid: &str, cpu: &str, nodes: &[String]) -> Value {
    let containers = json!([{ "name": "main", "resources": { "requests": { "cpu": cpu } } }]);
    json!({
        "Pod": { "metadata": { "name": uid, "namespace": "default", "uid": uid }, "spec": { "containers": containers } },
        "NodeNames": nodes,
    })
}

/// A client of the warden's port, on a connection of its own.
#[derive(Clone)]
pub(super) struct Caller {
    client: Client,
}

impl Caller {
    pub(super) fn of(warden: &Warden) -> Self {
        let mut config = Config::new(warden.url().parse().expect("a URL"));
        let certificates = rustls_pki_types::pem::PemObject::pem_slice_iter(warden.ca.as_bytes())
            .map(|der: Result<rustls_pki_types::CertificateDer<'_>, _>| der.expect("a certificate").to_vec());
        config.root_cert = Some(certificates.collect());
        config.default_retry = false;
        Self { client: Client::try_from(config).expect("a client") }
    }

    /// Sends a body and returns the answer's.
    pub(super) async fn post(&self, path: &str, body: String) -> Result<String, kube::Error> {
        let request = axum::http::Request::post(path).header("content-type", "application/json");
        self.client.request_text(request.body(body.into_bytes()).expect("a request")).await
    }
}
