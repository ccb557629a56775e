//! TLS for the secure port: the certificate in use, where it comes from, and its renewal without a restart.
//!
//! ```text
//! webhook configurations ──read──┐
//!                                ├─▶ rotation_plan ─▶ issue ─▶ Secret (optimistic locking: the loser takes the winner's)
//! Secret, and the time ────read──┘                      │
//!                                                       ├─▶ caBundle of the webhook configurations (ca_injector)
//!                                                       └─▶ then, once clients trust it: the certificate that TLS serves
//! ```
//!
//! The webhook configurations are read *before* the Secret. A CA is in the Secret before it is in any configuration, so a
//! replica that sees a configuration of another replica also sees the Secret that it was made from, and never patches it
//! back. A certificate of a new CA is served only after the configurations have had that CA for a while, because apiservers
//! learn of it through a watch.

pub mod ca_injector;
mod client_ca;
mod development;
mod files;
pub mod issue;
pub mod names;
pub mod rotation_plan;
pub mod rotator;
pub mod secret;
mod serving_certificate;
pub mod validity;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::server::ServerConfig;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use self::client_ca::ClientCa;
use self::serving_certificate::{ServingCertificate, now, paths};
use crate::telemetry::metrics::{Certificate, Metrics};
use crate::tls::rotator::SharedKeyPair;

