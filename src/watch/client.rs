//! The connection to the cluster, if there is one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// The path at which the kubelet mounts the token of the pod's service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// The limit to connect. An apiserver in the same network answers within milliseconds; a longer limit only delays the next attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit of silence on a connection, longer than the silence of a watch: each ends after a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A failure to configure the connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file of `--kubeconfig` cannot be used.
    #[error("failed to use the kubeconfig {path}")]
    Kubeconfig {
        /// The value of `--kubeconfig`.
        path: PathBuf,
        /// The error of kube.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// The pod's service account cannot be used.
    #[error("failed to use the service account of this pod")]
    InCluster(#[from] InClusterError),
    /// No client can be made from the configuration, as for certificates that cannot be read.
    #[error("failed to make a client for the apiserver")]
    Client(#[source] Box<kube::Error>),
}

/// Returns the configuration of `kubeconfig`, or without it that of the pod's service account; `None` if there is neither.
/// `~/.kube/config` is never read.
///
/// # Errors
/// Fails if there is one and it cannot be used.
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

/// Makes a client for the cluster behind `config`.
///
/// # Errors
/// Fails if the certificates or keys in it cannot be read.
pub fn client(config: Config) -> Result<Client, ConnectError> {
    Client::try_from(config).map_err(ConnectError::client)
}

impl ConnectError {
    pub(super) fn client(error: kube::Error) -> Self {
        Self::Client(Box::new(error))
    }
}

/// Returns the namespace of this pod: the environment variable POD_NAMESPACE, else the namespace of the service account; `None` if
/// there is neither. The namespace of a kubeconfig is not used: it is the one in which its user works.
pub fn own_namespace() -> Option<String> {
    let named = std::env::var("POD_NAMESPACE").ok();
    let mounted = || std::fs::read_to_string(NAMESPACE).ok();
    named.or_else(mounted).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}
