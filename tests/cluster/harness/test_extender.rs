//! A scheduler with the warden as its extender, for one test. Most tests of holds use this.

use kube::Client;
use serde_json::{Value, json};

use super::bind_webhook::BindWebhook;
use super::control_plane::ControlPlane;
use super::doors::Doors;
use super::scheduler::{Extender, Scheduler, SchedulerOptions};
use super::test_namespace::TestNamespace;
use super::warden::{Warden, WardenOptions};

/// A namespace, a warden that watches the cluster, and a scheduler named like the namespace that calls the warden.
pub(crate) struct TestExtender {
    pub(crate) namespace: TestNamespace<&'static ControlPlane>,
    pub(crate) warden: Warden,
    _scheduler: Scheduler,
}

impl TestExtender {
    pub(crate) async fn start(name: &str, config: Value) -> Self {
        Self::start_with(name, config, |warden| vec![Extender { preempts: true, ..warden.extender() }]).await
    }

    /// Starts with the doors that the test chooses.
    pub(crate) async fn start_by(name: &str, doors: Doors, config: Value) -> Self {
        let asked = |warden: &Warden| {
            let extender = Extender { preempts: true, http_timeout: "5s", ..warden.extender() };
            doors.has_extender().then_some(extender).into_iter().collect()
        };
        let test = Self::start_with(name, config, asked).await;
        if doors.has_bind() {
            test.namespace.register_bind(&test.warden, &BindWebhook::default()).await;
        }
        test
    }

    /// Starts with the extenders that the test chooses: the warden with other options, or none.
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

    /// Starts a scheduler, named like the namespace, for a namespace and a warden that the test has made.
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

    /// Creates a DaemonSet for the test's scheduler; `spec` is merged into its template's spec.
    pub(crate) async fn daemon_set(&self, name: &str, cpu: &str, spec: Value) {
        self.daemon_set_by(&self.namespace.name, name, cpu, spec).await;
    }

    /// Creates a DaemonSet for a scheduler that does not run: its pods are missing on every node as long as it exists.
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

    /// Creates a Deployment of ordinary pods, of 1 CPU each.
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
