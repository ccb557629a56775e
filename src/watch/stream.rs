//! One watch: its events go to the cluster one by one, and what is wrong with it is told.
//!
//! Listing, resuming, bookmarks and noticing a connection that is dead are kube's watcher's. Objects of a list are applied as
//! they come, so that two copies of a big list never exist; what it did not bring is deleted at its end.

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

/// How long a watch lasts before it is resumed: a connection that died without a word is noticed 5 s after. The apiserver ends
/// each with a bookmark, so that resuming costs it next to nothing.
const WATCH_SECONDS: u32 = 60;
/// How many objects a page of a list has, where lists do not stream: client-go's.
const PAGE: u32 = 500;
/// A kind that we can go on without and that is not there, or not shown to us: somebody would have to do something.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Everything that one watch needs.
pub(super) struct Stream {
    pub(super) client: Client,
    pub(super) kind: ApiResource,
    pub(super) source: Arc<WatchStatus>,
    pub(super) cluster: SharedCache,
    pub(super) metrics: Arc<Metrics>,
    /// Whether the server is new enough to stream lists.
    pub(super) streams_lists: bool,
}

impl Stream {
    /// Watches for good.
    pub(super) async fn run<T: WatchedKind>(self) {
        let mut inbox = CacheWriter::<T>::new(self.kind.clone(), self.cluster.clone());
        let mut streams_lists = self.streams_lists;
        let mut told = LogThrottle::default();
        'again: loop {
            let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
            if streams_lists {
                config = config.streaming_lists();
            }
            let api: Api<TrimmedObject<T>> = Api::all_with(self.client.clone(), &self.kind);
            let mut events = std::pin::pin!(watcher(api, config).backoff(WatchBackoff::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => self.take(&mut inbox, event),
                    Err(error) if streams_lists && refuses_to_stream(&error) => {
                        tracing::debug!(resource = self.kind.plural, "no streaming lists: {}", chain(&error));
                        streams_lists = false;
                        continue 'again;
                    }
                    Err(error) => {
                        if self.note(&error, &mut told) {
                            tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                        }
                    }
                }
            }
        }
    }

    fn take<T: WatchedKind>(&self, inbox: &mut CacheWriter<T>, event: Event<TrimmedObject<T>>) {
        match event {
            Event::Init => {
                inbox.begin();
                if self.source.health().is_listed() {
                    self.source.mark_relisting();
                    self.mark_watch_lost();
                }
            }
            Event::InitApply(lean) => self.with_object(lean, |object| inbox.listed(object)),
            Event::InitDone => {
                inbox.end();
                self.metrics.cluster.relist(self.source.resource);
                self.source.mark_listed();
                tracing::debug!(resource = self.kind.plural, group = self.kind.group, "listed");
            }
            Event::Apply(lean) => self.with_object(lean, |object| inbox.apply(object)),
            Event::Delete(lean) => self.with_object(lean, |object| inbox.delete(&object)),
        }
    }

    fn with_object<T>(&self, lean: TrimmedObject<T>, take: impl FnOnce(T)) {
        match lean.object {
            Ok(object) => take(object),
            Err(unreadable) => {
                self.metrics.cluster.unreadable(self.source.resource);
                tracing::warn!(
                    resource = self.kind.plural,
                    name = %Sanitized(&unreadable.name),
                    error = %Sanitized(&unreadable.error),
                    "left out an object that could not be understood"
                );
            }
        }
    }

    /// Counts and tells what went wrong, once; whether it need not be tried again soon.
    fn note(&self, error: &watcher::Error, told: &mut LogThrottle) -> bool {
        self.metrics.cluster.watch_error(self.source.resource);
        let code = status(error).map_or(0, |status| status.code);
        let resource = &self.kind.plural;
        let is_new = told.is_new(code);
        let refused = matches!(code, 403 | 404);
        // Too old to resume: the list that follows is part of a watch's life, and what has been missed comes with it.
        if code == 410 {
            self.source.mark_relisting();
            self.mark_watch_lost();
            return false;
        }
        self.source.record_failure(Instant::now());
        self.mark_watch_lost();
        if refused && !self.source.is_required {
            self.source.mark_absent();
        }
        if is_new {
            let what_then = match (self.source.is_required, refused) {
                (true, _) => "no room is kept without it",
                (false, true) => "going on without it",
                (false, false) => "trying again",
            };
            let group = &self.kind.group;
            match code {
                403 => tracing::warn!(
                    resource,
                    group,
                    what_then,
                    "may not list or watch: grant the verbs list and watch on it to this service account"
                ),
                404 => tracing::warn!(resource, group, what_then, "the server has no such resource"),
                _ => {
                    tracing::warn!(resource, group, what_then, error = %Sanitized(&chain(error)), "the watch failed")
                }
            }
        }
        refused && !self.source.is_required
    }

    /// Nobody is to rely on what is known, until the source is well again; it has noted its trouble before.
    fn mark_watch_lost(&self) {
        if self.source.is_required {
            self.cluster.mark_watch_lost(Instant::now());
        }
    }
}

/// What the server says is wrong, if it is the server that says so.
fn status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::WatchError(status) => Some(status),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

/// Whether the server does not know or does not want streaming lists (`sendInitialEvents is forbidden ...`, 422).
fn refuses_to_stream(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_))
        && status(error).is_some_and(|status| matches!(status.code, 400 | 405 | 406 | 415 | 422))
}
