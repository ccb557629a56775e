//! A test's own scheduler with the warden as its extender: what most tests of kept room need.

use kube::Client;
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::scheduler::{Extender, Scheduler, SchedulerOptions};
use super::test_namespace::TestNamespace;
use super::warden::{Warden, WardenOptions};

/// A namespace, a warden that watches the cluster, and a scheduler of the namespace's name that asks it.
pub(crate) struct TestExtender {
    pub(crate) namespace: TestNamespace<&'static ControlPlane>,
    pub(crate) warden: Warden,
    _scheduler: Scheduler,
}

impl TestExtender {
    pub(crate) async fn start(name: &str, config: Value) -> Self {
        Self::start_with(name, config, |warden| vec![Extender { preempts: true, ..warden.extender() }]).await
    }

    /// With what the scheduler asks by the test's choice: the warden in another way, or nobody.
    pub(crate) async fn start_with(
        name: &str,
        config: Value,
        extenders: impl FnOnce(&Warden) -> Vec<Extender>,
    ) -> Self {
        let namespace = TestNamespace::shared(name).await;
        let kubeconfig = Some(namespace.warden_kubeconfig().await);
        let config = namespace.holding_here(config);
        let warden = Warden::start(WardenOptions { config, kubeconfig }).await;
        let options = SchedulerOptions { extenders: extenders(&warden), ..SchedulerOptions::default() };
        Self::with(namespace, warden, options).await
    }

    /// On a control plane and with a warden of the test's choice. The scheduler gets the namespace's name.
    pub(crate) async fn with(
        namespace: TestNamespace<&'static ControlPlane>,
        warden: Warden,
        options: SchedulerOptions,
    ) -> Self {
        let options = SchedulerOptions { name: namespace.name.clone(), ..options };
        let plane = namespace.plane;
        let scheduler =
            tokio::task::spawn_blocking(move || plane.scheduler(&options)).await.expect("a scheduler");
        Self { namespace, warden, _scheduler: scheduler }
    }

    /// A DaemonSet whose pods the test's scheduler places; `spec` is merged into its template's.
    pub(crate) async fn daemon_set(&self, name: &str, cpu: &str, spec: Value) {
        self.daemon_set_by(&self.namespace.name, name, cpu, spec).await;
    }

    /// A DaemonSet whose pods nobody places: it is missing on every node for as long as it exists.
    pub(crate) async fn missing_daemon_set(&self, name: &str, cpu: &str, spec: Value) {
        self.daemon_set_by("nobody", name, cpu, spec).await;
    }

    async fn daemon_set_by(&self, scheduler: &str, name: &str, cpu: &str, spec: Value) {
        let mut changes = json!({ "spec": { "template": { "spec": {
            "schedulerName": scheduler,
            "containers": [{
                "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": cpu } },
            }],
        } } } });
        json_patch::merge(&mut changes, &json!({ "spec": { "template": { "spec": spec } } }));
        self.namespace.create(&self.namespace.daemon_set(name, changes)).await;
    }

    /// Ordinary pods of 1 CPU.
    pub(crate) async fn ordinary(&self, name: &str, replicas: usize, spec: Value) {
        let mut changes =
            json!({ "spec": { "template": { "spec": { "schedulerName": self.namespace.name } } } });
        json_patch::merge(&mut changes, &json!({ "spec": { "template": { "spec": spec } } }));
        self.namespace.create(&self.namespace.deployment(name, replicas, "1", changes)).await;
    }

    pub(crate) fn client(&self) -> Client {
        self.namespace.client.clone()
    }
}
