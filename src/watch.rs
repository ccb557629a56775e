//! EDGE in: watches of the cluster, each feeding the one [`crate::cache::Cache`].
//!
//! ```text
//! apiserver ──▶ WatchActivity (records bytes) ──▶ kube's watcher ──▶ TrimmedObject (decodes) ──▶ ResourceWatch ──▶ SharedCache
//! ```
//! A required kind that cannot be listed keeps the replica from being ready, and the log names the missing permission: a rollout
//! that stalls is better than one that reserves no room and looks healthy. Without an optional kind, defaults apply.

pub mod activity;
pub mod backoff;
pub mod cache_writer;
pub mod client;
pub mod kinds;
pub mod shared_cache;
pub mod stream;
pub mod trimmed_object;
pub mod watch_status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api as k8s;
use kube::client::ClientBuilder;
use kube::core::GroupVersionKind;
use kube::discovery::{self, ApiResource};
use kube::{Client, Config};
use tokio::time::MissedTickBehavior;

use self::activity::WatchActivityLayer;
use self::client::ConnectError;
use self::kinds::WatchedKind;
use self::stream::ResourceWatch;
use crate::api::daemonset::DaemonSet;
use crate::api::event::Event;
use crate::api::meta::GroupKind;
use crate::api::node::Node;
use crate::api::pod::Pod;
use crate::api::policy_objects::{LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass};
use crate::policy::Policy;
use crate::reservation::View;
use crate::reservation::cluster_write::ClusterWrite;
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::{Metrics, WatchedResource};
use crate::watch::shared_cache::SharedCache;
use crate::watch::watch_status::WatchStatus;

/// The time between two ticks: holds, gates and assumed pods end at most this much late.
const TICK: Duration = Duration::from_millis(250);
/// The number of ticks between two updates of the metrics that count objects.
const STATS_TICKS: u32 = 4;
/// The pause between two discoveries of a kind that the apiserver does not have: its CustomResourceDefinition may be installed
/// later.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(60);
/// The first minor version of Kubernetes 1 whose apiserver knows `sendInitialEvents`: it streams lists or answers that it does not.
/// An older one ignores the parameter, and the list would never end.
const STREAMS_LISTS: u32 = 27;

/// All watches and the cache that they fill, not started yet.
pub struct Watches {
    config: Config,
    cache: SharedCache,
    metrics: Arc<Metrics>,
    /// In the order of [`Self::tasks`]: built-in kinds first.
    statuses: Vec<Arc<WatchStatus>>,
    other_kinds: Vec<GroupKind>,
}

impl Watches {
    /// Returns the watches that `policy` needs, of the cluster behind `config`. `own_namespace` is the namespace that the warden
    /// runs in. `enqueue` takes what is to be written to the cluster and must not wait.
    pub fn new(
        config: Config,
        policy: Arc<Policy>,
        own_namespace: Option<String>,
        metrics: Arc<Metrics>,
        enqueue: impl Fn(ClusterWrite) + Send + Sync + 'static,
    ) -> Self {
        let kinds = &policy.daemon_set_kinds;
        let other_kinds: Vec<GroupKind> = kinds.iter().filter(|kind| !kind.is_builtin()).cloned().collect();
        let others = other_kinds.iter().map(|_| (WatchedResource::OtherDaemonSets, false));
        let statuses = BUILTIN
            .into_iter()
            .chain(others)
            .map(|(resource, is_required)| WatchStatus::new(resource, is_required));
        let statuses: Vec<_> = statuses.map(Arc::new).collect();
        let view = View::new(policy, own_namespace);
        let cache = SharedCache::new(view, statuses.clone(), metrics.clone(), enqueue);
        Self { config, cache, metrics, statuses, other_kinds }
    }

    /// Returns the cache that the watches fill; it is empty until [`Self::tasks`]. Takes no lock: the caller locks it.
    pub fn cache(&self) -> &SharedCache {
        &self.cache
    }

    /// Returns the ticks and the watches as tasks with their names. Each must run for as long as the cache is used: none ends.
    ///
    /// # Errors
    /// Fails if no client can be made from `config`.
    pub fn tasks(self) -> Result<Vec<(String, BoxFuture<'static, ()>)>, ConnectError> {
        let streams_lists = StreamingListSupport::new(self.config.clone())?;
        let maker = WatchTaskMaker { watches: &self, streams_lists };
        let cache = self.cache.clone();
        let mut tasks = vec![
            ("ticks of the cache".to_owned(), run_ticks(self.cache.clone()).boxed()),
            ("refreshes of the cache".to_owned(), async move { cache.run_refresh().await }.boxed()),
            maker.task::<Node>(0, ApiResource::erase::<k8s::core::v1::Node>(&()))?,
            maker.task::<Pod>(1, ApiResource::erase::<k8s::core::v1::Pod>(&()))?,
            maker.task::<DaemonSet>(2, ApiResource::erase::<k8s::apps::v1::DaemonSet>(&()))?,
            maker.task::<Namespace>(3, ApiResource::erase::<k8s::core::v1::Namespace>(&()))?,
            maker.task::<PriorityClass>(4, ApiResource::erase::<k8s::scheduling::v1::PriorityClass>(&()))?,
            maker.task::<LimitRange>(5, ApiResource::erase::<k8s::core::v1::LimitRange>(&()))?,
            maker.task::<RuntimeClass>(6, ApiResource::erase::<k8s::node::v1::RuntimeClass>(&()))?,
            maker.task::<ResourceQuota>(7, ApiResource::erase::<k8s::core::v1::ResourceQuota>(&()))?,
            maker.task::<Event>(8, ApiResource::erase::<k8s::core::v1::Event>(&()))?,
        ];
        for (other, kind) in self.other_kinds.iter().enumerate() {
            tasks.push(maker.task_when_found(BUILTIN.len() + other, kind.clone())?);
        }
        Ok(tasks)
    }
}

