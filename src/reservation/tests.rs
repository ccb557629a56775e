//! The cache and the reservation together: a cluster that tests feed with events, and tables of the expected results.

mod basis;
mod bind;
mod event_order;
mod first_ready;
mod hold_ends;
mod missing_pods;
mod nomination;
mod packing;
mod preemption;
mod refusals;
mod reserved_amounts;
mod simulation;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::View;
use super::cluster_write::{ClusterWrite, HoldSubject, Nomination};
use super::filter_reason::FilterReason;
use super::hold::EndReason;
use super::nomination::NominationOutcome;
use crate::cache::Cache;
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::freshness::CacheFreshness;
use crate::policy::Policy;

/// A view with a clock that only tests move.
struct TestCluster {
    view: View,
    now: Instant,
}

impl TestCluster {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A cluster whose DaemonSet controller is about to create every pod, for as long as a test takes.
    fn with(change: impl FnOnce(&mut Policy)) -> Self {
        let mut world = Self::with_default_limits(change);
        let ages = Duration::from_secs(1_000_000);
        let reservation = &mut world.view.reservation;
        reservation.basis_limits.idle_controller = ages;
        reservation.wait_budgets.limit = usize::MAX;
        world
    }

    /// A cluster with the limits that hold in production for daemon pods that do not come.
    fn with_default_limits(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy::default();
        change(&mut policy);
        let mut world =
            Self { view: View::new(Arc::new(policy), Some("warden".to_owned())), now: Instant::now() };
        world.namespace("default", json!({}));
        world
    }

    /// Applies one event and hands its changes to the reservation, as the shared cache does.
    fn event(&mut self, apply: impl FnOnce(&mut Cache)) {
        apply(&mut self.view.cache);
        self.view.observe(self.now);
    }

    fn delete_node(&mut self, name: &str) {
        self.event(|cache| cache.delete_node(name));
    }

    fn delete_pod(&mut self, uid: &str) {
        self.event(|cache| cache.delete_pod(uid));
    }

    fn delete_daemon_set(&mut self, uid: &str) {
        self.event(|cache| cache.delete_daemon_set(uid));
    }

    fn delete_namespace(&mut self, name: &str) {
        self.event(|cache| cache.delete_namespace(name));
    }

    fn refresh_all(&mut self) {
        self.view.reservation.refresh_all(&self.view.cache, self.now);
    }

    fn tick(&mut self) {
        self.view.reservation.tick(&self.view.cache, self.now);
    }

    fn observe_freshness(&mut self, freshness: CacheFreshness) {
        self.view.reservation.observe_freshness(&self.view.cache, freshness);
    }

    fn nominate(&mut self) -> usize {
        self.view.reservation.nominate(&self.view.cache, self.now)
    }

    fn nomination_done(&mut self, nomination: &Nomination, outcome: &NominationOutcome) {
        let View { cache, reservation } = &mut self.view;
        reservation.nomination_done(cache, nomination, outcome, self.now);
    }

    fn namespace(&mut self, name: &str, change: Value) {
        let labels = json!({ "kubernetes.io/metadata.name": name });
        let namespace = object(json!({"metadata": {"name": name, "labels": labels}}), change);
        self.event(|cache| cache.apply_namespace(namespace));
    }

    fn node(&mut self, name: &str, change: Value) {
        self.event(|cache| cache.apply_node(object(node(name), change)));
    }

    fn daemon_set(&mut self, name: &str, change: Value) {
        self.event(|cache| cache.apply_daemon_set("apps", object(daemon_set(name), change)));
    }

    fn pod(&mut self, pod: &Value) {
        self.event(|cache| cache.apply_pod(&object(pod.clone(), json!({}))));
    }

    /// Returns the names of the DaemonSets of which a node lacks a pod.
    fn missing(&self, node: &str) -> Vec<String> {
        let View { cache, reservation } = &self.view;
        let Some((id, _)) = cache.node(node) else { return Vec::new() };
        let missing = reservation.missing_on(cache, id);
        let name = |info: &DaemonSetInfo| info.daemon_set.metadata.name.clone();
        let mut names: Vec<_> =
            missing.iter().map(|pod| name(cache.daemon_set_by_id(pod.daemon_set))).collect();
        names.sort();
        names
    }

    /// Calls the filter for a pod as the scheduler does.
    fn ask(&mut self, pod: &Value, nodes: &[&str]) -> Vec<Option<FilterReason>> {
        let pod = object(pod.clone(), json!({}));
        let View { cache, reservation } = &mut self.view;
        let mut call = reservation.begin_filter(cache, &pod, self.now);
        let kept = nodes.iter().map(|node| call.refuse(node)).collect();
        call.finish();
        kept
    }

