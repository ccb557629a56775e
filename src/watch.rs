//! EDGE in: watches of the cluster, each feeding the one [`crate::cache::Cache`].
//!
//! ```text
//! apiserver ──▶ hearing (signs of life) ──▶ kube's watcher ──▶ lean (decode) ──▶ stream ──▶ SharedCache
//! ```
//! A kind that is required and cannot be listed keeps the replica from being ready, and says which permission is missing: a
//! rollout that stalls is better than one that keeps no room and looks well. The others degrade: without them defaults hold.

mod activity;
mod backoff;
mod cache_writer;
pub mod client;
pub mod kinds;
pub mod shared_cache;
mod stream;
pub mod trimmed_object;
pub mod watch_status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::client::ClientBuilder;
use kube::discovery::{self, ApiResource};
use kube::{Client, Config};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::activity::WatchActivityLayer;
use self::client::ConnectError;
use self::kinds::{WatchedKind, builtin};
use self::stream::Stream;
use crate::api::daemonset::DaemonSet;
use crate::api::meta::GroupKind;
use crate::api::node::Node;
use crate::api::pod::Pod;
use crate::api::policy_objects::{LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass};
use crate::cache::Cache;
use crate::policy::Policy;
use crate::reservation::cluster_write::ClusterWrite;
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::{Metrics, WatchedResource};
use crate::watch::shared_cache::SharedCache;
use crate::watch::watch_status::WatchStatus;

/// How often time passes for the cluster: holds, gates and charges end at most this much late.
const TICK: Duration = Duration::from_millis(250);
/// How many ticks pass from one census to the next.
const CENSUS_TICKS: u32 = 4;
/// How often a kind is looked for that the server does not have: somebody may install it.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(60);
/// The first minor version of Kubernetes 1 whose apiserver streams lists by itself; ones from 1.27 can be told to, and say so
/// if they were not, but before that the wish is ignored and the list would never end.
const STREAMS_LISTS: u32 = 27;

/// What is to be watched, before it is.
pub struct Watches {
    config: Config,
    cluster: SharedCache,
    metrics: Arc<Metrics>,
    /// In the order of [`Self::start`]: built-in kinds first.
    sources: Vec<Arc<WatchStatus>>,
    other_kinds: Vec<GroupKind>,
}

impl Watches {
    /// Everything that `policy` needs of the cluster behind `config`. `outbox` takes what is to be done there.
    pub fn new(
        config: Config,
        policy: Arc<Policy>,
        own_namespace: Option<String>,
        metrics: Arc<Metrics>,
        outbox: impl Fn(ClusterWrite) + Send + Sync + 'static,
    ) -> Self {
        let kinds = &policy.daemon_set_kinds;
        let other_kinds: Vec<GroupKind> = kinds.iter().filter(|kind| !kind.is_builtin()).cloned().collect();
        let others = other_kinds.iter().map(|_| (WatchedResource::OtherDaemonSets, false));
        let sources = BUILTIN
            .into_iter()
            .chain(others)
            .map(|(resource, is_required)| WatchStatus::new(resource, is_required));
        let sources: Vec<_> = sources.map(Arc::new).collect();
        let cluster = Cache::new(policy, own_namespace);
        let cluster = SharedCache::new(cluster, sources.clone(), metrics.clone(), outbox);
        Self { config, cluster, metrics, sources, other_kinds }
    }

    /// What they fill.
    pub fn cluster(&self) -> &SharedCache {
        &self.cluster
    }

    /// Starts them. They end when what is returned is dropped.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn start(self) -> Result<JoinSet<()>, ConnectError> {
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_time(self.cluster.clone()));
        let streams_lists = StreamingListSupport::new(self.config.clone())?;
        let starter = WatchStarter { watches: &self, streams_lists };
        starter.start::<Node>(&mut tasks, 0, builtin("", "v1", "Node"))?;
        starter.start::<Pod>(&mut tasks, 1, builtin("", "v1", "Pod"))?;
        starter.start::<DaemonSet>(&mut tasks, 2, builtin("apps", "v1", "DaemonSet"))?;
        starter.start::<Namespace>(&mut tasks, 3, builtin("", "v1", "Namespace"))?;
        starter.start::<PriorityClass>(&mut tasks, 4, builtin("scheduling.k8s.io", "v1", "PriorityClass"))?;
        starter.start::<LimitRange>(&mut tasks, 5, builtin("", "v1", "LimitRange"))?;
        starter.start::<RuntimeClass>(&mut tasks, 6, builtin("node.k8s.io", "v1", "RuntimeClass"))?;
        starter.start::<ResourceQuota>(&mut tasks, 7, builtin("", "v1", "ResourceQuota"))?;
        for (other, kind) in self.other_kinds.iter().enumerate() {
            starter.start_when_found(&mut tasks, BUILTIN.len() + other, kind.clone())?;
        }
        Ok(tasks)
    }
}

