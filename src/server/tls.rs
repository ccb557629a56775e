//! TLS for the secure port: the certificate in use, and taking a new one into use without a restart.

mod accept;
mod development;
mod files;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use self::accept::TlsAcceptor;
use crate::certificates::keeper::Pair;
use crate::metrics::{Certificate, Metrics};

/// Where the certificate comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Files that somebody else makes and renews.
    Files {
        /// The certificate and what leads to its CA.
        certificate: PathBuf,
        /// The key of the first certificate.
        key: PathBuf,
    },
    /// A CA of our own in a folder.
    Development {
        /// The folder; made if it is not there.
        directory: PathBuf,
        /// An address that the certificate must name, besides the loopback ones.
        address: IpAddr,
    },
    /// A Secret that all replicas share.
    Secret(Arc<Pair>),
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("failed to {action} {path}")]
    Io {
        /// Such as `read`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is far larger than any certificate.
    #[error("{0} is larger than 1 MiB: is it a certificate?")]
    TooLarge(PathBuf),
    /// A file without what it should hold.
    #[error("{path} holds no {what} in PEM form")]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// The certificate is no certificate that can be used.
    #[error("{path} cannot be used as a certificate: {reason}")]
    BadCertificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate and the key do not belong together, or the key is of an unknown kind.
    #[error("{certificate} and {key} cannot be used together")]
    BadPair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The client CA cannot be used.
    #[error("{path} cannot be used as a client CA: {reason}")]
    BadClientCa {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A folder with somebody else's files.
    #[error(
        "{0} was not made by daemonset-warden and is left alone: give it with --tls-cert-file, or choose another --cert-dir"
    )]
    NotOurs(PathBuf),
    /// Another process holds the folder's lock for too long.
    #[error("{0} is locked by another process")]
    Locked(PathBuf),
    /// Making a certificate failed.
    #[error("failed to make a certificate")]
    Make(#[source] rcgen::Error),
    /// Setting up TLS failed.
    #[error("failed to set up TLS")]
    Setup(#[source] rustls::Error),
}

/// The certificate in use.
pub struct Tls {
    source: Source,
    client_ca: Option<PathBuf>,
    config: ArcSwap<ServerConfig>,
    seen: Mutex<Seen>,
    metrics: Arc<Metrics>,
}

/// What the files held when they were last looked at.
struct Seen {
    material: Material,
    /// The last fault, so that it is logged once and not at each look.
    fault: Option<String>,
}

/// The bytes of the files. Compared, not their times: the kubelet swaps a symbolic link, and a copy may keep its time.
#[derive(PartialEq, Eq)]
struct Material {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Loads the certificate, or makes one.
    ///
    /// # Errors
    /// When there is none that could be served with.
    pub fn load(source: Source, client_ca: Option<PathBuf>, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        let material = read(&source, client_ca.as_ref())?;
        let config = server_config(&source, client_ca.as_ref(), &material, &metrics)?;
        let seen = Mutex::new(Seen { material, fault: None });
        Ok(Self { source, client_ca, config: ArcSwap::from_pointee(config), seen, metrics })
    }

    /// For one handshake, with the certificate now in use.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// The development CA's certificate, for clients; `None` when the certificate came from files.
    pub fn development_ca(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Development { directory, .. } => Some(directory.join(development::CA_CERTIFICATE)),
            Source::Files { .. } | Source::Secret(_) => None,
        }
    }

    /// Looks at the files every few seconds, for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.look_now().await;
        }
    }

    /// Looks once, for who knows that there is something to see.
    pub async fn look_now(self: &Arc<Self>) {
        let tls = self.clone();
        // Files may be on a disk that hangs.
        if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
            tracing::error!(%error, "failed to look at the certificate files");
        }
    }

    /// Takes new files into use if they are good; otherwise what is in use stays.
    fn look(&self) {
        let mut seen = self.seen.lock();
        let loaded = read(&self.source, self.client_ca.as_ref()).and_then(|material| {
            if material == seen.material {
                return Ok(None);
            }
            let config = server_config(&self.source, self.client_ca.as_ref(), &material, &self.metrics)?;
            Ok(Some((material, config)))
        });
        match loaded {
            Ok(None) => seen.fault = None,
            Ok(Some((material, config))) => {
                // Sessions made before it are not resumed: they may rest on a client CA that is no longer trusted.
                self.config.store(Arc::new(config));
                *seen = Seen { material, fault: None };
                self.metrics.certificate_reloads.inc();
                tracing::info!("took a new certificate into use");
            }
            Err(error) => {
                self.metrics.certificate_reload_failures.inc();
                let fault = crate::logs::chain(&error);
                if seen.fault.as_ref() != Some(&fault) {
                    tracing::error!(error = %fault, "kept the certificate in use, because the new one is bad");
                    seen.fault = Some(fault);
                }
            }
        }
    }
}

