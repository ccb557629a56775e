//! The loop that keeps the Secret of `--tls-secret`: read, decide, write, write the CA bundle into the webhook configurations, and
//! only then serve.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use kube::api::DynamicObject;
use kube::{Client, Config};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::apiserver::{ApiError, ServerClock};
use super::ca_injector;
use super::ca_injector::WebhookConfiguration;
use super::issue::{PemKeyPair, provisional};
use super::names::CertificateNames;
use super::rotation_plan;
use super::rotation_plan::CaStep;
use super::secret;
use super::secret::SecretName;
use super::secret_content::SecretContent;
use super::validity::local_time;
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::{CertificateKind, Metrics};

/// The time between two reads of the Secret while no change is known. It is the delay until a replica sees another's renewal, and
/// until a wrong caBundle is corrected if the watches of the webhook configurations fail. Each read is three small requests.
const INTERVAL: Duration = Duration::from_secs(5);
/// The shortest time between two reads: a client that writes another caBundle again and again must not keep this loop busy.
const SHORTEST: Duration = Duration::from_secs(1);
/// The time between two reads before the first success, because an installation waits for it.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// The time for which a CA is in the webhook configurations before a certificate of it is served: apiservers watch them, and see a
/// change within a second.
const PROPAGATION_TIME: Duration = Duration::from_secs(5);
/// The time before a certificate of a new CA is served while a configuration cannot be read or is gone, so that its CA is not
/// known: another replica or a person has a whole minute to write it.
const UNCONFIRMED_PROPAGATION_TIME: Duration = Duration::from_secs(60);
/// The difference between clocks, in seconds, that is worth a log line: certificates are valid from an hour before they are made.
const CLOCK_TOLERANCE: i64 = 5 * 60;

/// The objects that the rotator writes.
#[derive(Debug, Clone)]
pub struct RotatorSettings {
    /// The Secret with the CA and the certificate.
    pub secret: SecretName,
    /// The names that the certificate must have.
    pub names: CertificateNames,
    /// The webhook configurations whose CA bundle is written.
    pub configurations: Vec<WebhookConfiguration>,
}

/// The certificate and key to serve with. The rotator replaces them; TLS reads them as it would read files.
#[derive(Debug)]
pub struct SharedKeyPair(ArcSwap<PemKeyPair>);

impl SharedKeyPair {
    /// Returns a copy of the pair. Takes no lock.
    pub fn get(&self) -> PemKeyPair {
        self.0.load().as_ref().clone()
    }
}

/// Writes the Secret of `--tls-secret` and the CA bundles of the webhook configurations, and gives TLS the certificate to serve.
pub struct SecretRotator {
    client: Client,
    clock: ServerClock,
    settings: RotatorSettings,
    metrics: Arc<Metrics>,
    pair: Arc<SharedKeyPair>,
    /// The content that `pair` is from, to write back if the Secret is spoilt; `None` while the pair is provisional.
    last_served: Option<SecretContent>,
    /// The bundle that the Secret had last, and the end of the first pass that wrote it into the configurations without an error;
    /// `None` before such a pass.
    injected: Option<(Vec<u8>, Instant)>,
    is_obtained: watch::Sender<bool>,
    /// The fault of the last pass, so that it is logged once; `None` if there was none.
    fault: Option<String>,
    missing: Vec<bool>,
    has_warned_of_clock: bool,
}

