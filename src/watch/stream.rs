//! One watch: applies its events to the cache one by one, and logs its errors.
//!
//! kube's watcher lists, resumes, reads bookmarks and detects a dead connection. Objects of a list are applied as they come, so
//! that two copies of a long list never exist; cached objects that it did not bring are removed at its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Client;
use kube::api::Api;
use kube::core::Status;
use kube::discovery::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};

use super::backoff::WatchBackoff;
use super::cache_writer::CacheWriter;
use super::kinds::WatchedKind;
use super::trimmed_object::TrimmedObject;
use crate::telemetry::log_on_change::LogThrottle;
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::Metrics;
use crate::watch::shared_cache::SharedCache;
use crate::watch::watch_status::WatchStatus;

/// The time after which the apiserver ends a watch, to be resumed: a dead connection is detected 5 s later. The last event is a
/// bookmark, so that resuming costs the apiserver next to nothing.
const WATCH_SECONDS: u32 = 60;
/// The number of objects in a page of a list that is not streamed, as in client-go.
const PAGE: u32 = 500;
/// The pause after a 403 or 404 for an optional kind, which lasts until an administrator changes something.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// The watch of one kind.
pub(super) struct ResourceWatch {
    pub(super) client: Client,
    pub(super) kind: ApiResource,
    pub(super) status: Arc<WatchStatus>,
    pub(super) cache: SharedCache,
    pub(super) metrics: Arc<Metrics>,
    /// True if the apiserver is new enough to stream lists.
    pub(super) streams_lists: bool,
}

impl ResourceWatch {
    /// Watches the kind, and begins anew after each error, until the task is dropped.
    pub(super) async fn run<T: WatchedKind>(self) {
        let mut writer = CacheWriter::<T>::new(self.kind.clone(), self.cache.clone());
        let mut streams_lists = self.streams_lists;
        let mut throttle = LogThrottle::default();
        'again: loop {
            let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
            if !T::FIELDS.is_empty() {
                config = config.fields(T::FIELDS);
            }
            if streams_lists {
                config = config.streaming_lists();
            }
            let api: Api<TrimmedObject<T>> = Api::all_with(self.client.clone(), &self.kind);
            let mut events = std::pin::pin!(watcher(api, config).backoff(WatchBackoff::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => self.handle_event(&mut writer, event),
                    Err(error) if streams_lists && refuses_to_stream(&error) => {
                        tracing::debug!(
                            resource = self.kind.plural,
                            "no streaming lists: {}",
                            Sanitized(&chain(&error))
                        );
                        streams_lists = false;
                        continue 'again;
                    }
                    Err(error) => {
                        if self.log_error(&error, &mut throttle) {
                            tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                        }
                    }
                }
            }
        }
    }

    fn handle_event<T: WatchedKind>(&self, writer: &mut CacheWriter<T>, event: Event<TrimmedObject<T>>) {
        match event {
            Event::Init => {
                writer.begin();
                if self.status.health().is_listed() {
                    self.status.mark_relisting();
                    self.mark_watch_lost();
                }
            }
            Event::InitApply(trimmed) => self.with_object(trimmed, |object| writer.listed(object)),
            Event::InitDone => {
                writer.end();
                self.metrics.cluster.relist(self.status.resource);
                self.status.mark_listed();
                tracing::debug!(resource = self.kind.plural, group = self.kind.group, "listed");
            }
            Event::Apply(trimmed) => self.with_object(trimmed, |object| writer.apply(object)),
            Event::Delete(trimmed) => self.with_object(trimmed, |object| writer.delete(&object)),
        }
    }

    fn with_object<T>(&self, trimmed: TrimmedObject<T>, handle: impl FnOnce(T)) {
        match trimmed.object {
            Ok(object) => handle(object),
            Err(unreadable) => {
                self.metrics.cluster.unreadable(self.status.resource);
                tracing::warn!(
                    resource = self.kind.plural,
                    name = %Sanitized(&unreadable.name),
                    error = %Sanitized(&unreadable.error),
                    "left out an object that could not be understood"
                );
            }
        }
    }

    /// Records and counts an error, and logs it unless it was logged lately. Returns true if the apiserver has refused an optional
    /// kind with 403 or 404, so that the next attempt can wait.
    fn log_error(&self, error: &watcher::Error, throttle: &mut LogThrottle) -> bool {
        self.metrics.cluster.watch_error(self.status.resource);
        let code = status(error).map_or(0, |status| status.code);
        let resource = &self.kind.plural;
        let is_new = throttle.is_new(code);
        let refused = matches!(code, 403 | 404);
        // Too old to resume, which is no failure: a list follows, and missed events come with it.
        if code == 410 {
            self.status.mark_relisting();
            self.mark_watch_lost();
            return false;
        }
        self.status.record_failure(Instant::now());
        self.mark_watch_lost();
        if refused && !self.status.health().is_required {
            self.status.mark_absent();
        }
        if is_new {
            let consequence = match (self.status.health().is_required, refused) {
                (true, _) => "no room is reserved without it",
                (false, true) => "going on without it",
                (false, false) => "trying again",
            };
            let group = &self.kind.group;
            match code {
                403 => tracing::warn!(
                    resource,
                    group,
                    consequence,
                    "may not list or watch: grant the verbs list and watch on it to this service account"
                ),
                404 => tracing::warn!(resource, group, consequence, "the server has no such resource"),
                _ => {
                    tracing::warn!(resource, group, consequence, error = %Sanitized(&chain(error)), "the watch failed")
                }
            }
        }
        refused && !self.status.health().is_required
    }

    /// Updates the freshness of the cache at once, if the kind is required. Call it after the trouble is recorded.
    fn mark_watch_lost(&self) {
        if self.status.health().is_required {
            self.cache.mark_watch_lost(Instant::now());
        }
    }
}

/// Returns the Status that the apiserver answered; `None` if the error is no answer of the apiserver.
fn status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::WatchError(status) => Some(status),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

/// Returns true if the apiserver refuses to stream lists (`sendInitialEvents is forbidden ...`, 422).
fn refuses_to_stream(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_))
        && status(error).is_some_and(|status| matches!(status.code, 400 | 405 | 406 | 415 | 422))
}
