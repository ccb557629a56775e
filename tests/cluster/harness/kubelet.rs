//! The kubelet's part for the Pods of a release: each Pod that its controller creates and the scheduler binds runs as a process, at
//! an address of its own that its status names. The controllers write EndpointSlices from these Pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::metrics;
use super::network_namespace::pod_address;
use super::release::{RELEASE, Release};
use super::replica::Replica;
use super::stages::{GONE_AFTER, NEVER, READY_AFTER};
use super::test_namespace::node_of;

/// The interval between two looks at the Pods. A kubelet hears of a change faster, and probes more seldom.
const INTERVAL: Duration = Duration::from_millis(100);
/// The time from the end of a container to its next start. A kubelet starts the first one again at once.
const RESTART: Duration = Duration::from_secs(1);

/// Runs Pods until it is dropped.
pub(crate) struct Kubelet {
    state: Arc<Mutex<KubeletState>>,
    task: JoinHandle<()>,
}

/// Reads a gauge of all processes.
pub(crate) struct GaugeReader {
    state: Arc<Mutex<KubeletState>>,
    name: &'static str,
}

impl GaugeReader {
    /// Returns the names of the Pods whose process runs and had the value 1 when it was last read.
    pub(crate) async fn now(&self) -> Vec<String> {
        let state = self.state.lock().await;
        let is_set =
            |pod: &&RunningPod| pod.ended.is_none() && metrics::sum(&pod.metrics, self.name, &[]) == 1.0;
        state.pods.values().filter(is_set).map(|pod| pod.name.clone()).collect()
    }
}

struct KubeletState {
    release: Arc<Release>,
    /// By UID.
    pods: BTreeMap<String, RunningPod>,
    /// The last metrics of each process that has ended.
    ended: Vec<String>,
    last_address: u8,
}

/// A Pod with its process.
struct RunningPod {
    name: String,
    replica: Replica,
    /// The last metrics that its process has answered.
    metrics: String,
    is_ready: bool,
    restarts: bool,
    /// The time at which its process was seen to have ended.
    ended: Option<Instant>,
    /// The time at which its deletion was seen.
    deleted: Option<Instant>,
    is_told_to_end: bool,
}

impl Kubelet {
    /// Returns values of the chart: KWOK leaves the Pods to this kubelet, and they run on nodes with this label.
    pub(crate) fn values(node_label: &str) -> [String; 4] {
        let annotations = json!({ READY_AFTER: NEVER, GONE_AFTER: NEVER });
        [
            "--set-json".to_owned(),
            format!("pod.annotations={annotations}"),
            "--set-json".to_owned(),
            format!("pod.nodeSelector={}", json!({ node_label: "yes" })),
        ]
    }

    /// Starts for a release that is installed.
    pub(crate) fn start(release: Arc<Release>) -> Self {
        let state = KubeletState { release, pods: BTreeMap::new(), ended: Vec::new(), last_address: 1 };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            loop {
                shared.lock().await.sync().await;
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { state, task }
    }

    /// Returns the names of the Pods whose process runs, and that are not being deleted.
    pub(crate) async fn living(&self) -> Vec<String> {
        let state = self.state.lock().await;
        let living =
            state.pods.values().filter(|pod| pod.deleted.is_none() && pod.ended.is_none() && pod.is_ready);
        living.map(|pod| pod.name.clone()).collect()
    }

    /// Returns the names of the Pods whose process has ended and is not started again, and that nobody has deleted.
    pub(crate) async fn lost(&self) -> Vec<String> {
        let state = self.state.lock().await;
        let lost =
            state.pods.values().filter(|pod| pod.ended.is_some() && !pod.restarts && pod.deleted.is_none());
        lost.map(|pod| pod.name.clone()).collect()
    }

    /// Returns a reader of a gauge.
    pub(crate) fn watch_gauge(&self, name: &'static str) -> GaugeReader {
        GaugeReader { state: self.state.clone(), name }
    }

    /// Returns the sum of a counter over all processes, also those that have ended: each as it was last seen.
    pub(crate) async fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let state = self.state.lock().await;
        let all = state.ended.iter().chain(state.pods.values().map(|pod| &pod.metrics));
        all.map(|text| metrics::sum(text, name, labels)).sum()
    }

    /// Sends SIGTERM to the process of a Pod that nobody deletes. Its container is started again.
    pub(crate) async fn terminate(&self, name: &str) {
        self.act(name, |pod| pod.replica.signal_end()).await;
    }

    /// Sends SIGKILL. The container is started again if `restarts`: a node that is lost starts nothing.
    pub(crate) async fn kill(&self, name: &str, restarts: bool) {
        self.act(name, |pod| {
            pod.restarts = restarts;
            pod.replica.kill();
        })
        .await;
    }

    /// Sends SIGSTOP.
    pub(crate) async fn freeze(&self, name: &str) {
        self.act(name, |pod| pod.replica.freeze()).await;
    }

