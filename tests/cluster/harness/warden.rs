//! The warden: the real binary, as a process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use kube::{Client, Config};
use serde_json::{Value, json};

use super::certificates::Certificate;
use super::control_plane::{block_on, listens};
use super::image_environment::image_environment;
use super::metrics;
use super::process::{Component, Process, free_port};
use super::run;
use super::scheduler::Extender;

/// The options of a test's warden.
#[derive(Default)]
pub(crate) struct WardenOptions {
    /// Merged into an empty DaemonSetWardenConfiguration.
    pub(crate) config: Value,
    /// Without one, the warden runs standalone.
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// The names of a Pod, for the environment of its process.
#[allow(dead_code, reason = "benchmarks have no Pods")]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A running warden. Killed when dropped.
pub(crate) struct Warden {
    component: Component,
    process: Process,
    port: u16,
    metrics_port: u16,
    /// The CA of its certificate, in PEM.
    pub(crate) ca: String,
    /// The default priority class of its configuration, if there is one.
    pub(crate) class: Option<String>,
}

impl Warden {
    /// Starts a warden and waits until it is ready.
    pub(crate) async fn start(options: WardenOptions) -> Self {
        // The start blocks, which a thread of the caller's runtime must not do.
        tokio::task::spawn_blocking(move || Self::start_blocking(&options))
            .await
            .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// Starts a warden as the process of a Pod, with further arguments, and waits until it is ready.
    pub(crate) async fn start_as_pod(options: WardenOptions, pod: PodName, args: &[&str]) -> Self {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let environment = vec![("POD_NAMESPACE", pod.namespace), ("POD_NAME", pod.name)];
        tokio::task::spawn_blocking(move || Self::start_with(&options, args, environment))
            .await
            .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    fn start_blocking(options: &WardenOptions) -> Self {
        Self::start_with(options, Vec::new(), Vec::new())
    }

    fn start_with(
        options: &WardenOptions,
        further: Vec<String>,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let folder = run::folder("warden");
        let certificate = Certificate::issue();
        certificate.write(&folder);
        let (port, metrics_port) = (free_port(), free_port());
        let mut args = vec![
            "serve".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--metrics-bind-address=127.0.0.1:{metrics_port}"),
            format!("--tls-cert-file={}", folder.join("tls.crt").display()),
            format!("--tls-private-key-file={}", folder.join("tls.key").display()),
            format!("--config={}", write_configuration(&folder, &options.config).display()),
        ];
        args.extend(options.kubeconfig.iter().map(|file| format!("--kubeconfig={}", file.display())));
        args.extend(further);
        let component = Component {
            name: "daemonset-warden".to_owned(),
            program: PathBuf::from(env!("CARGO_BIN_EXE_daemonset-warden")),
            args,
            environment: image_environment().into_iter().chain(environment).collect(),
            folder,
            discard: None,
        };
        let process = component.start();
        let class = options.config["admission"]["defaultPriorityClassName"].as_str().map(str::to_owned);
        let mut warden = Self { component, process, port, metrics_port, ca: certificate.ca, class };
        warden.wait_until_ready();
        warden
    }

    /// Returns `https://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The port of the TLS listener.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the extender entry that docs/install.md recommends, without `preemptVerb`.
    pub(crate) fn extender(&self) -> Extender {
        Extender {
            url_prefix: format!("{}/scheduler", self.url()),
            ca: self.ca.clone(),
            node_cache_capable: true,
            ignorable: true,
            http_timeout: "300ms",
            preempts: false,
        }
    }

    /// Sends SIGKILL: open requests get no answer.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM, waits for the end and returns the exit status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.process.terminate();
        self.process.wait(Duration::from_secs(60))
    }

    /// Sends SIGSTOP: the kernel accepts connections, and the warden does not answer.
    pub(crate) fn freeze(&mut self) {
        self.process.freeze();
    }

    /// Sends SIGCONT.
    pub(crate) fn thaw(&mut self) {
        self.process.thaw();
    }

    /// Starts the warden again after its end, on the same ports.
    pub(crate) fn restart(&mut self) {
        self.process = self.component.start();
        self.wait_until_ready();
    }

    /// Returns the sum of a metric over all label sets that contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metrics::sum(&self.metrics().await, name, labels)
    }

    /// Returns its metrics, as text.
    pub(crate) async fn metrics(&self) -> String {
        get(self.metrics_port, "/metrics").await.expect("the warden's metrics")
    }

    /// Returns the number of filter calls that it has answered.
    pub(crate) async fn filter_calls(&self) -> f64 {
        self.metric("daemonset_warden_extender_duration_seconds_count", &[("verb", "filter")]).await
    }

    /// Returns its process id.
    #[allow(dead_code, reason = "benchmarks use it")]
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    fn wait_until_ready(&mut self) {
        let (port, metrics_port) = (self.port, self.metrics_port);
        self.process.ready(Duration::from_secs(30), || {
            listens(port) && block_on(async { get(metrics_port, "/readyz").await.is_ok() })
        });
    }
}

fn write_configuration(folder: &Path, changes: &Value) -> PathBuf {
    let mut configuration = json!({
        "apiVersion": "config.daemonset-warden.io/v1alpha1",
        "kind": "DaemonSetWardenConfiguration",
    });
    if !changes.is_null() {
        json_patch::merge(&mut configuration, changes);
    }
    let file = folder.join("config.yaml");
    // JSON is YAML.
    std::fs::write(&file, configuration.to_string()).expect("the configuration can be written");
    file
}

/// Sends a GET request to a plain HTTP port of 127.0.0.1.
async fn get(port: u16, path: &str) -> Result<String, kube::Error> {
    get_from((Ipv4Addr::LOCALHOST, port).into(), path).await
}

/// Sends a GET request to a plain HTTP address.
pub(crate) async fn get_from(address: SocketAddr, path: &str) -> Result<String, kube::Error> {
    let mut config = Config::new(format!("http://{address}").parse().expect("a URL"));
    config.default_retry = false;
    let request = axum::http::Request::get(path).body(Vec::new()).expect("a request");
    Client::try_from(config)?.request_text(request).await
}
