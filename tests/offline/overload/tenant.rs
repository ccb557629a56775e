//! A tenant's DaemonSets on a large cluster: very many, and very large ones. The scheduler's calls go on, and the cache forgets
//! what is deleted.
//!
//! For the figures: `cargo test --release --test offline overload::tenant -- --nocapture --test-threads=1`.

use std::time::{Duration, Instant};

use daemonset_warden::api::daemonset::DaemonSet;
use daemonset_warden::watch::shared_cache::SharedCache;
use serde_json::{Value, json};

use super::locked::{LOCK, longest_hold, name, object, post, server};
use super::{FULL_SIZE, sized};

/// The longest time that a call of the scheduler may take beside the events.
const CALL: Duration = Duration::from_millis(if FULL_SIZE { 100 } else { 2_000 });

fn daemon_set(number: usize, spec: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "name": format!("d{number}"), "namespace": "default", "uid": format!("tenant-{number}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": spec},
        },
    })
}

fn resident_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Adds the agent's pod, for room is reserved without one for a short time only.
fn add_agents_pods(cluster: &SharedCache, nodes: usize) {
    for number in 0..nodes {
        let node = name(number);
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
        cluster.lock().cache.apply_pod(&object(json!({
            "metadata": {
                "name": format!("agent-{number}"), "namespace": "default", "uid": format!("agent-{number}"),
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "agent"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "agent", "controller": true}],
            },
            "spec": {
                "priority": 1000, "schedulerName": "default-scheduler",
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}},
                "containers": [{"name": "agent", "resources": {"requests": {"cpu": "100m"}}, "ports": [{"hostPort": 9100}]}],
            },
            "status": {"phase": "Pending"},
        })));
    }
}

/// Creates `count` DaemonSets, then deletes them, while the scheduler asks.
async fn keeps_up(nodes: usize, count: usize, spec: Value) {
    let (state, cluster) = server(nodes);
    add_agents_pods(&cluster, nodes);
    let before = resident_mib("VmRSS:");
    let refreshes = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.run_refresh().await }
    });
    let names: Vec<String> = (0..nodes.min(500)).map(name).collect();
    let pod = |number: usize| json!({"metadata": {"name": "p", "namespace": "default", "uid": format!("u{number}")}, "spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    for is_created in [true, false] {
        for number in 0..count {
            let made = is_created.then(|| {
                let mut made: DaemonSet = object(daemon_set(number, &spec));
                made.drop_if_too_large();
                made
            });
            let mut view = cluster.lock();
            match made {
                Some(made) => view.cache.apply_daemon_set("apps", made),
                None => view.cache.delete_daemon_set(&format!("tenant-{number}")),
            }
            drop(view);
            cluster.refresh_changed();
            tokio::task::yield_now().await;
            if number % 50 == 0 {
                cluster.tick(Instant::now());
                let asked = Instant::now();
                let body = json!({"Pod": pod(number), "NodeNames": names}).to_string();
                let (status, _) = post(&state, ("/scheduler/filter", body)).await;
                assert!(status.is_success(), "{status}");
                slowest = slowest.max(asked.elapsed());
            }
        }
        let stats = cluster.lock().cache.stats();
        assert_eq!(stats.daemon_sets, if is_created { count + 1 } else { 1 });
    }
    let took = begun.elapsed();
    cluster.tick(Instant::now());
    assert_eq!(cluster.lock().reservation.stats().holds, nodes, "the others' room");
    println!(
        "{nodes} nodes, {count} DaemonSets created and deleted in {took:.1?}: calls within {slowest:.1?}, the lock for {:.1?} at most, {before} MiB before, {} at the peak",
        longest_hold(&state),
        resident_mib("VmHWM:")
    );
    assert!(slowest <= CALL, "{slowest:?}");
    assert!(longest_hold(&state) <= LOCK, "{:?}", longest_hold(&state));
    refreshes.abort();
}

#[tokio::test]
async fn fifteen_hundred_daemon_sets() {
    let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1m"}}}]});
    keeps_up(sized(5_000), sized(1_500), spec).await;
}

#[tokio::test]
async fn daemon_sets_with_sixty_thousand_host_ports() {
    let ports: Vec<Value> =
        (1..=60_000).map(|port| json!({"containerPort": port, "hostPort": port})).collect();
    let spec =
        json!({"containers": [{"name": "c", "ports": ports, "resources": {"requests": {"cpu": "1m"}}}]});
    keeps_up(sized(5_000), if FULL_SIZE { 20 } else { 2 }, spec).await;
}

#[tokio::test]
async fn daemon_sets_with_as_many_terms_as_are_looked_at() {
    let term = json!({"matchExpressions": [{"key": "none", "operator": "Exists"}]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": vec![term; 500]}}});
    let spec = json!({"containers": [{"name": "c"}], "affinity": affinity});
    keeps_up(sized(5_000), sized(300), spec).await;
}