/// The built-in kinds in the order of [`Watches::tasks`], and true for the required ones.
const BUILTIN: [(WatchedResource, bool); 9] = [
    (WatchedResource::Nodes, true),
    (WatchedResource::Pods, true),
    (WatchedResource::DaemonSets, true),
    // Their labels decide which DaemonSets may hold room, and carry the opt-out.
    (WatchedResource::Namespaces, true),
    (WatchedResource::PriorityClasses, false),
    (WatchedResource::LimitRanges, false),
    (WatchedResource::RuntimeClasses, false),
    (WatchedResource::ResourceQuotas, false),
    // Without them a birth window ends later.
    (WatchedResource::Events, false),
];

struct WatchTaskMaker<'w> {
    watches: &'w Watches,
    streams_lists: StreamingListSupport,
}

impl WatchTaskMaker<'_> {
    fn task<T: WatchedKind>(
        &self,
        index: usize,
        kind: ApiResource,
    ) -> Result<(String, BoxFuture<'static, ()>), ConnectError> {
        let name = format!("watch of {}", kind.plural);
        let mut watch = self.watch(index, kind)?;
        let streams_lists = self.streams_lists.clone();
        let run = async move {
            watch.streams_lists = streams_lists.get().await;
            watch.run::<T>().await;
        };
        Ok((name, run.boxed()))
    }

    fn task_when_found(
        &self,
        index: usize,
        wanted: GroupKind,
    ) -> Result<(String, BoxFuture<'static, ()>), ConnectError> {
        let name = format!("watch of {}.{}", wanted.kind, wanted.group);
        // Discovery replaces it: the version is not known yet, and the plural is a guess.
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(&wanted.group, "", &wanted.kind));
        let mut watch = self.watch(index, kind)?;
        let run = async move {
            watch.kind = discover(&watch, &wanted).await;
            // With plain lists, which every apiserver has.
            watch.run::<DaemonSet>().await;
        };
        Ok((name, run.boxed()))
    }

    fn watch(&self, index: usize, kind: ApiResource) -> Result<ResourceWatch, ConnectError> {
        let status = self.watches.statuses[index].clone();
        let metrics = self.watches.metrics.clone();
        let activity = WatchActivityLayer { status: status.clone(), metrics: metrics.clone() };
        let builder = ClientBuilder::try_from(self.watches.config.clone()).map_err(ConnectError::client)?;
        let client = builder.with_layer(&activity).build();
        let cache = self.watches.cache.clone();
        Ok(ResourceWatch { client, kind, status, cache, metrics, streams_lists: false })
    }
}

/// The answer to the question if the apiserver streams lists. The first watch asks, and all of them share the answer.
#[derive(Clone)]
struct StreamingListSupport {
    client: Client,
    answer: Arc<tokio::sync::OnceCell<bool>>,
}

impl StreamingListSupport {
    fn new(config: Config) -> Result<Self, ConnectError> {
        let client = client::client(config)?;
        Ok(Self { client, answer: Arc::default() })
    }

    /// Returns true if the apiserver is new enough to stream lists. Asks for its version the first time. Returns false, from then
    /// on, if the apiserver does not answer within five seconds: every apiserver has plain lists.
    async fn get(&self) -> bool {
        let ask = || async {
            let version = self.client.apiserver_version().await.ok()?;
            // Some providers write "30+".
            let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
            Some(version.major != "1" || digits.parse::<u32>().ok()? >= STREAMS_LISTS)
        };
        // All watches wait for it, so its limit is shorter than theirs.
        let ask = || tokio::time::timeout(VERSION_TIMEOUT, ask());
        *self.answer.get_or_init(|| async { ask().await.ok().flatten().unwrap_or(false) }).await
    }
}

/// The time limit of the request for the version, whose answer has a few bytes.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for a kind once a minute until the apiserver has it, and marks the watch as absent meanwhile.
async fn discover(watch: &ResourceWatch, wanted: &GroupKind) -> ApiResource {
    let mut is_logged = false;
    loop {
        let found = discovery::oneshot::group(&watch.client, &wanted.group).await;
        let problem = match found.map(|group| group.recommended_kind(&wanted.kind)) {
            Ok(Some((resource, _))) => return resource,
            Ok(None) => "the group has no such kind".to_owned(),
            Err(error) => chain(&error),
        };
        watch.status.mark_absent();
        if !std::mem::replace(&mut is_logged, true) {
            tracing::warn!(
                group = wanted.group,
                kind = wanted.kind,
                problem = %Sanitized(&problem),
                "the apiserver does not have a kind of daemonSetKinds: going on without it, asking again every {}s",
                DISCOVERY_PAUSE.as_secs()
            );
        }
        tokio::time::sleep(DISCOVERY_PAUSE).await;
    }
}

/// Ticks the cache until the task is dropped.
async fn run_ticks(cache: SharedCache) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut until_stats = 0;
    loop {
        ticks.tick().await;
        cache.run_tick(Instant::now()).await;
        if until_stats == 0 {
            cache.update_metrics();
            until_stats = STATS_TICKS;
        }
        until_stats -= 1;
    }
}
