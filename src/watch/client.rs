//! How to reach the cluster, if there is one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Where the kubelet puts a pod's service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// An apiserver in the same network answers in milliseconds; longer only delays the next attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a watch can be silent: it ends after a minute at most.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the cluster cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file of `--kubeconfig` is of no use.
    #[error("failed to use the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// The pod's service account is of no use.
    #[error("failed to use the service account of this pod")]
    InCluster(#[from] InClusterError),
    /// No client can be made from what was read.
    #[error("failed to make a client for the apiserver")]
    Client(#[source] Box<kube::Error>),
}

/// How to reach the cluster: by `kubeconfig`, or else by the service account of this pod; `None` if there is neither.
/// A file that happens to be in somebody's home is never picked up.
///
/// # Errors
/// When there is one and it cannot be used.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Option<Config>, ConnectError> {
    let mut config = if let Some(path) = kubeconfig {
        let failed = |source| ConnectError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
        let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?
    } else if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists() {
        Config::incluster()?
    } else {
        return Ok(None);
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    Ok(Some(config))
}

/// A client for the cluster behind `config`.
///
/// # Errors
/// When none can be made, as for certificates that cannot be read.
pub fn client(config: Config) -> Result<Client, ConnectError> {
    Client::try_from(config).map_err(ConnectError::client)
}

impl ConnectError {
    pub(super) fn client(error: kube::Error) -> Self {
        Self::Client(Box::new(error))
    }
}

/// The namespace that this process runs in: what the pod's manifest says, or else its service account. A kubeconfig's
/// namespace is where its user works, not where we run.
pub fn own_namespace() -> Option<String> {
    let named = std::env::var("POD_NAMESPACE").ok();
    let mounted = || std::fs::read_to_string(NAMESPACE).ok();
    named.or_else(mounted).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}
