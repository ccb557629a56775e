//! A pod of the chart's Deployment as a process: with the arguments, environment, volumes and service account of the pod, and
//! a root folder that contains only the program and the pod's files.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::control_plane::{block_on, listens_at};
use super::network_namespace::is_root;
use super::process::{Component, Process, random};
use super::release::{RELEASE, Release, pod_address};
use super::run;
use super::warden::get_from;

const SERVICE_ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// A running replica. Killed when dropped.
pub(crate) struct Replica {
    component: Component,
    process: Process,
    https: SocketAddr,
    metrics: SocketAddr,
    /// The root folder of the process; [`Self::remount`] writes the volumes of `pod` there.
    root: PathBuf,
    pod: PodSpec,
    /// The preStop sleep, before SIGTERM.
    pub(crate) pre_stop: Duration,
    pub(super) grace: Duration,
}

impl Replica {
    /// Starts a replica with a name and an address of its own.
    pub(super) async fn start(release: &Release, pod: &PodSpec) -> Self {
        // In the host's network, the pod binds to the addresses of the node.
        let is_host = pod.host_network.unwrap_or_default();
        let address = if is_host { Ipv4Addr::LOCALHOST } else { pod_address() };
        Self::start_as(release, pod, format!("{RELEASE}-{}", random()), address).await
    }

