//! The chart, installed by the real Helm. The pods of its Deployment run as processes: this file does the kubelet's part.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::{Api, Client};
use serde_json::json;

use super::cluster_ip::ClusterIp;
use super::control_plane::ControlPlane;
use super::kubectl::{Kubectl, Outcome};
use super::process::free_port;
use super::replica::Replica;
use super::run;
use super::scheduler::Extender;
use super::test_namespace::object;
use super::tools::tools;
use super::wait::eventually;
use super::webhooks::owned_by_daemon_set;

/// The name of the release, of its namespace, and so of most of its objects.
pub(crate) const RELEASE: &str = "daemonset-warden";

/// A release of the chart, on a control plane of its own, because some of its objects are cluster-wide.
pub(crate) struct Release {
    pub(crate) plane: Arc<ControlPlane>,
    pub(crate) client: Client,
    pub(crate) kubectl: Kubectl,
    home: PathBuf,
    /// Values of the chart for free ports. Each pod has its own address, but another program may listen on all addresses.
    ports: [String; 3],
    pub(crate) service: Option<ClusterIp>,
}

impl Release {
    /// Prepares a release; [`Self::install`] installs it.
    pub(crate) async fn on(plane: Arc<ControlPlane>) -> Self {
        let client = plane.client().await;
        let kubectl = Kubectl { kubeconfig: plane.kubeconfig(), namespace: RELEASE.to_owned() };
        let ports =
            ["service.port", "securePort", "metricsPort"].map(|value| format!("{value}={}", free_port()));
        Self { plane, client, kubectl, home: run::folder("helm"), ports, service: None }
    }

