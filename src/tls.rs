//! TLS for the secure port: the certificate in use, its sources, and its renewal without a restart.
//!
//! ```text
//! webhook configurations ──read──┐
//!                                ├─▶ rotation_plan ─▶ secret_content ─▶ Secret (optimistic locking: the loser takes the winner's)
//! Secret, and the time ────read──┘                         │
//!                                                          ├─▶ caBundle of the webhook configurations (ca_injector)
//!                                                          └─▶ then, once clients trust it: the certificate that TLS serves
//! ```
//!
//! The webhook configurations are read *before* the Secret. A CA is in the Secret before it is in any configuration, so a
//! replica that sees a configuration of another replica also sees the Secret that it was made from, and never patches it
//! back. A certificate of a new CA is served only after the configurations have had that CA for a while, because apiservers
//! learn of it through a watch.
//!
//! Keys, CAs and certificates are made only in `issue`. `x509` reads those that this program made; `files` reads those of others.

pub mod apiserver;
pub mod ca_injector;
pub mod client_ca;
pub mod client_certificate;
pub mod development;
pub mod files;
pub mod issue;
pub mod names;
pub mod rotation_plan;
pub mod rotator;
pub mod secret;
pub mod secret_content;
pub mod serving_certificate;
pub mod validity;
pub mod x509;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::server::ServerConfig;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use self::client_ca::ClientCa;
pub use self::issue::PemKeyPair;
use self::rotator::SharedKeyPair;
use self::serving_certificate::{ServingCertificate, paths};
use self::validity::local_time;
use crate::telemetry::logs::chain;
use crate::telemetry::metrics::{CertificateKind, Metrics};

/// The source of the serving certificate.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// PEM files that another program makes and renews.
    Files {
        /// The file of the certificate, followed by its intermediate ones.
        certificate: PathBuf,
        /// The file of the first certificate's private key.
        key: PathBuf,
    },
    /// A folder with a development CA and a certificate, both made by this program.
    Development {
        /// The folder, which is made if it is not there.
        directory: PathBuf,
        /// An address that the certificate must name, besides the loopback ones.
        address: IpAddr,
    },
    /// The certificate and key that the rotator takes from a Secret, which all replicas share.
    Secret(Arc<SharedKeyPair>),
}