/// How soon a new certificate is in use. A certificate is renewed days before it expires; two seconds are for people and
/// tests that watch it happen. Polled, because a watch on a mounted Secret misses the kubelet's swap of a symbolic link.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

fn read(source: &Source, client_ca: Option<&PathBuf>) -> Result<Material, TlsError> {
    let (certificate, key) = match source {
        Source::Files { certificate, key } => (files::read(certificate)?, files::read(key)?),
        Source::Development { directory, address } => {
            let pair = development::ensure(directory, *address, SystemTime::now())?;
            (pair.certificate, pair.key)
        }
        Source::Secret(pair) => pair.get(),
    };
    let client_ca = client_ca.map(|path| files::read(path)).transpose()?;
    Ok(Material { certificate, key, client_ca })
}

/// Everything about a handshake.
fn server_config(
    source: &Source,
    client_ca: Option<&PathBuf>,
    material: &Material,
    metrics: &Metrics,
) -> Result<ServerConfig, TlsError> {
    let (certificate_path, key_path) = match source {
        Source::Files { certificate, key } => (certificate.clone(), key.clone()),
        Source::Development { directory, .. } => {
            (directory.join(development::CERTIFICATE), directory.join(development::KEY))
        }
        // For messages only.
        Source::Secret(_) => ("tls.crt of the Secret".into(), "tls.key of the Secret".into()),
    };
    let chain = files::chain(&certificate_path, &material.certificate)?;
    let key = files::private_key(&key_path, &material.key)?;
    let expires = files::expires(&certificate_path, &chain[0])?;
    let provider = Arc::new(ring::default_provider());
    let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|source| TlsError::BadPair {
        certificate: certificate_path.clone(),
        key: key_path,
        source,
    })?;
    // rustls' default versions are TLS 1.2 and 1.3, which is what Kubernetes asks for.
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match (client_ca, &material.client_ca) {
        (Some(path), Some(pem)) => builder.with_client_cert_verifier(client_verifier(path, pem, provider)?),
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
    // Both, or an apiserver that calls a service could not connect: it offers http/1.1 only (kubernetes v1.36.3 staging/src/k8s.io/apiserver/pkg/util/webhook/client.go).
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed handshake needs no signature; tickets keep nothing here, however many clients come.
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;

    if expires <= now() {
        tracing::warn!(certificate = %certificate_path.display(), "the certificate has expired: clients will refuse it");
    }
    metrics.certificate_expires(Certificate::Serving, expires);
    if let Source::Development { directory, .. } = source {
        let path = directory.join(development::CA_CERTIFICATE);
        let ca = files::chain(&path, &files::read(&path)?)?;
        metrics.certificate_expires(Certificate::DevelopmentCa, files::expires(&path, &ca[0])?);
    }
    Ok(config)
}

/// Verifies a certificate if one is shown; whether one must be shown depends on the route.
fn client_verifier(
    path: &Path,
    pem: &[u8],
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let bad = |reason: String| TlsError::BadClientCa { path: path.to_owned(), reason };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in files::chain(path, pem)? {
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| bad(error.to_string()))
}

fn now() -> i64 {
    // A clock before 1970 is a clock that was not set; nothing has expired then.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