    /// Starts the replica of a Pod with that name, at that address.
    pub(super) async fn start_as(release: &Release, pod: &PodSpec, name: String, address: Ipv4Addr) -> Self {
        let container = pod.containers.first().expect("a container");
        let root = run::folder("root");
        image(&root, container.image.as_deref().unwrap_or_default());
        mount(release, pod, container, &root).await;
        let account = pod.service_account_name.as_deref().unwrap_or("default");
        let files = [
            ("token", release.token(account).await),
            ("ca.crt", release.plane.ca()),
            ("namespace", RELEASE.to_owned()),
        ];
        files.iter().for_each(|(file, text)| write(&root.join(SERVICE_ACCOUNT).join(file), text.as_bytes()));

        let address = IpAddr::V4(address);
        let port = |name: &str| {
            let ports = container.ports.iter().flatten();
            let mut port =
                ports.filter(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port);
            SocketAddr::new(address, port.next_back().expect("the port's name").try_into().expect("a port"))
        };
        // A pod has one address here, so binding to all addresses means binding to that one.
        let own = |arg: &String| arg.replace("0.0.0.0", &address.to_string());
        let (host, apiserver) = release.plane.address();
        let mut args = vec!["-i".to_owned(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        args.extend(container.env.iter().flatten().map(|variable| environment(variable, &name)));
        args.push(format!("KUBERNETES_SERVICE_HOST={host}"));
        args.push(format!("KUBERNETES_SERVICE_PORT={apiserver}"));
        args.extend(confined(&root, pod));
        args.push("/daemonset-warden".to_owned());
        args.extend(container.args.iter().flatten().map(own));
        let pre_stop = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let pre_stop = pre_stop.and_then(|hook| hook.sleep.as_ref()).map_or(0, |sleep| sleep.seconds);
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let component = Component {
            name,
            program: "/usr/bin/env".into(),
            environment: Vec::new(),
            args,
            folder: run::folder("replica"),
            discard: None,
        };
        Self {
            process: component.start(),
            component,
            https: port("https"),
            metrics: port("metrics"),
            root,
            pod: pod.clone(),
            pre_stop: seconds(pre_stop),
            grace: seconds(pod.termination_grace_period_seconds.unwrap_or(30) - pre_stop),
        }
    }

    /// Waits until its readiness probe succeeds.
    pub(crate) async fn ready(&mut self) {
        let (https, metrics) = (self.https, self.metrics);
        tokio::task::block_in_place(|| {
            self.process.ready(Duration::from_secs(30), || {
                listens_at(https) && block_on(async { get_from(metrics, "/readyz").await.is_ok() })
            });
        });
    }

    /// Returns its endpoint in the Service.
    pub(crate) fn https(&self) -> SocketAddr {
        self.https
    }

    /// Sends SIGTERM. Panics unless it ends within the grace period with exit code 0.
    pub(crate) async fn terminate(&mut self) {
        self.process.terminate();
        let grace = self.grace;
        let status = tokio::task::block_in_place(|| self.process.wait(grace));
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Sends SIGTERM, and does not wait.
    pub(super) fn signal_end(&mut self) {
        self.process.terminate();
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends SIGSTOP: the kernel accepts connections, and the replica does not answer.
    pub(super) fn freeze(&mut self) {
        self.process.freeze();
    }

    /// Sends SIGCONT.
    pub(super) fn thaw(&mut self) {
        self.process.thaw();
    }

    /// Starts the process again after its end, as the kubelet restarts a container: in the same Pod.
    pub(super) fn restart(&mut self) {
        self.process = self.component.start();
    }

    /// Returns its metrics, or `None` while the metrics port does not answer.
    pub(super) async fn metrics_if_any(&self) -> Option<String> {
        get_from(self.metrics, "/metrics").await.ok()
    }

    /// Makes a TLS handshake as a client that trusts only this CA. Returns the error, if any.
    pub(crate) async fn serves_for(&self, ca: &str, name: &str) -> Result<(), String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a CA")).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = tokio::net::TcpStream::connect(self.https).await.map_err(|e| e.to_string())?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let shaken = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, connection).await;
        shaken.map(drop).map_err(|e| e.to_string())
    }

    /// Writes the mounted ConfigMaps and Secrets again, as the kubelet does after a change.
    pub(crate) async fn remount(&self, release: &Release) {
        mount(release, &self.pod, self.pod.containers.first().expect("a container"), &self.root).await;
    }

    /// Returns the sum of a metric over all label sets, or `None` while the metrics port does not answer.
    pub(crate) async fn metric_if_any(&self, name: &str) -> Option<f64> {
        let text = get_from(self.metrics, "/metrics").await.ok()?;
        Some(super::metrics::sum(&text, name, &[]))
    }

    /// Returns the sum of a metric over all label sets that contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = get_from(self.metrics, "/metrics").await.expect("the replica's metrics");
        super::metrics::sum(&text, name, labels)
    }

    /// True if its readiness probe succeeds.
    pub(crate) async fn is_ready(&self) -> bool {
        get_from(self.metrics, "/readyz").await.is_ok()
    }

    /// True if the process has not ended. The tests never restart a replica, as a kubelet would.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

/// The tag of an image that is the version before this one: its program is the file that `PREVIOUS_PROGRAM` names.
pub(crate) const PREVIOUS: &str = "previous";

/// A program with its shared libraries.
type Program = (PathBuf, Vec<PathBuf>);

/// Puts the program of an image into the root folder. Without the tag [`PREVIOUS`] it is from the folder that
/// `DAEMONSET_WARDEN_IMAGE` names, where tests/image leaves the result of the Dockerfile, or else the program that Cargo built for
/// the tests.
fn image(root: &Path, name: &str) {
    static IMAGE: OnceLock<Program> = OnceLock::new();
    static PREVIOUS_IMAGE: OnceLock<Program> = OnceLock::new();
    let (program, libraries) = if name.ends_with(&format!(":{PREVIOUS}")) {
        PREVIOUS_IMAGE.get_or_init(|| {
            copied("previous", &std::env::var_os("PREVIOUS_PROGRAM").expect("PREVIOUS_PROGRAM is set").into())
        })
    } else {
        IMAGE.get_or_init(|| {
            let named = std::env::var_os("DAEMONSET_WARDEN_IMAGE")
                .map(|root| Path::new(&root).join("daemonset-warden"));
            copied("image", &named.unwrap_or_else(|| env!("CARGO_BIN_EXE_daemonset-warden").into()))
        })
    };
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::hard_link(program, root.join("daemonset-warden")).expect("both are in the run's folder");
    for library in libraries {
        let inside = root.join(library.strip_prefix("/").expect("an absolute path"));
        fs::create_dir_all(inside.parent().expect("it is below the root")).expect("a folder");
        fs::copy(library, inside).expect("a library can be read");
    }
}

/// Copies a program into the run's folder, so that a build meanwhile does not change it.
fn copied(folder: &str, from: &PathBuf) -> Program {
    let program = run::folder(folder).join("daemonset-warden");
    fs::copy(from, &program).unwrap_or_else(|e| panic!("failed to copy {}: {e}", from.display()));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    let libraries = libraries(&program);
    (program, libraries)
}

/// Returns the shared libraries of the program; empty if it is static.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("failed to run ldd");
    String::from_utf8_lossy(&listed.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect()
}

/// Writes the ConfigMaps and Secrets that the container mounts.
async fn mount(release: &Release, pod: &PodSpec, container: &Container, root: &Path) {
    for mount in container.volume_mounts.iter().flatten() {
        let volume =
            pod.volumes.iter().flatten().find(|volume| volume.name == mount.name).expect("the volume");
        let (kind, name) = match (&volume.config_map, &volume.secret) {
            (Some(map), _) => ("configmap", map.name.clone()),
            (_, Some(secret)) => ("secret", secret.secret_name.clone().expect("a name")),
            _ => panic!("{volume:?} is neither a ConfigMap nor a Secret"),
        };
        let text = release.kubectl.succeed(&["get", kind, &name, "-o", "json"]).await;
        let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let items = volume.secret.as_ref().and_then(|secret| secret.items.as_ref());
        let is_wanted = |key: &str| items.is_none_or(|items| items.iter().any(|item| item.key == key));
        for (key, value) in object["data"].as_object().into_iter().flatten().filter(|(key, _)| is_wanted(key))
        {
            let value = value.as_str().expect("text");
            let bytes = if kind == "secret" {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.decode(value).expect("base64")
            } else {
                value.as_bytes().to_vec()
            };
            write(&root.join(mount.mount_path.trim_start_matches('/')).join(key), &bytes);
        }
    }
}

fn write(file: &Path, bytes: &[u8]) {
    fs::create_dir_all(file.parent().expect("it is below the root")).expect("a folder");
    fs::write(file, bytes).unwrap_or_else(|e| panic!("failed to write {}: {e}", file.display()));
}

fn environment(variable: &EnvVar, pod: &str) -> String {
    let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
    let value = match field.map(|field| &*field.field_path) {
        None => variable.value.clone().unwrap_or_default(),
        Some("metadata.name") => pod.to_owned(),
        Some("metadata.namespace") => RELEASE.to_owned(),
        Some(other) => panic!("a field that the tests' kubelet does not know: {other}"),
    };
    format!("{}={value}", variable.name)
}

/// Returns the command that runs a program with that folder as its root: as the pod's user when the tests run as root, or
/// else in a new user namespace.
fn confined(root: &Path, pod: &PodSpec) -> Vec<String> {
    let root = root.display();
    let user = pod.security_context.as_ref().and_then(|context| context.run_as_user).unwrap_or(0);
    if is_root() {
        vec!["chroot".to_owned(), format!("--userspec={user}:{user}"), root.to_string()]
    } else {
        vec!["unshare".to_owned(), "--map-root-user".to_owned(), format!("--root={root}")]
    }
}
