//! A control plane: etcd, kube-apiserver, kube-controller-manager and KWOK, and the schedulers that a test starts.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use super::components::Layout;
use super::process::{Process, free_port, random};
use super::scheduler::{Scheduler, SchedulerOptions};
use super::tools::{say, tools};
use super::{run, stages};

/// The time that a component may take to start. Long, because the machine may be busy; only a failure waits this long.
const START: Duration = Duration::from_secs(60);

/// Users besides the administrator, each with its own kubeconfig: name, user, groups.
const USERS: [(&str, &str, &str); 2] = [
    // The user and groups of the chart's ServiceAccount, so that the tests run with the chart's RBAC rules.
    (
        "warden",
        "system:serviceaccount:daemonset-warden:daemonset-warden",
        "system:serviceaccounts,system:serviceaccounts:daemonset-warden",
    ),
    // May do what a test grants, such as creating pods in one namespace.
    ("developer", "developer", ""),
];

/// The processes of one cluster. Killed when dropped.
pub(crate) struct ControlPlane {
    layout: Layout,
    // In the order in which they are dropped: clients end before their server, so their logs have no errors of the end.
    kwok: Mutex<Option<Process>>,
    controller_manager: Mutex<Option<Process>>,
    apiserver: Mutex<Option<Process>>,
    _etcd: Process,
}

impl ControlPlane {
    /// Returns the control plane that most tests share, with a default scheduler without extenders. The first call starts it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Option<(ControlPlane, Scheduler)>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            std::panic::catch_unwind(|| {
                let plane = Self::start("shared");
                let scheduler = plane.scheduler(&SchedulerOptions::default());
                (plane, scheduler)
            })
            .ok()
        });
        // Tried once: another attempt would take as long and fail in the same way.
        let Some((plane, _)) = shared else {
            panic!("the shared control plane did not start: see the first failure")
        };
        plane
    }

    /// Starts a control plane for one test: to stop parts of it, or to measure it without other tests.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, None, &[], None)
    }

    /// Starts a control plane whose kube-controller-manager may make this many calls a second, and at once.
    pub(crate) fn start_with_controller_rate(name: &str, rate: (u32, u32)) -> Self {
        Self::start_with(name, None, &[], Some(rate))
    }

    /// Starts a control plane with further flags of the apiserver.
    pub(crate) fn start_with_flags(name: &str, flags: &'static [&str]) -> Self {
        Self::start_with(name, None, flags, None)
    }

    /// Starts a control plane with an audit log, by the rules of an audit policy, and with further flags of the apiserver.
    pub(crate) fn start_audited(name: &str, rules: &serde_json::Value, flags: &'static [&str]) -> Self {
        Self::start_with(name, Some(rules), flags, None)
    }

    fn start_with(
        name: &str,
        audited: Option<&serde_json::Value>,
        flags: &'static [&str],
        controller_rate: Option<(u32, u32)>,
    ) -> Self {
        let started = Instant::now();
        let mut layout = Layout::new(run::folder(name));
        layout.apiserver_flags = flags;
        layout.controller_rate = controller_rate.unwrap_or(layout.controller_rate);
        write_credentials(&layout);
        if let Some(rules) = audited {
            let policy = json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules });
            fs::write(layout.audit_policy(), policy.to_string()).expect("the policy can be written");
        }

        let mut etcd = layout.etcd().start();
        etcd.ready(START, || listens(layout.etcd_port));
        let mut apiserver = layout.apiserver().start();
        apiserver.ready(START, || layout.apiserver_certificate().exists() && listens(layout.apiserver_port));
        write_kubeconfigs(&layout);
        let kubeconfig = layout.kubeconfig();
        apiserver.ready(START, || block_on(async { https_get(&kubeconfig, "/readyz").await.is_ok() }));

        let controller_manager = layout.controller_manager().start();
        let stages = layout.folder.join("stages.yaml");
        stages::write(&stages);
        let kwok_port = free_port();
        let mut kwok = layout.kwok(kwok_port, &stages).start();
        kwok.ready(START, || listens(kwok_port));
        let (took, version) = (started.elapsed().as_secs_f32(), tools().version());
        say(&format!("{name} is up after {took:.1} s: Kubernetes {version}"));
        Self {
            layout,
            kwok: Mutex::new(Some(kwok)),
            controller_manager: Mutex::new(Some(controller_manager)),
            apiserver: Mutex::new(Some(apiserver)),
            _etcd: etcd,
        }
    }

    /// Starts a scheduler. Several can run at once: each schedules the pods whose `schedulerName` is its own.
    pub(crate) fn scheduler(&self, options: &SchedulerOptions) -> Scheduler {
        Scheduler::start(&self.layout, options)
    }

    /// Starts a scheduler with a complete configuration, such as `scheduler-config` prints.
    pub(crate) fn scheduler_as_printed(&self, name: &str, configuration: &str) -> Scheduler {
        Scheduler::start_as_printed(&self.layout, name, configuration)
    }

    /// The values of `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` in a pod.
    pub(crate) fn address(&self) -> (Ipv4Addr, u16) {
        (Ipv4Addr::LOCALHOST, self.layout.apiserver_port)
    }

    /// The cluster's CA, as mounted into pods.
    pub(crate) fn ca(&self) -> String {
        fs::read_to_string(self.layout.apiserver_certificate()).expect("the apiserver has made it")
    }

    /// The audit log, empty unless started by [`Self::start_audited`]: one `audit.k8s.io/v1` event a line.
    pub(crate) fn audit_log(&self) -> String {
        fs::read_to_string(self.layout.audit_log()).unwrap_or_default()
    }

    /// The kubeconfig of the administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The kubeconfig of `warden` or `developer`, who may do nothing until a test binds a role to them.
    pub(crate) fn kubeconfig_of(&self, user: &str) -> PathBuf {
        self.layout.folder.join(format!("kubeconfig-{user}"))
    }

    /// Returns a new client: a client belongs to the runtime that made it, and each test has its own runtime.
    pub(crate) async fn client(&self) -> Client {
        client(&self.kubeconfig()).await
    }

    /// Kills the apiserver, waits for `away`, and starts it again on the same port.
    pub(crate) fn restart_apiserver(&self, away: Duration) {
        let mut running = self.apiserver.lock().unwrap();
        drop(running.take());
        std::thread::sleep(away);
        let mut apiserver = self.layout.apiserver().start();
        let kubeconfig = self.kubeconfig();
        apiserver.ready(START, || block_on(async { https_get(&kubeconfig, "/readyz").await.is_ok() }));
        *running = Some(apiserver);
    }

    /// Stops kube-controller-manager, until [`Self::start_controller_manager`].
    pub(crate) fn stop_controller_manager(&self) {
        drop(self.controller_manager.lock().unwrap().take());
    }

    /// Stops KWOK for good: nodes and pods stay as they are. In a large cluster KWOK would take the CPU time that a
    /// benchmark measures.
    #[allow(dead_code, reason = "benchmarks use it")]
    pub(crate) fn stop_kwok(&self) {
        drop(self.kwok.lock().unwrap().take());
    }

    /// Starts kube-controller-manager again.
    pub(crate) fn start_controller_manager(&self) {
        *self.controller_manager.lock().unwrap() = Some(self.layout.controller_manager().start());
    }
}