/// The error for a certificate or a client CA that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("failed to {action} {path}")]
    Io {
        /// The action on the file, such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file that is far larger than any certificate.
    #[error("{0} is larger than 1 MiB: is it a certificate?")]
    TooLarge(PathBuf),
    /// A file without a certificate or key.
    #[error("{path} holds no {what} in PEM form")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// A file's certificate cannot be parsed.
    #[error("{path} cannot be used as a certificate: {reason}")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        reason: String,
    },
    /// The certificate and the key do not belong together, or the key is of an unknown kind.
    #[error("{certificate} and {key} cannot be used together")]
    BadPair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The error of rustls.
        source: rustls::Error,
    },
    /// A file has a new certificate that has expired, while the one in use is still good.
    #[error("{0} has expired already")]
    Expired(PathBuf),
    /// The client CA cannot be used.
    #[error("{path} cannot be used as a client CA: {reason}")]
    BadClientCa {
        /// The file.
        path: PathBuf,
        /// The message of rustls.
        reason: String,
    },
    /// The folder of the development CA has another program's files.
    #[error(
        "{0} was not made by daemonset-warden and is left alone: give it with --tls-cert-file, or choose another --cert-dir"
    )]
    NotOurs(PathBuf),
    /// Another process holds the lock of the development folder for longer than five seconds.
    #[error("{0} is locked by another process")]
    Locked(PathBuf),
    /// Making a certificate failed.
    #[error("failed to make a certificate")]
    Make(#[source] rcgen::Error),
    /// Setting up TLS failed.
    #[error("failed to set up TLS")]
    Setup(#[source] rustls::Error),
}

/// The TLS configuration of the secure port. It is replaced as a whole when the source has a new certificate or client CA;
/// handshakes never wait for that.
pub struct Tls {
    source: CertificateSource,
    client_ca: Option<PathBuf>,
    config: ArcSwap<ServerConfig>,
    /// That of [`InUse`], for readers that must not wait.
    client_ca_in_use: ArcSwapOption<ClientCa>,
    in_use: Mutex<InUse>,
    usable: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

/// The serving certificate and the client CA that are in use, and the faults of newer ones.
#[derive(Default)]
struct InUse {
    serving: Option<ServingCertificate>,
    client_ca: Option<Arc<ClientCa>>,
    /// The faults of the last reload, so that each is logged once.
    faults: Vec<String>,
}

impl Tls {
    /// Loads the certificate and the client CA, or makes the certificate. For a server that a person starts: a fault ends it at
    /// once.
    ///
    /// # Errors
    /// Fails if there is no usable certificate, or if the client CA is bad.
    pub fn load(
        source: CertificateSource,
        client_ca: Option<PathBuf>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TlsError> {
        let (tls, mut faults) = Self::start(source, client_ca, metrics)?;
        if faults.is_empty() { Ok(tls) } else { Err(faults.remove(0)) }
    }

    /// Loads as [`Self::load`] does, for a server in a pod. Bad files are logged, counted and read again until they are good: a
    /// crash loop would end only minutes after the Secret was put right, and a good client CA would be lost with a bad certificate.
    /// Until then, with a bad client CA no client may call `/scheduler/*`, and in place of a bad certificate clients are shown one
    /// that they do not trust.
    ///
    /// # Errors
    /// Fails if not even that certificate can be made.
    pub fn load_or_wait(
        source: CertificateSource,
        client_ca: Option<PathBuf>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TlsError> {
        let (tls, faults) = Self::start(source, client_ca, metrics)?;
        tls.log_faults(&mut tls.in_use.lock(), &faults);
        Ok(tls)
    }

    fn start(
        source: CertificateSource,
        client_ca: Option<PathBuf>,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Vec<TlsError>), TlsError> {
        let (mut in_use, usable) = (InUse::default(), watch::Sender::new(false));
        let config = ArcSwap::from_pointee(server_config(&ServingCertificate::stand_in()?, None)?);
        let (_, faults) = read_new(&source, client_ca.as_ref(), &mut in_use, &metrics);
        if let Some(serving) = &in_use.serving {
            config.store(Arc::new(server_config(serving, in_use.client_ca.as_deref())?));
            usable.send_replace(true);
        }
        let client_ca_in_use = ArcSwapOption::new(in_use.client_ca.clone());
        let in_use = Mutex::new(in_use);
        Ok((Self { source, client_ca, config, client_ca_in_use, in_use, usable, metrics }, faults))
    }

    /// Returns an acceptor for one handshake, with the certificate now in use.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// Returns true if clients may have certificates.
    pub(crate) fn knows_certificates(&self) -> bool {
        self.client_ca.is_some()
    }

    /// Returns the client CA now in use.
    fn client_ca_in_use(&self) -> Option<Arc<ClientCa>> {
        self.client_ca_in_use.load_full()
    }

    /// Returns the development CA's certificate file, for clients; `None` with any other source.
    pub fn development_ca(&self) -> Option<PathBuf> {
        match &self.source {
            CertificateSource::Development { directory, .. } => {
                Some(directory.join(development::CA_CERTIFICATE))
            }
            CertificateSource::Files { .. } | CertificateSource::Secret(_) => None,
        }
    }

    /// Waits until there is a good certificate to serve with. The server is not ready before.
    pub async fn wait_until_usable(&self) {
        // Fails only once we are gone.
        let _ = self.usable.subscribe().wait_for(|usable| *usable).await;
    }

    /// Reads the source and the client CA every two seconds, for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            self.reload_now().await;
        }
    }

    /// Reads the source and the client CA once, for a caller that knows of a change. Returns when the files have been read; faults
    /// are logged and counted.
    pub async fn reload_now(self: &Arc<Self>) {
        let tls = self.clone();
        // Files may be on a disk that hangs.
        if let Err(error) = tokio::task::spawn_blocking(move || tls.reload()).await {
            tracing::error!(%error, "failed to read the certificate files");
        }
    }

    /// Takes a new and good certificate or client CA into use. A bad one is logged and counted, and the one in use stays. Blocks on
    /// files.
    fn reload(&self) {
        let mut in_use = self.in_use.lock();
        let (is_new, mut faults) =
            read_new(&self.source, self.client_ca.as_ref(), &mut in_use, &self.metrics);
        // From here on, clients of a CA that is gone are refused on their connections too.
        self.client_ca_in_use.store(in_use.client_ca.clone());
        if let (true, Some(serving)) = (is_new, &in_use.serving) {
            match server_config(serving, in_use.client_ca.as_deref()) {
                Ok(config) => {
                    // Sessions made before it are not resumed: they may rest on a client CA that is no longer trusted.
                    self.config.store(Arc::new(config));
                    self.usable.send_replace(true);
                    self.metrics.certificate_reloads.inc();
                    tracing::info!("took a new certificate into use");
                }
                Err(error) => faults.push(error),
            }
        }
        self.log_faults(&mut in_use, &faults);
    }

    /// Counts a failed read, and logs each fault that the read before did not have.
    fn log_faults(&self, in_use: &mut InUse, faults: &[TlsError]) {
        if !faults.is_empty() {
            self.metrics.certificate_reload_failures.inc();
        }
        let faults: Vec<_> = faults.iter().map(|fault| chain(fault)).collect();
        for fault in faults.iter().filter(|fault| !in_use.faults.contains(fault)) {
            match (&in_use.serving, &in_use.client_ca) {
                (None, _) => {
                    tracing::error!(error = %fault, "not ready, because there is no good certificate to serve with")
                }
                (_, None) if self.client_ca.is_some() => {
                    tracing::error!(error = %fault, "no client may call /scheduler/*, because there is no good client CA");
                }
                _ => {
                    tracing::error!(error = %fault, "kept the certificate in use, because the new one is bad")
                }
            }
        }
        in_use.faults = faults;
    }
}

/// The time between reads of the source. A certificate is renewed days before it expires; two seconds are for people and tests that
/// watch it happen. The source is polled, because a watch on a mounted Secret misses the kubelet's swap of a symbolic link.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Reads the source and the client CA into `in_use`. Returns true if one of the two is new and good, and the faults of bad ones.
fn read_new(
    source: &CertificateSource,
    client_ca: Option<&PathBuf>,
    in_use: &mut InUse,
    metrics: &Metrics,
) -> (bool, Vec<TlsError>) {
    let (mut is_new, mut faults) = (false, Vec::new());
    match ServingCertificate::read(source, in_use.serving.as_ref()) {
        Ok(None) => {}
        Ok(Some(serving)) => {
            if let Err(error) = report(source, &serving, metrics) {
                faults.push(error);
            }
            in_use.serving = Some(serving);
            is_new = true;
        }
        Err(error) => faults.push(error),
    }
    match client_ca.map(|path| ClientCa::read(path, in_use.client_ca.as_deref())).transpose() {
        Ok(None | Some(None)) => {}
        Ok(Some(client_ca)) => {
            in_use.client_ca = client_ca.map(Arc::new);
            is_new = true;
        }
        Err(error) => faults.push(error),
    }
    (is_new, faults)
}

/// Sets the metrics of a certificate that is about to be used, and warns if it is not valid now. Fails only if the development CA
/// cannot be read.
fn report(
    source: &CertificateSource,
    serving: &ServingCertificate,
    metrics: &Metrics,
) -> Result<(), TlsError> {
    let (certificate, now) = (paths(source).0, local_time());
    if serving.validity.is_over(now) {
        tracing::warn!(certificate = %certificate.display(), "the certificate has expired: clients will refuse it");
    }
    if serving.validity.not_before > now {
        tracing::warn!(
            certificate = %certificate.display(),
            "the certificate is not valid yet: clients will refuse it, unless it is this node's clock that is slow"
        );
    }
    metrics.certificate_valid(
        CertificateKind::Serving,
        serving.validity.not_before,
        serving.validity.not_after,
    );
    if let CertificateSource::Development { directory, .. } = source {
        let path = directory.join(development::CA_CERTIFICATE);
        let ca = files::chain(&path, &files::read(&path)?)?;
        let validity = files::validity(&path, &ca[0])?;
        metrics.certificate_valid(CertificateKind::DevelopmentCa, validity.not_before, validity.not_after);
    }
    Ok(())
}

fn server_config(
    serving: &ServingCertificate,
    client_ca: Option<&ClientCa>,
) -> Result<ServerConfig, TlsError> {
    // rustls' default versions are TLS 1.2 and 1.3, as Kubernetes asks for.
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match client_ca {
        Some(client_ca) => builder.with_client_cert_verifier(client_ca.verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(serving.key.clone())));
    // HTTP/1.1 for clients that speak both, as schedulers do: a scheduler places a tenth more pods a second with it, and with
    // HTTP/2 it goes on asking a replica that was lost with its node for 45 s. An apiserver that calls a service offers nothing
    // else (kubernetes v1.36.3 staging/src/k8s.io/apiserver/pkg/util/webhook/client.go).
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    // A resumed handshake needs no signature; tickets keep nothing here, however many clients come.
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(config)
}
