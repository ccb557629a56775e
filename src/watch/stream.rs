//! One watch: its events go to the cluster one by one, and what is wrong with it is told.
//!
//! Listing, resuming, bookmarks and noticing a connection that is dead are kube's watcher's. Objects of a list are applied as
//! they come, so that two copies of a big list never exist; what it did not bring is deleted at its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use hashbrown::HashSet;
use kube::Client;
use kube::api::Api;
use kube::core::Status;
use kube::discovery::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};

use super::kinds::Watched;
use super::lean::Lean;
use crate::live::SharedCluster;
use crate::live::source::Source;
use crate::logs::{Shown, chain};
use crate::metrics::Metrics;

/// How long a watch lasts before it is resumed: a connection that died without a word is noticed 5 s after. The apiserver ends
/// each with a bookmark, so that resuming costs it next to nothing.
const WATCH_SECONDS: u32 = 60;
/// How many objects a page of a list has, where lists do not stream: client-go's.
const PAGE: u32 = 500;
/// What is tried again: first at once, then with longer and longer pauses. Short ones, because while the apiserver is away no
/// room is kept, and each replica has nine watches at most.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(2);
/// A kind that we can go on without and that is not there, or not shown to us: somebody would have to do something.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Everything that one watch needs.
pub(super) struct Stream {
    pub(super) client: Client,
    pub(super) kind: ApiResource,
    pub(super) source: Arc<Source>,
    pub(super) cluster: SharedCluster,
    pub(super) metrics: Arc<Metrics>,
    /// Whether the server is new enough to stream lists.
    pub(super) streams_lists: bool,
}

impl Stream {
    /// Watches for good.
    pub(super) async fn run<T: Watched>(self) {
        let mut inbox = Inbox::<T>::new(self.kind.clone(), self.cluster.clone());
        let mut streams_lists = self.streams_lists;
        let mut told = Told::default();
        'again: loop {
            let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
            if streams_lists {
                config = config.streaming_lists();
            }
            let api: Api<Lean<T>> = Api::all_with(self.client.clone(), &self.kind);
            let mut events = std::pin::pin!(watcher(api, config).backoff(Pauses::default()));
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

    fn take<T: Watched>(&self, inbox: &mut Inbox<T>, event: Event<Lean<T>>) {
        match event {
            Event::Init => {
                inbox.begin();
                if self.source.is_listed() {
                    self.source.relists();
                    self.lose_sight();
                }
            }
            Event::InitApply(lean) => self.with_object(lean, |object| inbox.listed(object)),
            Event::InitDone => {
                inbox.end();
                self.metrics.cluster.relist(self.source.resource);
                self.source.listed();
                tracing::debug!(resource = self.kind.plural, group = self.kind.group, "listed");
            }
            Event::Apply(lean) => self.with_object(lean, |object| inbox.apply(object)),
            Event::Delete(lean) => self.with_object(lean, |object| inbox.delete(&object)),
        }
    }

    fn with_object<T>(&self, lean: Lean<T>, take: impl FnOnce(T)) {
        match lean.object {
            Ok(object) => take(object),
            Err(unreadable) => {
                self.metrics.cluster.unreadable(self.source.resource);
                tracing::warn!(
                    resource = self.kind.plural,
                    name = %Shown(&unreadable.name),
                    error = %Shown(&unreadable.error),
                    "left out an object that could not be understood"
                );
            }
        }
    }

    /// Counts and tells what went wrong, once; whether it need not be tried again soon.
    fn note(&self, error: &watcher::Error, told: &mut Told) -> bool {
        self.metrics.cluster.watch_error(self.source.resource);
        let code = status(error).map_or(0, |status| status.code);
        let resource = &self.kind.plural;
        let is_new = told.is_new(code);
        let refused = matches!(code, 403 | 404);
        // Too old to resume: the list that follows is part of a watch's life, and what has been missed comes with it.
        if code == 410 {
            self.source.relists();
            self.lose_sight();
            return false;
        }
        self.source.failed(Instant::now());
        self.lose_sight();
        if refused && !self.source.is_required {
            self.source.absent();
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
                    tracing::warn!(resource, group, what_then, error = %Shown(&chain(error)), "the watch failed")
                }
            }
        }
        refused && !self.source.is_required
    }

    /// Nobody is to rely on what is known, until the source is well again; it has noted its trouble before.
    fn lose_sight(&self) {
        if self.source.is_required {
            self.cluster.lock().lose_sight();
        }
    }
}