/// Returns a client for the current context of the kubeconfig.
pub(crate) async fn client(kubeconfig: &std::path::Path) -> Client {
    Client::try_from(config(kubeconfig).await).expect("a client")
}

/// Sends a GET request as the kubeconfig's user.
async fn https_get(kubeconfig: &std::path::Path, path: &str) -> Result<String, kube::Error> {
    let request = axum::http::Request::get(path).body(Vec::new()).expect("a request");
    client(kubeconfig).await.request_text(request).await
}

async fn config(kubeconfig: &std::path::Path) -> Config {
    let read = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.expect("a usable kubeconfig")
}

/// Runs a future on a runtime and a thread of its own, so that the caller may be inside a runtime or not.
pub(crate) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(future)
        });
        asked.join().expect("no panic")
    })
}

/// True if a process accepts connections on this port of 127.0.0.1.
pub(crate) fn listens(port: u16) -> bool {
    listens_at((Ipv4Addr::LOCALHOST, port).into())
}

/// True if a process accepts connections at this address.
pub(crate) fn listens_at(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

fn write_credentials(layout: &Layout) {
    let key = rcgen::KeyPair::generate().expect("a key pair");
    fs::write(layout.service_account_key(), key.serialize_pem()).expect("the key can be written");
    fs::write(layout.service_account_public_key(), key.public_key_pem()).expect("the key can be written");
    let mut tokens = format!("{},admin,1,\"system:masters\"\n", random());
    for (name, user, groups) in USERS {
        tokens += &format!("{},{user},{name},\"{groups}\"\n", random());
    }
    fs::write(layout.tokens(), tokens).expect("tokens can be written");
}

fn write_kubeconfigs(layout: &Layout) {
    let tokens = fs::read_to_string(layout.tokens()).expect("write_credentials was called");
    let files = std::iter::once("kubeconfig".to_owned())
        .chain(USERS.iter().map(|(name, ..)| format!("kubeconfig-{name}")));
    for (line, file) in tokens.lines().zip(files) {
        let token = line.split(',').next().unwrap_or_default();
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", layout.apiserver_port),
                "certificate-authority": layout.apiserver_certificate(),
            } }],
            "users": [{ "name": "test", "user": { "token": token } }],
        });
        fs::write(layout.folder.join(file), kubeconfig.to_string()).expect("a kubeconfig can be written");
    }
}
