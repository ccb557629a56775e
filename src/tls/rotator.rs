//! The loop: look, decide, write, tell clients, and only then serve.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use kube::Client;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::ca_injector;
use super::ca_injector::WebhookConfiguration;
use super::issue::{SecretContent, provisional};
use super::names::CertificateNames;
use super::rotation_plan;
use super::rotation_plan::CaStep;
use super::secret::{self, ApiError, SecretName, SecretRevision};
use crate::telemetry::metrics::{Certificate, Metrics};

/// Between looks while nothing is known to have changed: how late a replica hears of another's renewal, and how long a wrong
/// caBundle stays wrong should the watches of the webhook configurations fail. Three small reads each time.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between looks at the least, whatever changes: somebody who writes another caBundle again and again must not keep us busy.
const SHORTEST: Duration = Duration::from_secs(1);
/// Before the first success, because somebody waits for the installation.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// How long a CA is in the webhook configurations before a certificate of it is served: apiservers watch them, and hear
/// of a change within a second.
const NOTICE: Duration = Duration::from_secs(5);
/// The same where a configuration cannot be read or is gone, so that we cannot know: a whole minute for somebody else.
const BLIND_NOTICE: Duration = Duration::from_secs(60);
/// How far our clock may be off before it is worth a line: certificates are valid from an hour before they are made.
const CLOCK_TOLERANCE: i64 = 5 * 60;

/// What to keep.
#[derive(Debug, Clone)]
pub struct RotatorSettings {
    /// Where the CA and the certificate are.
    pub secret: SecretName,
    /// What the certificate must name.
    pub names: CertificateNames,
    /// Where the CA belongs.
    pub configurations: Vec<WebhookConfiguration>,
}

/// The pair to serve with, in PEM; shared with TLS, which looks at it as it would at files.
#[derive(Debug)]
pub struct SharedKeyPair(ArcSwap<(Vec<u8>, Vec<u8>)>);

impl SharedKeyPair {
    /// The certificate and its key.
    pub fn get(&self) -> (Vec<u8>, Vec<u8>) {
        self.0.load().as_ref().clone()
    }
}

/// The loop's memory.
pub struct SecretRotator {
    client: Client,
    settings: RotatorSettings,
    metrics: Arc<Metrics>,
    pair: Arc<SharedKeyPair>,
    /// What we serve from, to write back if the Secret is spoilt; `None` while the pair is provisional.
    held: Option<SecretContent>,
    /// The bundle that the Secret had last, and since when all configurations have had it.
    announced: Option<(Vec<u8>, Instant)>,
    obtained: watch::Sender<bool>,
    /// The last fault, so that it is logged once and not at each look.
    fault: Option<String>,
    missing: Vec<bool>,
    told_of_clock: bool,
}