    /// Runs Helm as the administrator.
    pub(crate) async fn helm(&self, args: &[&str]) -> Outcome {
        let mut helm = Command::new(tools().program("helm"));
        // A namespace among the test's arguments comes later and wins.
        helm.args(["--namespace", RELEASE]).args(args).env("KUBECONFIG", self.plane.kubeconfig());
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME"] {
            helm.env(name, &self.home);
        }
        let output = tokio::task::spawn_blocking(move || helm.output().expect("failed to start helm"));
        let output = output.await.expect("no panic");
        Outcome {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    async fn helm_succeeds(&self, args: &[&str]) {
        let outcome = self.helm(args).await;
        assert!(outcome.success, "helm {args:?} failed: {outcome:?}");
    }

    /// Runs `helm install`, with free ports and these values.
    pub(crate) async fn install(&mut self, values: &[&str]) {
        self.install_without_cluster_ip(values).await;
        let services: Api<Service> = Api::namespaced(self.client.clone(), RELEASE);
        let spec = services.get(RELEASE).await.expect("the chart's Service").spec.unwrap_or_default();
        let address: Ipv4Addr = spec.cluster_ip.expect("a ClusterIP").parse().expect("an IPv4 address");
        let port = spec.ports.unwrap_or_default().first().expect("a port").port;
        self.service = Some(ClusterIp::start(address, port.try_into().expect("a port")));
    }

    /// Runs `helm install`, with free ports and these values, and leaves the way to the replicas to the test.
    pub(crate) async fn install_without_cluster_ip(&self, values: &[&str]) {
        self.put("install", &[&["--create-namespace"], values].concat()).await;
    }

    /// Runs `helm upgrade`.
    pub(crate) async fn upgrade(&self, values: &[&str]) {
        self.put("upgrade", values).await;
    }

    async fn put(&self, verb: &str, values: &[&str]) {
        self.put_chart(verb, &chart(), values).await;
    }

    /// Runs `helm install` with a chart of another version, as [`Self::install_without_cluster_ip`].
    pub(crate) async fn install_chart(&self, chart: &Path, values: &[&str]) {
        self.put_chart("install", chart, &[&["--create-namespace"], values].concat()).await;
    }

    async fn put_chart(&self, verb: &str, chart: &Path, values: &[&str]) {
        let ports = self.ports.iter().flat_map(|value| ["--set", value]);
        let args = [verb, RELEASE, chart.to_str().expect("UTF-8")].into_iter().chain(ports);
        self.helm_succeeds(&args.chain(values.iter().copied()).collect::<Vec<_>>()).await;
    }

    /// Runs `helm rollback` to a revision.
    pub(crate) async fn roll_back(&self, revision: &str) {
        self.helm_succeeds(&["rollback", RELEASE, revision]).await;
    }

    /// Runs `helm uninstall`.
    pub(crate) async fn uninstall(&self) {
        self.helm_succeeds(&["uninstall", RELEASE]).await;
    }

    /// Starts a replica by the Deployment's template, and adds it to the Service's endpoints when it is ready.
    pub(crate) async fn start_replica(&self) -> Replica {
        let mut replica = self.start_unready_replica().await;
        replica.ready().await;
        self.endpoints().add(replica.https());
        replica
    }

    /// Starts a replica that is not yet an endpoint of the Service.
    pub(crate) async fn start_unready_replica(&self) -> Replica {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), RELEASE);
        let deployment = api.get(RELEASE).await.expect("the chart's Deployment");
        let template = deployment.spec.expect("a spec").template.spec.expect("a pod's spec");
        Replica::start(self, &template).await
    }

    /// Starts the pod of the chart's extender DaemonSet, in the host's network, which is the loopback interface here.
    pub(crate) async fn start_extender(&self) -> Replica {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), RELEASE);
        let daemon_set = api.get(&format!("{RELEASE}-extender")).await.expect("the chart's DaemonSet");
        let template = daemon_set.spec.expect("a spec").template.spec.expect("a pod's spec");
        let mut replica = Replica::start(self, &template).await;
        replica.ready().await;
        replica
    }

    /// Starts two replicas.
    pub(crate) async fn start_replicas(&self) -> Vec<Replica> {
        let (one, other) = futures::join!(self.start_replica(), self.start_replica());
        vec![one, other]
    }

    pub(crate) fn endpoints(&self) -> &ClusterIp {
        self.service.as_ref().expect("installed")
    }

    /// Ends a replica as the kubelet does: preStop, SIGTERM, and the rest of the grace period. Its endpoint is removed 2 s
    /// late.
    pub(crate) async fn stop_replica(&self, mut replica: Replica) {
        let address = replica.https();
        // kube-proxy hears of the change with a delay, and meanwhile sends new connections to the pod that is ending.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        self.endpoints().remove(address);
        tokio::time::sleep(replica.pre_stop.saturating_sub(std::time::Duration::from_secs(2))).await;
        replica.terminate().await;
    }

    /// Returns the number of answered calls of the webhook `validate` or `mutate`, as the apiserver counts them.
    pub(crate) async fn answered(&self, webhook: &str) -> f64 {
        let name = format!("{webhook}.daemonset-warden.io");
        self.apiserver_metric(
            "apiserver_admission_webhook_request_total",
            &[("name", &name), ("code", "200")],
        )
        .await
    }

    /// Returns the number of DaemonSets and daemon pods that the apiserver admitted without an answer, because the failure policy
    /// is Ignore. The Service of `/bind` is not served here.
    pub(crate) async fn failed_open(&self) -> f64 {
        let mut failed = 0.0;
        for name in ["validate.daemonset-warden.io", "mutate.daemonset-warden.io"] {
            failed +=
                self.apiserver_metric("apiserver_admission_webhook_fail_open_count", &[("name", name)]).await;
        }
        failed
    }

    pub(crate) async fn apiserver_metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let request = axum::http::Request::get("/metrics").body(Vec::new()).expect("a request");
        let text = self.client.request_text(request).await.expect("the apiserver's metrics");
        super::metrics::sum(&text, name, labels)
    }

    /// Waits until both webhooks have answered, by creating a DaemonSet and a daemon pod as dry runs.
    pub(crate) async fn in_force(&self) {
        eventually("both webhooks are in force", async || {
            self.probe().await;
            let answered = (self.answered("validate").await, self.answered("mutate").await);
            if answered.0 > 0.0 && answered.1 > 0.0 { Ok(()) } else { Err(format!("answered {answered:?}")) }
        })
        .await;
    }

    /// Creates a DaemonSet and a daemon pod as dry runs, and ignores the result.
    pub(crate) async fn probe(&self) {
        let dry_run = kube::api::PostParams { dry_run: true, ..Default::default() };
        let daemon_sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), "default");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let (daemon_set, pod) = (daemon_set("probe"), daemon_pod("probe", "node"));
        // The apiserver may refuse them; only the calls of the webhooks matter.
        let _ = futures::join!(daemon_sets.create(&dry_run, &daemon_set), pods.create(&dry_run, &pod));
    }

    /// Returns the extender entry of docs/install.md, with the CA of the Secret.
    pub(crate) async fn extender(&self, url_prefix: String) -> Extender {
        let data = self.secret().await.data.unwrap_or_default();
        let ca = data.get("ca.crt").map(|value| String::from_utf8_lossy(&value.0).into_owned());
        Extender {
            url_prefix,
            ca: ca.expect("a CA"),
            node_cache_capable: true,
            ignorable: true,
            http_timeout: "300ms",
            preempts: true,
        }
    }

    /// Returns the Secret that the replicas share.
    pub(crate) async fn secret(&self) -> Secret {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), RELEASE);
        api.get(&format!("{RELEASE}-tls")).await.expect("the Secret of the CA")
    }

    /// Returns the `caBundle` of the `validating` or `mutating` webhook configuration, in base64.
    pub(crate) async fn ca_bundle(&self, kind: &str) -> String {
        self.ca_bundle_of(kind, RELEASE).await
    }

    /// Returns the `caBundle` of the `validating` or `mutating` webhook configuration of that name, in base64.
    pub(crate) async fn ca_bundle_of(&self, kind: &str, name: &str) -> String {
        let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        self.kubectl.succeed(&["get", &format!("{kind}webhookconfiguration"), name, "-o", path]).await
    }

    /// Waits until the service account exists, and returns a token of it.
    pub(super) async fn token(&self, service_account: &str) -> String {
        eventually("the chart's service account has a token", async || {
            let outcome = self.kubectl.run(&["create", "token", service_account, "--duration=1h"]).await;
            if outcome.success { Ok(outcome.stdout.trim().to_owned()) } else { Err(outcome.stderr) }
        })
        .await
    }
}

/// Returns a valid DaemonSet without requests, for which the warden returns a warning.
pub(crate) fn daemon_set(name: &str) -> DaemonSet {
    object(json!({
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "main", "image": "example.test/main:1" }] },
            },
        },
    }))
}

/// Returns a daemon pod with a node name, as a controller creates it that binds its own pods. The warden replaces the node
/// name by a node affinity.
pub(crate) fn daemon_pod(name: &str, node: &str) -> Pod {
    let mut pod = owned_by_daemon_set(name, "00000000");
    pod["metadata"]["name"] = json!(name);
    pod["spec"] = json!({
        "nodeName": node, "containers": [{ "name": "main", "image": "example.test/main:1" }],
    });
    object(pod)
}

/// The chart's folder.
pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/daemonset-warden")
}

/// Returns a new address of 127.0.0.0/8 for a pod, outside of the range of Services.
pub(super) fn pod_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Several test processes may run at once.
    let process = u8::try_from(128 + std::process::id() % 100).expect("below 228");
    let [high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(127, process, high, low)
}
