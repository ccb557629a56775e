//! kube-schedulers, each with the extenders and the profile that a test needs.

use std::time::Duration;

use axum::http::Request;
use kube::{Client, Config};
use serde_json::{Value, json};

use super::components::Layout;
use super::control_plane::block_on;
use super::process::{Component, Process, free_port};

/// An entry of `extenders` in the KubeSchedulerConfiguration.
#[derive(Clone)]
pub(crate) struct Extender {
    /// Ends in `/scheduler`.
    pub(crate) url_prefix: String,
    /// In PEM; empty for a plain HTTP extender.
    pub(crate) ca: String,
    pub(crate) node_cache_capable: bool,
    pub(crate) ignorable: bool,
    pub(crate) http_timeout: &'static str,
    /// Adds `preemptVerb`: the scheduler calls the extender in preemption, too.
    pub(crate) preempts: bool,
}

/// The options of a test's scheduler.
#[derive(Clone)]
pub(crate) struct SchedulerOptions {
    /// The `schedulerName` of its pods.
    pub(crate) name: String,
    pub(crate) extenders: Vec<Extender>,
    /// A KubeSchedulerConfiguration to merge over the fields above, such as `scheduler-config` prints.
    pub(crate) written: Option<Value>,
    pub(crate) percentage_of_nodes_to_score: Option<u32>,
    /// Added to the environment of this process.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
    /// Added to the arguments of this process.
    pub(crate) flags: &'static [&'static str],
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            name: "default-scheduler".to_owned(),
            extenders: Vec::new(),
            written: None,
            percentage_of_nodes_to_score: None,
            environment: Vec::new(),
            flags: &[],
        }
    }
}

/// A running scheduler. Killed when dropped.
pub(crate) struct Scheduler {
    component: Component,
    process: Process,
    port: u16,
}

impl Scheduler {
    pub(crate) fn start(layout: &Layout, options: &SchedulerOptions) -> Self {
        // JSON is YAML.
        let text = configuration(layout, options).to_string();
        Self::with(layout, &options.name, &text, |component| {
            let environment = options.environment.iter().map(|&(name, value)| (name, value.to_owned()));
            component.environment.extend(environment);
            component.args.extend(options.flags.iter().map(|flag| (*flag).to_owned()));
        })
    }

    /// Starts a scheduler with a complete configuration. Leader election is off, because a scheduler that was killed before
    /// may still hold the Lease.
    pub(super) fn start_as_printed(layout: &Layout, name: &str, text: &str) -> Self {
        Self::with(layout, name, text, |component| component.args.push("--leader-elect=false".to_owned()))
    }

    fn with(layout: &Layout, name: &str, text: &str, change: impl FnOnce(&mut Component)) -> Self {
        let port = free_port();
        let name = format!("kube-scheduler-{name}");
        let file = layout.folder.join(format!("{name}.yaml"));
        std::fs::write(&file, text).expect("the configuration is written");
        let mut component = layout.scheduler(&name, port, &file);
        change(&mut component);
        let process = component.start();
        let mut scheduler = Self { component, process, port };
        scheduler.wait_until_ready();
        scheduler
    }

    /// Kills the scheduler and starts it again, with the same configuration.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = self.component.start();
        self.wait_until_ready();
    }

    /// Returns its metrics, as text.
    pub(crate) async fn metrics(&self) -> String {
        get(self.port, "/metrics").await.expect("a scheduler's metrics")
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    fn wait_until_ready(&mut self) {
        let port = self.port;
        self.process
            .ready(Duration::from_secs(60), || block_on(async { get(port, "/readyz").await.is_ok() }));
    }
}

fn configuration(layout: &Layout, options: &SchedulerOptions) -> Value {
    let mut configuration = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": { "leaderElect": false },
        "clientConnection": { "kubeconfig": layout.kubeconfig(), "qps": 2000, "burst": 4000 },
        "profiles": [{ "schedulerName": options.name }],
        "extenders": options.extenders.iter().map(extender).collect::<Vec<_>>(),
    });
    if let Some(percentage) = options.percentage_of_nodes_to_score {
        configuration["percentageOfNodesToScore"] = json!(percentage);
    }
    if let Some(written) = &options.written {
        json_patch::merge(&mut configuration, written);
    }
    configuration
}

fn extender(extender: &Extender) -> Value {
    use base64::Engine;
    let mut value = json!({
        "urlPrefix": extender.url_prefix,
        "filterVerb": "filter",
        "nodeCacheCapable": extender.node_cache_capable,
        "ignorable": extender.ignorable,
        "httpTimeout": extender.http_timeout,
    });
    if extender.preempts {
        value["preemptVerb"] = json!("preempt");
    }
    if !extender.ca.is_empty() {
        value["enableHTTPS"] = json!(true);
        // Without a CA, `enableHTTPS` accepts any certificate.
        value["tlsConfig"] =
            json!({ "caData": base64::engine::general_purpose::STANDARD.encode(&extender.ca) });
    }
    value
}

/// Sends a GET request to a component with a self-signed certificate.
async fn get(port: u16, path: &str) -> Result<String, kube::Error> {
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().expect("a URL"));
    config.accept_invalid_certs = true;
    config.default_retry = false;
    Client::try_from(config)?.request_text(Request::get(path).body(Vec::new()).expect("a request")).await
}