/// Where the certificate comes from.
#[derive(Debug, Clone)]
pub enum CertificateSource {
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
    Secret(Arc<SharedKeyPair>),
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
    /// A new certificate that nobody would trust any more, in the place of one that is still good.
    #[error("{0} has expired already")]
    Expired(PathBuf),
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
    source: CertificateSource,
    client_ca: Option<PathBuf>,
    config: ArcSwap<ServerConfig>,
    parts: Mutex<InUse>,
    usable: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

/// What is in use, and what is wrong with what should be.
#[derive(Default)]
struct InUse {
    shown: Option<ServingCertificate>,
    known: Option<ClientCa>,
    /// The last faults, so that they are logged once and not at each look.
    faults: Vec<String>,
}

impl Tls {
    /// Loads the certificate, or makes one.
    ///
    /// # Errors
    /// When there is none that could be served with.
    pub fn load(
        source: CertificateSource,
        client_ca: Option<PathBuf>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TlsError> {
        let (tls, mut faults) = Self::start(source, client_ca, metrics)?;
        if faults.is_empty() { Ok(tls) } else { Err(faults.remove(0)) }
    }

    /// As [`Self::load`], for a pod: there nobody reads an exit code, a crash loop would end minutes after the Secret was put
    /// right, and what is good would be gone with what is bad. That is logged and counted, and looked at until it is good: with
    /// a bad client CA nobody passes as a client, and with a bad pair one is shown that nobody trusts.
    ///
    /// # Errors
    /// When not even that can be made.
    pub fn load_or_wait(
        source: CertificateSource,
        client_ca: Option<PathBuf>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TlsError> {
        let (tls, faults) = Self::start(source, client_ca, metrics)?;
        tls.tell(&mut tls.parts.lock(), &faults);
        Ok(tls)
    }

    fn start(
        source: CertificateSource,
        client_ca: Option<PathBuf>,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Vec<TlsError>), TlsError> {
        let (mut parts, usable) = (InUse::default(), watch::Sender::new(false));
        let config = ArcSwap::from_pointee(server_config(&ServingCertificate::stand_in()?, None)?);
        let (_, faults) = renew(&source, client_ca.as_ref(), &mut parts, &metrics);
        if let Some(shown) = &parts.shown {
            config.store(Arc::new(server_config(shown, parts.known.as_ref())?));
            usable.send_replace(true);
        }
        Ok((Self { source, client_ca, config, parts: Mutex::new(parts), usable, metrics }, faults))
    }

    /// For one handshake, with the certificate now in use.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// The development CA's certificate, for clients; `None` when the certificate came from files.
    pub fn development_ca(&self) -> Option<PathBuf> {
        match &self.source {
            CertificateSource::Development { directory, .. } => {
                Some(directory.join(development::CA_CERTIFICATE))
            }
            CertificateSource::Files { .. } | CertificateSource::Secret(_) => None,
        }
    }

    /// Waits until there is a pair to serve with; the server is not ready before.
    pub async fn wait_until_usable(&self) {
        // Fails only once we are gone.
        let _ = self.usable.subscribe().wait_for(|usable| *usable).await;
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

    /// Takes what is new and good into use; what is in use stays where the new is bad.
    fn look(&self) {
        let mut parts = self.parts.lock();
        let (is_new, mut faults) = renew(&self.source, self.client_ca.as_ref(), &mut parts, &self.metrics);
        if let (true, Some(shown)) = (is_new, &parts.shown) {
            match server_config(shown, parts.known.as_ref()) {
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
        self.tell(&mut parts, &faults);
    }

    fn tell(&self, parts: &mut InUse, faults: &[TlsError]) {
        if !faults.is_empty() {
            self.metrics.certificate_reload_failures.inc();
        }
        let faults: Vec<_> = faults.iter().map(|fault| crate::telemetry::logs::chain(fault)).collect();
        for fault in faults.iter().filter(|fault| !parts.faults.contains(fault)) {
            match (&parts.shown, &parts.known) {
                (None, _) => {
                    tracing::error!(error = %fault, "not ready, because there is no good certificate to serve with")
                }
                (_, None) if self.client_ca.is_some() => {
                    tracing::error!(error = %fault, "nobody may call /scheduler/*, because there is no good client CA");
                }
                _ => {
                    tracing::error!(error = %fault, "kept the certificate in use, because the new one is bad")
                }
            }
        }
        parts.faults = faults;
    }
}

/// How soon a new certificate is in use. A certificate is renewed days before it expires; two seconds are for people and
/// tests that watch it happen. Polled, because a watch on a mounted Secret misses the kubelet's swap of a symbolic link.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Puts what is new and good in its place; whether anything was, and what was bad.
fn renew(
    source: &CertificateSource,
    client_ca: Option<&PathBuf>,
    parts: &mut InUse,
    metrics: &Metrics,
) -> (bool, Vec<TlsError>) {
    let (mut is_new, mut faults) = (false, Vec::new());
    match ServingCertificate::read(source, parts.shown.as_ref()) {
        Ok(None) => {}
        Ok(Some(shown)) => {
            if let Err(error) = report(source, &shown, metrics) {
                faults.push(error);
            }
            parts.shown = Some(shown);
            is_new = true;
        }
        Err(error) => faults.push(error),
    }
    match client_ca.map(|path| ClientCa::read(path, parts.known.as_ref())).transpose() {
        Ok(None | Some(None)) => {}
        Ok(Some(known)) => {
            parts.known = known;
            is_new = true;
        }
        Err(error) => faults.push(error),
    }
    (is_new, faults)
}

/// Says from when to when the certificate is good that is about to be used.
fn report(source: &CertificateSource, shown: &ServingCertificate, metrics: &Metrics) -> Result<(), TlsError> {
    let certificate = paths(source).0;
    if shown.validity.not_after <= now() {
        tracing::warn!(certificate = %certificate.display(), "the certificate has expired: clients will refuse it");
    }
    if shown.validity.not_before > now() {
        tracing::warn!(
            certificate = %certificate.display(),
            "the certificate is not valid yet: clients will refuse it, unless it is this node's clock that is slow"
        );
    }
    metrics.certificate_valid(Certificate::Serving, shown.validity.not_before, shown.validity.not_after);
    if let CertificateSource::Development { directory, .. } = source {
        let path = directory.join(development::CA_CERTIFICATE);
        let ca = files::chain(&path, &files::read(&path)?)?;
        let validity = files::validity(&path, &ca[0])?;
        metrics.certificate_valid(Certificate::DevelopmentCa, validity.not_before, validity.not_after);
    }
    Ok(())
}

/// Everything about a handshake.
fn server_config(shown: &ServingCertificate, known: Option<&ClientCa>) -> Result<ServerConfig, TlsError> {
    // rustls' default versions are TLS 1.2 and 1.3, which is what Kubernetes asks for.
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match known {
        Some(known) => builder.with_client_cert_verifier(known.verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown.key.clone())));
    // HTTP/1.1 for who speaks both, as schedulers do: one places a tenth more pods a second with it, and with HTTP/2 it goes on
    // asking a replica that was lost with its node for 45 s. An apiserver that calls a service offers nothing else (kubernetes
    // v1.36.3 staging/src/k8s.io/apiserver/pkg/util/webhook/client.go).
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    // A resumed handshake needs no signature; tickets keep nothing here, however many clients come.
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(config)
}