    /// Sends SIGCONT.
    pub(crate) async fn thaw(&self, name: &str) {
        self.act(name, |pod| pod.replica.thaw()).await;
    }

    /// Returns the logs of the running processes, for a failure message.
    pub(crate) async fn logs(&self) -> String {
        let state = self.state.lock().await;
        let logs = state.pods.values().map(|pod| format!("== {}\n{}", pod.name, pod.replica.log()));
        logs.collect::<Vec<_>>().join("\n")
    }

    async fn act(&self, name: &str, act: impl FnOnce(&mut RunningPod)) {
        let mut state = self.state.lock().await;
        let pod = state.pods.values_mut().find(|pod| pod.name == name).expect("a running Pod");
        tokio::task::block_in_place(|| act(pod));
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl KubeletState {
    async fn sync(&mut self) {
        let api: Api<Pod> = Api::namespaced(self.release.client.clone(), RELEASE);
        let of_release = ListParams::default().labels("app.kubernetes.io/component=server");
        // The apiserver may be busy; the next look comes soon.
        let Ok(list) = api.list(&of_release).await else { return };
        for pod in &list.items {
            let uid = pod.uid().unwrap_or_default();
            if let Some(running) = self.pods.get_mut(&uid) {
                if pod.metadata.deletion_timestamp.is_some() && running.deleted.is_none() {
                    running.deleted = Some(Instant::now());
                }
            } else if node_of(pod).is_some() && pod.metadata.deletion_timestamp.is_none() {
                self.start_pod(&api, pod, uid).await;
            } else if pod.metadata.deletion_timestamp.is_some() {
                // It never ran.
                let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
            }
        }
        let mut gone = Vec::new();
        for (uid, pod) in &mut self.pods {
            // A frozen process must not block the others.
            if let Ok(Some(text)) =
                tokio::time::timeout(Duration::from_millis(300), pod.replica.metrics_if_any()).await
            {
                pod.metrics = text;
            }
            if pod.sync(&api).await {
                gone.push(uid.clone());
            }
        }
        for uid in gone {
            self.ended.extend(self.pods.remove(&uid).map(|pod| pod.metrics));
        }
        for pod in self.pods.values_mut().filter(|pod| pod.ended.is_some_and(|at| at.elapsed() > RESTART)) {
            if pod.restarts && pod.deleted.is_none() {
                // Another process counts from zero.
                self.ended.push(std::mem::take(&mut pod.metrics));
                pod.replica.restart();
                pod.ended = None;
            }
        }
    }

    async fn start_pod(&mut self, api: &Api<Pod>, pod: &Pod, uid: String) {
        self.last_address += 1;
        let (name, address) = (pod.name_any(), pod_address(self.last_address));
        let spec = without_token(pod.spec.clone().expect("a spec"));
        let replica = Replica::start_as(&self.release, &spec, name.clone(), address).await;
        let running = RunningPod {
            name,
            replica,
            metrics: String::new(),
            is_ready: false,
            restarts: true,
            ended: None,
            deleted: None,
            is_told_to_end: false,
        };
        let status = json!({ "status": {
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": "False" }, { "type": "PodScheduled", "status": "True" }],
        } });
        let _ = api.patch_status(&running.name, &PatchParams::default(), &Patch::Strategic(&status)).await;
        self.pods.insert(uid, running);
    }
}

impl RunningPod {
    /// Does the next step. Returns true if the Pod is gone.
    async fn sync(&mut self, api: &Api<Pod>) -> bool {
        if self.ended.is_none() && !self.replica.runs() {
            self.ended = Some(Instant::now());
        }
        if let Some(deleted) = self.deleted {
            if deleted.elapsed() >= self.replica.pre_stop && !self.is_told_to_end {
                self.is_told_to_end = true;
                self.replica.signal_end();
            }
            if self.ended.is_none() && deleted.elapsed() >= self.replica.pre_stop + self.replica.grace {
                tokio::task::block_in_place(|| self.replica.kill());
                self.ended = Some(Instant::now());
            }
            if self.ended.is_some() {
                let at_once = DeleteParams::default().grace_period(0);
                return api.delete(&self.name, &at_once).await.is_ok();
            }
        }
        let is_ready = self.ended.is_none()
            && tokio::time::timeout(Duration::from_millis(300), self.replica.is_ready())
                .await
                .unwrap_or(false);
        if is_ready != self.is_ready {
            let status = if is_ready { "True" } else { "False" };
            let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
            let patched =
                api.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(&ready)).await;
            if patched.is_ok() {
                self.is_ready = is_ready;
            }
        }
        false
    }
}

/// Removes the volume that the apiserver adds for the token of the service account: [`Replica`] writes its files.
fn without_token(mut spec: PodSpec) -> PodSpec {
    let is_kept = |name: &str| !name.starts_with("kube-api-access-");
    spec.volumes.get_or_insert_default().retain(|volume| is_kept(&volume.name));
    for container in &mut spec.containers {
        container.volume_mounts.get_or_insert_default().retain(|mount| is_kept(&mount.name));
    }
    spec
}