/// The built-in kinds, and whether nothing can be decided without them.
const BUILTIN: [(WatchedResource, bool); 8] = [
    (WatchedResource::Nodes, true),
    (WatchedResource::Pods, true),
    (WatchedResource::DaemonSets, true),
    // Who may hold is decided by their labels, and somebody may have opted out.
    (WatchedResource::Namespaces, true),
    (WatchedResource::PriorityClasses, false),
    (WatchedResource::LimitRanges, false),
    (WatchedResource::RuntimeClasses, false),
    (WatchedResource::ResourceQuotas, false),
];

struct WatchStarter<'w> {
    watches: &'w Watches,
    streams_lists: StreamingListSupport,
}

impl WatchStarter<'_> {
    fn start<T: WatchedKind>(
        &self,
        tasks: &mut JoinSet<()>,
        source: usize,
        kind: ApiResource,
    ) -> Result<(), ConnectError> {
        let mut stream = self.stream(source, kind)?;
        let streams_lists = self.streams_lists.clone();
        tasks.spawn(async move {
            stream.streams_lists = streams_lists.get().await;
            stream.run::<T>().await;
        });
        Ok(())
    }

    fn start_when_found(
        &self,
        tasks: &mut JoinSet<()>,
        source: usize,
        wanted: GroupKind,
    ) -> Result<(), ConnectError> {
        // Discovery fills in the rest.
        let mut stream = self.stream(source, builtin(&wanted.group, "", &wanted.kind))?;
        tasks.spawn(async move {
            stream.kind = discover(&stream, &wanted).await;
            // Servers stream lists of custom resources no earlier than those of their own; an answer to the contrary is heeded.
            stream.run::<DaemonSet>().await;
        });
        Ok(())
    }

    fn stream(&self, source: usize, kind: ApiResource) -> Result<Stream, ConnectError> {
        let source = self.watches.sources[source].clone();
        let metrics = self.watches.metrics.clone();
        let hearing = WatchActivityLayer { source: source.clone(), metrics: metrics.clone() };
        let builder = ClientBuilder::try_from(self.watches.config.clone()).map_err(ConnectError::client)?;
        let client = builder.with_layer(&hearing).build();
        Ok(Stream {
            client,
            kind,
            source,
            cluster: self.watches.cluster.clone(),
            metrics,
            streams_lists: false,
        })
    }
}

/// Whether the server streams lists, asked once for all watches.
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

    /// A server that does not answer is asked for plain lists, which every one has.
    async fn get(&self) -> bool {
        let ask = || async {
            let version = self.client.apiserver_version().await.ok()?;
            // Some providers write "30+".
            let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
            Some(version.major != "1" || digits.parse::<u32>().ok()? >= STREAMS_LISTS)
        };
        // All watches wait for it, so it may not take as long as theirs may.
        let ask = || tokio::time::timeout(VERSION_TIME, ask());
        *self.answer.get_or_init(|| async { ask().await.ok().flatten().unwrap_or(false) }).await
    }
}

/// For the question whether lists are streamed: one object of a few bytes, and plain lists are a good answer too.
const VERSION_TIME: Duration = Duration::from_secs(5);

/// Looks for a kind until the server has it.
async fn discover(stream: &Stream, wanted: &GroupKind) -> ApiResource {
    let mut told = false;
    loop {
        let found = discovery::oneshot::group(&stream.client, &wanted.group).await;
        let problem = match found.map(|group| group.recommended_kind(&wanted.kind)) {
            Ok(Some((resource, _))) => return resource,
            Ok(None) => "the group has no such kind".to_owned(),
            Err(error) => chain(&error),
        };
        stream.source.mark_absent();
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                group = wanted.group,
                kind = wanted.kind,
                problem = %Sanitized(&problem),
                "a kind of daemonSetKinds is not there: going on without it, and looking again every {}s",
                DISCOVERY_PAUSE.as_secs()
            );
        }
        tokio::time::sleep(DISCOVERY_PAUSE).await;
    }
}

/// Lets time pass for the cluster.
async fn keep_time(cluster: SharedCache) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut until_census = 0;
    loop {
        ticks.tick().await;
        cluster.tick(Instant::now());
        if until_census == 0 {
            cluster.count();
            until_census = CENSUS_TICKS;
        }
        until_census -= 1;
    }
}