impl SecretRotator {
    /// Starts with a provisional pair that nobody trusts.
    ///
    /// # Errors
    /// When a key cannot be made.
    pub fn new(
        client: Client,
        settings: RotatorSettings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, rcgen::Error> {
        let pair = provisional(&settings.names, secret::our_clock())?;
        let missing = vec![false; settings.configurations.len()];
        Ok(Self {
            client,
            settings,
            metrics,
            pair: Arc::new(SharedKeyPair(ArcSwap::from_pointee(pair))),
            held: None,
            announced: None,
            obtained: watch::Sender::new(false),
            fault: None,
            missing,
            told_of_clock: false,
        })
    }

    /// The pair, now and later.
    pub fn pair(&self) -> Arc<SharedKeyPair> {
        self.pair.clone()
    }

    /// Turns true once the pair is the Secret's; the server is not ready before.
    pub fn obtained(&self) -> watch::Receiver<bool> {
        self.obtained.subscribe()
    }

    /// Looks for ever. Nothing ends it: what is served stays served whatever happens to the Secret.
    pub async fn run(mut self) {
        let changed = Arc::new(Notify::new());
        let mut watches = JoinSet::new();
        for configuration in self.settings.configurations.clone() {
            watches.spawn(watch_on(self.client.clone(), configuration, changed.clone()));
        }
        loop {
            match self.look().await {
                Ok(()) => self.fault = None,
                Err(error) => {
                    self.metrics.tls_secret_failures.inc();
                    let fault = crate::telemetry::logs::chain(&error);
                    if self.fault.as_ref() != Some(&fault) {
                        tracing::error!(error = %fault, "failed to look after the certificate; what is served stays");
                        self.fault = Some(fault);
                    }
                }
            }
            let quick = !*self.obtained.borrow();
            tokio::time::sleep(SHORTEST).await;
            let rest = if quick { FIRST_INTERVAL } else { INTERVAL }.saturating_sub(SHORTEST);
            // Either way it is time to look.
            let _ = tokio::time::timeout(rest, changed.notified()).await;
        }
    }

    async fn look(&mut self) -> Result<(), RotatorError> {
        // Configurations before the Secret: see the head of the module above.
        let mut found = Vec::new();
        let mut blind = None;
        for configuration in &self.settings.configurations {
            match configuration.read(&self.client).await {
                Ok(object) => found.push(object),
                Err(error) => {
                    // The Secret comes first: without a certificate there is nothing to tell anybody of.
                    blind = Some(error);
                    found.push(None);
                }
            }
        }
        if blind.is_none() {
            self.report_missing(&found);
        }
        let Some(content) = self.content().await? else {
            // Somebody else was first; theirs is there at the next look.
            return Ok(());
        };
        let in_force = self.announce(&content, &found).await?;
        self.serve(content, &found, in_force && blind.is_none());
        blind.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What the Secret holds, after it was put right; `None` if another replica did so at the same time.
    async fn content(&mut self) -> Result<Option<SecretContent>, RotatorError> {
        let found = secret::read(&self.client, &self.settings.secret).await?;
        self.compare_clocks(&found);
        let content = SecretContent::read(found.data.clone());
        let held = self.held.as_ref().map(SecretContent::facts);
        let plan = rotation_plan::decide(&content.facts(), held.as_ref(), &self.settings.names, found.now);
        if !plan.writes() {
            return Ok(Some(content));
        }
        let after = match (&self.held, plan.ca) {
            (Some(held), CaStep::Restore) => SecretContent::read(held.data().clone()),
            _ => content.follow(&plan, found.now)?,
        };
        let why = plan.why.join("; ");
        if !secret::write(&self.client, &self.settings.secret, &found, after.data()).await? {
            tracing::info!(why, "another replica wrote the Secret first: taking theirs");
            return Ok(None);
        }
        self.metrics.tls_secret_writes.inc();
        tracing::info!(why, ca = ?plan.ca, "wrote the Secret with the CA and the certificate");
        Ok(Some(after))
    }

    /// Writes the bundle where it is missing; whether every configuration has it now.
    async fn announce(
        &mut self,
        content: &SecretContent,
        found: &[Option<Value>],
    ) -> Result<bool, RotatorError> {
        let bundle = content.bundle();
        let mut in_force = true;
        for (configuration, object) in self.settings.configurations.iter().zip(found) {
            let Some(object) = object else {
                in_force = false;
                continue;
            };
            if ca_injector::has(object, &bundle) {
                continue;
            }
            if configuration.patch(&self.client, object, &bundle).await? {
                self.metrics.webhook_configuration_patches.inc();
                tracing::info!(kind = configuration.kind(), name = configuration.name, "wrote the CA bundle");
            } else {
                in_force = false;
            }
        }
        if self.announced.as_ref().is_none_or(|(announced, _)| *announced != bundle) {
            self.announced = Some((bundle, Instant::now()));
        }
        Ok(in_force)
    }

    /// Takes the pair into use, once clients trust it.
    fn serve(&mut self, content: SecretContent, found: &[Option<Value>], in_force: bool) {
        let Some(pair) = content.pair() else { return };
        if let Some(validity) = content.ca_validity() {
            self.metrics.certificate_valid(Certificate::Ca, validity.not_before, validity.not_after);
        }
        let is_new = pair != self.pair.get();
        if is_new && self.held.is_some() {
            // Those that were there before this look are what apiservers know for certain.
            let known = found.iter().all(|object| {
                object.as_ref().is_some_and(|object| content.is_trusted_by(&ca_injector::trusted(object)))
            });
            let same_ca = self.held.as_ref().is_some_and(|held| content.is_trusted_by(&held.bundle()));
            let since = self.announced.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
            let patient = since >= if in_force { NOTICE } else { BLIND_NOTICE };
            if !(patient || (known && same_ca && !found.is_empty())) {
                return;
            }
        }
        if is_new {
            self.pair.0.store(Arc::new(pair));
        }
        self.held = Some(content);
        self.obtained.send_if_modified(|obtained| !std::mem::replace(obtained, true));
    }

    fn report_missing(&mut self, found: &[Option<Value>]) {
        for ((configuration, object), was_missing) in
            self.settings.configurations.iter().zip(found).zip(&mut self.missing)
        {
            let is_missing = object.is_none();
            self.metrics.webhook_configuration_missing(configuration.webhook, is_missing);
            if is_missing && !*was_missing {
                tracing::error!(
                    kind = configuration.kind(),
                    name = configuration.name,
                    "the webhook configuration is gone: the apiserver does not ask us until somebody makes it again"
                );
            }
            *was_missing = is_missing;
        }
    }

    /// Once: a wrong clock does no harm here, but whoever runs the node wants to know.
    fn compare_clocks(&mut self, found: &SecretRevision) {
        let off = secret::our_clock() - found.now;
        if off.abs() > CLOCK_TOLERANCE && !std::mem::replace(&mut self.told_of_clock, true) {
            tracing::warn!(
                seconds = off,
                "this node's clock differs from the apiserver's, which is used for certificates"
            );
        }
    }
}

/// Watches for ever. Failing is no fault of its own: looks go on, and they report what keeps them from it.
async fn watch_on(client: Client, configuration: WebhookConfiguration, changed: Arc<Notify>) {
    loop {
        if let Err(error) = configuration.watch(&client, &changed).await {
            tracing::debug!(error = %crate::telemetry::logs::chain(&error), "a watch ended");
            tokio::time::sleep(INTERVAL).await;
        }
        tokio::time::sleep(SHORTEST).await;
    }
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
enum RotatorError {
    /// The apiserver could not be asked, or refuses.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A key or a certificate could not be made.
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
}