/// Takes the events of one kind to the cluster.
struct Inbox<T: Watched> {
    kind: ApiResource,
    cluster: SharedCluster,
    /// During a list: what was known before and has not come yet.
    unseen: HashSet<T::Key>,
}

impl<T: Watched> Inbox<T> {
    fn new(kind: ApiResource, cluster: SharedCluster) -> Self {
        Self { kind, cluster, unseen: HashSet::new() }
    }

    fn begin(&mut self) {
        self.unseen = T::known(&self.cluster.lock(), &self.kind);
    }

    fn listed(&mut self, object: T) {
        // Empty at the first list: a key costs something to make.
        if !self.unseen.is_empty() {
            self.unseen.remove(&object.key());
        }
        self.apply(object);
    }

    fn end(&mut self) {
        for key in std::mem::take(&mut self.unseen) {
            T::forget(&key, &mut self.cluster.lock(), Instant::now());
            self.cluster.settle();
        }
    }

    fn apply(&self, object: T) {
        object.apply(&mut self.cluster.lock(), &self.kind, Instant::now());
        self.cluster.settle();
    }

    fn delete(&self, object: &T) {
        T::forget(&object.key(), &mut self.cluster.lock(), Instant::now());
        self.cluster.settle();
    }
}

/// What has been told of a watch's troubles: each kind of them once in a while.
#[derive(Default)]
struct Told {
    last: Option<(u16, Instant)>,
}

impl Told {
    fn is_new(&mut self, code: u16) -> bool {
        let now = Instant::now();
        let lately = |at: Instant| now.saturating_duration_since(at) < Duration::from_secs(600);
        if self.last.is_some_and(|(last, at)| last == code && lately(at)) {
            return false;
        }
        self.last = Some((code, now));
        true
    }
}

/// Longer and longer pauses. kube resets its own ones only after two minutes without an error, and any at every attempt to
/// list, whether or not it succeeds: these start anew a while after the last one.
#[derive(Default)]
struct Pauses {
    last: Option<(Duration, Instant)>,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let next = match self.last {
            Some((pause, at)) if now.saturating_duration_since(at) < *PAUSES.end() * 3 => {
                (pause * 2).min(*PAUSES.end())
            }
            _ => *PAUSES.start(),
        };
        self.last = Some((next, now));
        Some(next)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemonset::cluster::Cluster;
    use crate::daemonset::policy::Policy;
    use crate::scheduling::node::Node;
    use crate::scheduling::pod::Pod;
    use crate::watch::kinds::builtin;

    fn shared() -> SharedCluster {
        let cluster = Cluster::new(Arc::new(Policy::default()), None);
        SharedCluster::new(cluster, Vec::new(), Arc::default(), |_| {})
    }

    fn pod(uid: &str) -> Pod {
        let text = format!(
            r#"{{"metadata":{{"uid":"{uid}","name":"{uid}","namespace":"n"}},"spec":{{"nodeName":"n1","containers":[{{"resources":{{"requests":{{"cpu":"1"}}}}}}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_a_relist_does_not_bring_is_gone() {
        let cluster = shared();
        let mut pods = Inbox::<Pod>::new(builtin("", "v1", "Pod"), cluster.clone());
        let mut nodes = Inbox::<Node>::new(builtin("", "v1", "Node"), cluster.clone());
        let node = serde_json::from_str::<Node>(r#"{"metadata":{"name":"n1","uid":"1"}}"#).unwrap();
        nodes.begin();
        nodes.listed(node);
        nodes.end();
        pods.begin();
        pods.listed(pod("a"));
        pods.listed(pod("b"));
        pods.end();
        pods.apply(pod("c"));
        assert_eq!(cluster.lock().node("n1").unwrap().1.used.milli_cpu, 3000);

        // A list that is cut off deletes nothing; the next one starts anew.
        pods.begin();
        pods.listed(pod("a"));
        pods.begin();
        pods.listed(pod("c"));
        pods.listed(pod("d"));
        pods.end();
        let mut uids = cluster.lock().pod_uids();
        uids.sort();
        assert_eq!(uids, ["c".into(), "d".into()]);
        assert_eq!(cluster.lock().node("n1").unwrap().1.used.milli_cpu, 2000);
        pods.delete(&pod("c"));
        pods.delete(&pod("c"));
        nodes.begin();
        nodes.end();
        assert!(cluster.lock().node_names().is_empty() && cluster.lock().pod("d").is_some());
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pauses: Vec<u128> = Pauses::default().take(7).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 2000, 2000, 2000]);
    }
}
