//! The chart, installed by the real Helm; and the part of the kubelet: what its Deployment says, as processes.

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

/// Release, namespace, and so the name of all that is in it.
pub(crate) const RELEASE: &str = "daemonset-warden";

/// A release of the chart on a control plane of the test's own: its objects are cluster-wide.
pub(crate) struct Release {
    pub(crate) plane: Arc<ControlPlane>,
    pub(crate) client: Client,
    pub(crate) kubectl: Kubectl,
    home: PathBuf,
    /// Ports that are free on this machine: pods have an address each there, but other programs may listen on all.
    ports: [String; 3],
    pub(crate) service: Option<ClusterIp>,
}

impl Release {
    /// Nothing is installed yet.
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
        // What the test says of the namespace comes later, and wins.
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

    /// `helm install`, with the chart's own values but for ports.
    pub(crate) async fn install(&mut self, values: &[&str]) {
        self.put("install", &[&["--create-namespace"], values].concat()).await;
        let services: Api<Service> = Api::namespaced(self.client.clone(), RELEASE);
        let spec = services.get(RELEASE).await.expect("the chart's Service").spec.unwrap_or_default();
        let address: Ipv4Addr = spec.cluster_ip.expect("a ClusterIP").parse().expect("an IPv4 address");
        let port = spec.ports.unwrap_or_default().first().expect("a port").port;
        self.service = Some(ClusterIp::start(address, port.try_into().expect("a port")));
    }

    /// `helm upgrade`.
    pub(crate) async fn upgrade(&self, values: &[&str]) {
        self.put("upgrade", values).await;
    }

    async fn put(&self, verb: &str, values: &[&str]) {
        let chart = chart();
        let ports = self.ports.iter().flat_map(|value| ["--set", value]);
        let args = [verb, RELEASE, chart.to_str().expect("UTF-8")].into_iter().chain(ports);
        self.helm_succeeds(&args.chain(values.iter().copied()).collect::<Vec<_>>()).await;
    }

    /// `helm rollback` to a revision.
    pub(crate) async fn roll_back(&self, revision: &str) {
        self.helm_succeeds(&["rollback", RELEASE, revision]).await;
    }

    /// `helm uninstall`.
    pub(crate) async fn uninstall(&self) {
        self.helm_succeeds(&["uninstall", RELEASE]).await;
    }

    /// Starts a replica as the Deployment describes it, and adds it to the Service's endpoints once it is ready.
    pub(crate) async fn start_replica(&self) -> Replica {
        let mut replica = self.start_unready_replica().await;
        replica.ready().await;
        self.endpoints().add(replica.https());
        replica
    }

    /// The same, before its readiness probe says yes: nobody reaches it.
    pub(crate) async fn start_unready_replica(&self) -> Replica {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), RELEASE);
        let deployment = api.get(RELEASE).await.expect("the chart's Deployment");
        let template = deployment.spec.expect("a spec").template.spec.expect("a pod's spec");
        Replica::start(self, &template).await
    }

    /// The pod of the chart's extender DaemonSet, on the node of this machine's loopback address.
    pub(crate) async fn start_extender(&self) -> Replica {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), RELEASE);
        let daemon_set = api.get(&format!("{RELEASE}-extender")).await.expect("the chart's DaemonSet");
        let template = daemon_set.spec.expect("a spec").template.spec.expect("a pod's spec");
        let mut replica = Replica::start(self, &template).await;
        replica.ready().await;
        replica
    }

    /// Both replicas.
    pub(crate) async fn start_replicas(&self) -> Vec<Replica> {
        let (one, other) = futures::join!(self.start_replica(), self.start_replica());
        vec![one, other]
    }

    pub(crate) fn endpoints(&self) -> &ClusterIp {
        self.service.as_ref().expect("installed")
    }

    /// Ends a replica as the kubelet does: the endpoint goes, if late, preStop, SIGTERM, and what is left of the grace period.
    pub(crate) async fn stop_replica(&self, mut replica: Replica) {
        let address = replica.https();
        // What kube-proxy takes to hear of it, within which calls still go to a pod that is ending.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        self.endpoints().remove(address);
        tokio::time::sleep(replica.pre_stop.saturating_sub(std::time::Duration::from_secs(2))).await;
        replica.terminate().await;
    }

    /// How often the apiserver has called `validate` or `mutate` and got an answer: its own count.
    pub(crate) async fn answered(&self, webhook: &str) -> f64 {
        let name = format!("{webhook}.daemonset-warden.io");
        self.apiserver_metric(
            "apiserver_admission_webhook_request_total",
            &[("name", &name), ("code", "200")],
        )
        .await
    }

    /// How often it went on without an answer, because the failure policy is Ignore.
    pub(crate) async fn failed_open(&self) -> f64 {
        self.apiserver_metric("apiserver_admission_webhook_fail_open_count", &[]).await
    }

    async fn apiserver_metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let request = axum::http::Request::get("/metrics").body(Vec::new()).expect("a request");
        let text = self.client.request_text(request).await.expect("the apiserver's metrics");
        super::metrics::sum(&text, name, labels)
    }

    /// Creates a DaemonSet and a daemon pod as a dry run until both were shown to a replica that answered.
    pub(crate) async fn in_force(&self) {
        eventually("both webhooks are in force", async || {
            self.probe().await;
            let answered = (self.answered("validate").await, self.answered("mutate").await);
            if answered.0 > 0.0 && answered.1 > 0.0 { Ok(()) } else { Err(format!("answered {answered:?}")) }
        })
        .await;
    }

    /// Asks for a DaemonSet and a daemon pod, as a dry run; refused or not.
    pub(crate) async fn probe(&self) {
        let dry_run = kube::api::PostParams { dry_run: true, ..Default::default() };
        let daemon_sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), "default");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let (daemon_set, pod) = (daemon_set("probe"), daemon_pod("probe", "node"));
        // Refused or not: what counts is who was asked.
        let _ = futures::join!(daemon_sets.create(&dry_run, &daemon_set), pods.create(&dry_run, &pod));
    }

    /// As docs/install.md wires it, with the CA of the Secret.
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

    /// The Secret that the replicas share.
    pub(crate) async fn secret(&self) -> Secret {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), RELEASE);
        api.get(&format!("{RELEASE}-tls")).await.expect("the Secret of the CA")
    }

    /// The bundle of one of the two, in base64.
    pub(crate) async fn ca_bundle(&self, kind: &str) -> String {
        let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        self.kubectl.succeed(&["get", &format!("{kind}webhookconfiguration"), RELEASE, "-o", path]).await
    }

    /// Waits until the service account has been made known, and gives a token of it.
    pub(super) async fn token(&self, service_account: &str) -> String {
        eventually("the chart's service account has a token", async || {
            let outcome = self.kubectl.run(&["create", "token", service_account, "--duration=1h"]).await;
            if outcome.success { Ok(outcome.stdout.trim().to_owned()) } else { Err(outcome.stderr) }
        })
        .await
    }
}

/// A DaemonSet that is valid, and warned of: nothing reserves its room.
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

/// A pod as a controller makes it that binds its pods by itself: it gets an affinity instead.
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

/// An address on this machine for a pod: every one of 127.0.0.0/8 leads here. Apart from those of Services.
pub(super) fn pod_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Test processes run side by side.
    let process = u8::try_from(128 + std::process::id() % 100).expect("below 228");
    let [high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(127, process, high, low)
}