impl SecretRotator {
    /// Creates a rotator with a provisional pair that no client trusts. Call [`Self::run`] to start it.
    ///
    /// # Errors
    /// Fails if no client can be made from `config`, or no key can be made.
    pub fn new(
        config: Config,
        settings: RotatorSettings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, RotatorError> {
        let clock = ServerClock::default();
        let client = clock.client(config).map_err(|error| RotatorError::Client(Box::new(error)))?;
        let pair = provisional(&settings.names, local_time())?;
        let missing = vec![false; settings.configurations.len()];
        Ok(Self {
            client,
            clock,
            settings,
            metrics,
            pair: Arc::new(SharedKeyPair(ArcSwap::from_pointee(pair))),
            last_served: None,
            injected: None,
            is_obtained: watch::Sender::new(false),
            fault: None,
            missing,
            has_warned_of_clock: false,
        })
    }

    /// Returns the pair to serve with. It changes when the Secret does.
    pub fn pair(&self) -> Arc<SharedKeyPair> {
        self.pair.clone()
    }

    /// Returns a receiver that turns true once the pair is from the Secret. The server is not ready before.
    pub fn is_obtained(&self) -> watch::Receiver<bool> {
        self.is_obtained.subscribe()
    }

    /// Runs for ever. An error does not end it: the pair that is served stays, whatever happens to the Secret. It ends only with a
    /// watch of its own, which would be a bug.
    pub async fn run(mut self) {
        let changed = Arc::new(Notify::new());
        let mut watches = JoinSet::new();
        for configuration in self.settings.configurations.clone() {
            watches.spawn(watch_on(self.client.clone(), configuration, changed.clone()));
        }
        loop {
            match self.reconcile().await {
                Ok(()) => self.fault = None,
                Err(error) => {
                    self.metrics.tls_secret_failures.inc();
                    let fault = chain(&error);
                    if self.fault.as_ref() != Some(&fault) {
                        tracing::error!(error = %Sanitized(&fault), "failed to keep the certificate; the one that is served stays");
                        self.fault = Some(fault);
                    }
                }
            }
            let interval = if *self.is_obtained.borrow() { INTERVAL } else { FIRST_INTERVAL };
            tokio::time::sleep(SHORTEST).await;
            // A change and the time both lead to the next read.
            tokio::select! {
                () = changed.notified() => {}
                () = tokio::time::sleep(interval.saturating_sub(SHORTEST)) => {}
                Some(ended) = watches.join_next() => match ended {
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Ok(()) | Err(_) => return,
                },
            }
        }
    }

    async fn reconcile(&mut self) -> Result<(), RotatorError> {
        // Configurations before the Secret: see the head of the module above.
        let mut found = Vec::new();
        let mut read_error = None;
        for configuration in &self.settings.configurations {
            match configuration.read(&self.client).await {
                Ok(object) => found.push(object),
                Err(error) => {
                    // The Secret comes first: without a certificate there is no bundle to write.
                    read_error = Some(error);
                    found.push(None);
                }
            }
        }
        if read_error.is_none() {
            self.report_missing(&found);
        }
        let Some(content) = self.content().await? else {
            // Another replica was first; its Secret is there at the next read.
            return Ok(());
        };
        let is_injected = self.inject(&content, &found).await?;
        self.serve(content, &found, is_injected && read_error.is_none());
        read_error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Returns the Secret's content, put right if need be. Returns `None` if another replica wrote the Secret at the same time.
    async fn content(&mut self) -> Result<Option<SecretContent>, RotatorError> {
        let found = secret::read(&self.client, &self.clock, &self.settings.secret).await?;
        self.compare_clocks(found.now);
        let content = SecretContent::read(found.data.clone());
        let last_served = self.last_served.as_ref().map(SecretContent::state);
        let (names, now) = (&self.settings.names, found.now);
        let plan = rotation_plan::decide(&content.state(), last_served.as_ref(), names, now);
        if !plan.writes() {
            return Ok(Some(content));
        }
        let after = match (&self.last_served, plan.ca) {
            (Some(last_served), CaStep::Restore) => SecretContent::read(last_served.data().clone()),
            _ => content.apply_plan(&plan, now)?,
        };
        let why = plan.reasons.join("; ");
        if !secret::write(&self.client, &self.settings.secret, &found, after.data()).await? {
            tracing::info!(why, "another replica wrote the Secret first: taking theirs");
            return Ok(None);
        }
        self.metrics.tls_secret_writes.inc();
        tracing::info!(why, ca = ?plan.ca, "wrote the Secret with the CA and the certificate");
        Ok(Some(after))
    }

    /// Writes the bundle into the configurations that do not have it. Returns true if every configuration has it now, and false if
    /// one is gone, could not be read, or was changed by another client meanwhile. `found` are the configurations as they were
    /// read, `None` for one that is gone or could not be read.
    async fn inject(
        &mut self,
        content: &SecretContent,
        found: &[Option<DynamicObject>],
    ) -> Result<bool, RotatorError> {
        let bundle = content.bundle();
        let mut is_injected = true;
        for (configuration, object) in self.settings.configurations.iter().zip(found) {
            let Some(object) = object else {
                is_injected = false;
                continue;
            };
            if ca_injector::has_bundle(object, &bundle) {
                continue;
            }
            if configuration.patch(&self.client, object, &bundle).await? {
                self.metrics.webhook_configuration_patches.inc();
                tracing::info!(kind = configuration.kind(), name = configuration.name, "wrote the CA bundle");
            } else {
                is_injected = false;
            }
        }
        if self.injected.as_ref().is_none_or(|(injected, _)| *injected != bundle) {
            self.injected = Some((bundle, Instant::now()));
        }
        Ok(is_injected)
    }

    /// Takes the content's pair into use if clients trust it already; otherwise a later read does. The first pair is taken at once.
    fn serve(&mut self, content: SecretContent, found: &[Option<DynamicObject>], is_injected: bool) {
        let Some(pair) = content.pair() else { return };
        if let Some(validity) = content.ca_validity() {
            self.metrics.certificate_valid(CertificateKind::Ca, validity.not_before, validity.not_after);
        }
        let is_new = pair != self.pair.get();
        if let (true, Some(last_served)) = (is_new, &self.last_served) {
            // Apiservers certainly know the bundles that were there before this read.
            let is_known = found.iter().all(|object| {
                object
                    .as_ref()
                    .is_some_and(|object| content.is_trusted_by(&ca_injector::trusted_bundle(object)))
            });
            let has_same_ca = content.is_trusted_by(&last_served.bundle());
            let since = self.injected.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
            let has_propagated =
                since >= if is_injected { PROPAGATION_TIME } else { UNCONFIRMED_PROPAGATION_TIME };
            if !(has_propagated || (is_known && has_same_ca && !found.is_empty())) {
                return;
            }
        }
        if is_new {
            self.pair.0.store(Arc::new(pair));
        }
        self.last_served = Some(content);
        self.is_obtained.send_if_modified(|is_obtained| !std::mem::replace(is_obtained, true));
    }

    fn report_missing(&mut self, found: &[Option<DynamicObject>]) {
        for ((configuration, object), was_missing) in
            self.settings.configurations.iter().zip(found).zip(&mut self.missing)
        {
            let is_missing = object.is_none();
            self.metrics.webhook_configuration_missing(configuration.webhook, is_missing);
            if is_missing && !*was_missing {
                tracing::error!(
                    kind = configuration.kind(),
                    name = configuration.name,
                    "the webhook configuration is gone: the apiserver does not call the webhook until it is created again"
                );
            }
            *was_missing = is_missing;
        }
    }

    /// Warns once if this node's clock is wrong by the apiserver's time `now`. That does no harm here, but may do so elsewhere on
    /// this node.
    fn compare_clocks(&mut self, now: i64) {
        let off = local_time() - now;
        if off.abs() > CLOCK_TOLERANCE && !std::mem::replace(&mut self.has_warned_of_clock, true) {
            tracing::warn!(
                seconds = off,
                "this node's clock differs from the apiserver's, which is used for certificates"
            );
        }
    }
}

/// Watches a configuration for ever. An error is logged at debug level only: the reads go on, and report a fault of the apiserver.
async fn watch_on(client: Client, configuration: WebhookConfiguration, changed: Arc<Notify>) {
    loop {
        if let Err(error) = configuration.watch(&client, &changed).await {
            tracing::debug!(error = %Sanitized(&chain(&error)), "a watch ended");
            tokio::time::sleep(INTERVAL).await;
        }
        tokio::time::sleep(SHORTEST).await;
    }
}

/// The error for a Secret or a webhook configuration that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RotatorError {
    /// No client can be made from the configuration.
    #[error("failed to make a client for the apiserver")]
    Client(#[source] Box<kube::Error>),
    /// The apiserver cannot be asked, or refuses.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A key or a certificate could not be made.
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
}