    /// Calls the filter for one node.
    fn ask_one(&mut self, pod: &Value, node: &str) -> Option<FilterReason> {
        self.ask(pod, &[node])[0]
    }

    /// Moves the clock, with a tick each second.
    fn pass(&mut self, seconds: u64) {
        self.refresh_all();
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.tick();
        }
    }

    /// Returns the writes since the last call, in short.
    fn writes(&mut self) -> Vec<ExpectedWrite> {
        self.refresh_all();
        let writes = self.view.reservation.take_writes();
        let of = |hold: &HoldSubject| hold.daemon_set.name.clone();
        let short = |write: &ClusterWrite| match write {
            ClusterWrite::HoldingRoom(hold) => ExpectedWrite::Holding(of(hold)),
            ClusterWrite::HoldEnded(hold, reason) => {
                ExpectedWrite::Ended(of(hold), *reason, hold.has_refused)
            }
            ClusterWrite::NodeTooSmall(hold, shortage) => {
                ExpectedWrite::TooSmall(of(hold), shortage.to_string())
            }
            ClusterWrite::TooLarge(daemon_set) => ExpectedWrite::TooLarge(of(daemon_set)),
            ClusterWrite::GateExpired(hold) => ExpectedWrite::GateExpired(of(hold)),
            ClusterWrite::GateExpiredForBindings(hold) => ExpectedWrite::GateExpiredForBindings(of(hold)),
            ClusterWrite::Wake(node) => ExpectedWrite::Wake(node.to_string()),
            ClusterWrite::Nominate(nomination) => ExpectedWrite::Nominate(
                nomination.name.to_string(),
                nomination.node.as_deref().map(str::to_owned),
            ),
            ClusterWrite::RecordFirstReady { daemon_set_uid, .. } => {
                ExpectedWrite::Remember(daemon_set_uid.to_string())
            }
            ClusterWrite::RemoveFirstReady { node, daemon_set_uids } => {
                let mut uids: Vec<_> = daemon_set_uids.iter().map(ToString::to_string).collect();
                uids.sort();
                ExpectedWrite::Forget(node.to_string(), uids)
            }
        };
        writes.iter().map(short).collect()
    }
}

#[derive(Debug, Clone, PartialEq)]
enum ExpectedWrite {
    Holding(String),
    Ended(String, EndReason, bool),
    TooSmall(String, String),
    TooLarge(String),
    GateExpired(String),
    GateExpiredForBindings(String),
    Wake(String),
    Nominate(String, Option<String>),
    Remember(String),
    Forget(String, Vec<String>),
}

fn object<T: DeserializeOwned>(mut base: Value, change: Value) -> T {
    json_patch::merge(&mut base, &change);
    serde_json::from_value(base).unwrap()
}

fn node(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("node-{name}")},
        "status": {"allocatable": {"cpu": "1", "memory": "4Gi", "pods": "10"}},
    })
}

fn daemon_set(name: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("ds-{name}"),
            "annotations": {"deprecated.daemonset.template.generation": "1"},
        },
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "300m"}}}]},
            },
        },
    })
}

/// Returns a pod of `daemon_set` for `node`, not bound.
fn daemon_pod(daemon_set: &str, node: &str) -> Value {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    json!({
        "metadata": {
            "name": format!("{daemon_set}-{node}"), "namespace": "default", "uid": format!("{daemon_set}-{node}"),
            "labels": {"app": daemon_set, "pod-template-generation": "1"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "DaemonSet", "name": daemon_set,
                "uid": format!("ds-{daemon_set}"), "controller": true,
            }],
        },
        "spec": {
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [field]}],
            }}},
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "300m"}}}],
        },
        "status": {"phase": "Pending"},
    })
}

/// Returns an ordinary pod, not bound.
fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Pending"},
    })
}

fn with(mut base: Value, change: Value) -> Value {
    json_patch::merge(&mut base, &change);
    base
}

fn on(base: Value, node: &str) -> Value {
    with(base, json!({"spec": {"nodeName": node}, "status": {"phase": "Running"}}))
}

fn terminating(base: Value) -> Value {
    with(base, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:01Z"}}))
}

fn priority(base: Value, priority: i32) -> Value {
    with(base, json!({"spec": {"priority": priority}}))
}

fn template(spec: Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}
