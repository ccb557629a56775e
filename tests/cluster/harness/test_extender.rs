//! A test's own scheduler with the warden as its extender: what most tests of kept room need.

use kube::Client;
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::scheduler::{Extender, Scheduler, SchedulerOptions};
use super::test_namespace::TestNamespace;
use super::warden::{Warden, WardenOptions};

/// A namespace, a warden that watches the cluster, and a scheduler of the namespace's name that asks it.
pub(crate) struct TestExtender {
    pub(crate) arena: TestNamespace<&'static ControlPlane>,
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
        let arena = TestNamespace::shared(name).await;
        let kubeconfig = Some(arena.warden_kubeconfig().await);
        let config = arena.holding_here(config);
        let warden = Warden::start(WardenOptions { config, kubeconfig }).await;
        let options = SchedulerOptions { extenders: extenders(&warden), ..SchedulerOptions::default() };
        Self::with(arena, warden, options).await
    }

    /// On a control plane and with a warden of the test's choice. The scheduler gets the namespace's name.
    pub(crate) async fn with(
        arena: TestNamespace<&'static ControlPlane>,
        warden: Warden,
        options: SchedulerOptions,
    ) -> Self {
        let options = SchedulerOptions { name: arena.namespace.clone(), ..options };
        let plane = arena.plane;
        let scheduler =
            tokio::task::spawn_blocking(move || plane.scheduler(&options)).await.expect("a scheduler");
        Self { arena, warden, _scheduler: scheduler }
    }

    /// A DaemonSet whose pods the test's scheduler places; `spec` is merged into its template's.
    pub(crate) async fn daemon_set(&self, name: &str, cpu: &str, spec: Value) {
        self.daemon_set_by(&self.arena.namespace, name, cpu, spec).await;
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
        self.arena.create(&self.arena.daemon_set(name, changes)).await;
    }

    /// Ordinary pods of 1 CPU.
    pub(crate) async fn ordinary(&self, name: &str, replicas: usize, spec: Value) {
        let mut changes =
            json!({ "spec": { "template": { "spec": { "schedulerName": self.arena.namespace } } } });
        json_patch::merge(&mut changes, &json!({ "spec": { "template": { "spec": spec } } }));
        self.arena.create(&self.arena.deployment(name, replicas, "1", changes)).await;
    }

    pub(crate) fn client(&self) -> Client {
        self.arena.client.clone()
    }
}
