//! The cost of holds: a filter call of the scheduler, an event of a pod, and nomination.

// A failed unwrap must end the benchmark.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use daemonset_warden::api::pod::Pod;
use daemonset_warden::policy::Policy;
use daemonset_warden::reservation::View;
use daemonset_warden::reservation::cluster_write::ClusterWrite;
use daemonset_warden::reservation::nomination::NominationOutcome;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const NODES: usize = 5_000;
const SETS: usize = 30;

fn judging(criterion: &mut Criterion) {
    let names: Vec<String> = (0..NODES).map(node_name).collect();
    let mut group = criterion.benchmark_group("judge 5,000 names, 30 DaemonSets");
    group.throughput(Throughput::Elements(NODES as u64));
    let pod: Pod = object(ordinary("asking", "500m"));
    for (label, lacking) in [("all landed", 0), ("missing on 100 nodes", 100)] {
        let mut view = view(NODES);
        let now = Instant::now();
        for node in 0..lacking {
            view.cache.delete_pod(&format!("d3-{node}"));
        }
        refresh(&mut view, now);
        let View { cache, reservation } = &mut view;
        group.bench_function(label, |bencher| {
            bencher.iter(|| {
                let mut call = reservation.begin_filter(cache, black_box(&pod), now);
                let refused = names.iter().filter(|name| call.refuse(name).is_some()).count();
                call.finish();
                refused
            });
        });
        reservation.take_writes();
    }
    group.finish();
}

/// Measures calls as the scheduler makes them by default: 42% of 1,000 nodes, each call from where the last one ended.
fn judging_as_by_default(criterion: &mut Criterion) {
    const ASKED: usize = 420;
    let names: Vec<String> = (0..1_000).map(node_name).collect();
    let pod: Pod = object(ordinary("asking", "500m"));
    let mut view = view(names.len());
    let now = Instant::now();
    refresh(&mut view, now);
    let View { cache, reservation } = &mut view;
    let mut all = names.iter().cycle();
    let mut group = criterion.benchmark_group("judge 420 of 1,000 names, 30 DaemonSets");
    group.throughput(Throughput::Elements(ASKED as u64));
    group.bench_function("all landed", |bencher| {
        bencher.iter(|| {
            let mut call = reservation.begin_filter(cache, black_box(&pod), now);
            let refused = all.by_ref().take(ASKED).filter(|name| call.refuse(name).is_some()).count();
            call.finish();
            refused
        });
    });
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let mut view = view(1_000);
    let now = Instant::now();
    let mut group = criterion.benchmark_group("events");
    let bound: Pod = object(on(ordinary("event", "100m"), 500));
    group.bench_function("ordinary pod bound and gone", |bencher| {
        bencher.iter(|| {
            view.cache.apply_pod(&bound);
            view.observe(now);
            view.cache.delete_pod("event");
            refresh(&mut view, now);
        });
    });
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let states: [Pod; 2] =
        [object(daemon(3, 500)), object(with(daemon(3, 500), json!({"status": {"conditions": ready}})))];
    group.bench_function("daemon pod gets Ready or not", |bencher| {
        let mut turn = 0;
        bencher.iter(|| {
            turn ^= 1;
            view.cache.apply_pod(&states[turn]);
            refresh(&mut view, now);
        });
    });
    let gone = with(daemon(3, 500), json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let states: [Pod; 2] = [object(daemon(3, 500)), object(gone)];
    group.bench_function("node with 30 DaemonSets lacks one or not", |bencher| {
        let mut turn = 0;
        bencher.iter(|| {
            turn ^= 1;
            view.cache.apply_pod(&states[turn]);
            refresh(&mut view, now);
            view.reservation.take_writes();
        });
    });
    group.bench_function("the newest pod of a DaemonSet comes and goes", |bencher| {
        let newest = json!({"metadata": {"uid": "newest", "creationTimestamp": "2026-02-01T00:00:00Z"}});
        let newest: Pod = object(with(daemon(3, 500), newest));
        bencher.iter_batched(
            || newest.clone(),
            |newest| {
                view.cache.apply_pod(&newest);
                view.observe(now);
                view.cache.delete_pod("newest");
                refresh(&mut view, now);
                view.reservation.take_writes();
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Measures nomination in a tick, which holds the cache's lock, when the scheduler has failed a daemon pod on each node.
fn nominating(criterion: &mut Criterion) {
    let mut view = view(NODES);
    let mut now = Instant::now();
    for node in 0..NODES {
        view.cache.delete_pod(&format!("d3-{node}"));
        view.cache.apply_pod(&object(failed(3, node)));
        view.observe(now);
    }
    refresh(&mut view, now);
    let View { cache, reservation } = &mut view;
    let mut group = criterion.benchmark_group("nominate, 5,000 daemon pods that wait");
    group.bench_function("a tick", |bencher| {
        bencher.iter(|| {
            now += Duration::from_millis(250);
            reservation.nominate(cache, now);
            // As if the scheduler cleared each nomination at once.
            for write in reservation.take_writes() {
                if let ClusterWrite::Nominate(nomination) = write {
                    reservation.nomination_done(cache, &nomination, &NominationOutcome::Outdated, now);
                }
            }
        });
    });
    group.finish();
}

/// Returns a view of nodes, each with all its daemon pods and ten ordinary pods.
fn view(nodes: usize) -> View {
    let now = Instant::now();
    let mut view = View::new(Arc::new(Policy::default()), None);
    view.cache.apply_namespace(object(json!({"metadata": {"name": "default"}})));
    for set in 0..SETS {
        view.cache.apply_daemon_set("apps", object(daemon_set(set)));
    }
    for node in 0..nodes {
        let metadata =
            json!({"name": node_name(node), "uid": format!("node-{node}"), "labels": {"zone": "a"}});
        let allocatable = json!({"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"});
        let status = json!({"allocatable": allocatable});
        view.cache.apply_node(object(json!({"metadata": metadata, "status": status})));
        for set in 0..SETS {
            view.cache.apply_pod(&object(daemon(set, node)));
        }
        for pod in 0..10 {
            view.cache.apply_pod(&object(on(ordinary(&format!("p{pod}-{node}"), "500m"), node)));
        }
        view.observe(now);
    }
    refresh(&mut view, now);
    view.reservation.take_writes();
    view
}

fn refresh(view: &mut View, now: Instant) {
    view.observe(now);
    view.reservation.refresh_all(&view.cache, now);
}

fn node_name(index: usize) -> String {
    format!("ip-10-{}-{}-7.eu-central-1.compute.internal", index / 250, index % 250)
}

fn daemon_set(set: usize) -> Value {
    let name = format!("d{set}");
    let labels = json!({"app": name});
    let container = json!({"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}});
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("ds-{set}")},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

fn daemon(set: usize, node: usize) -> Value {
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": format!("d{set}"), "uid": format!("ds-{set}"), "controller": true,
    });
    let metadata = json!({
        "name": format!("d{set}-{node}"), "uid": format!("d{set}-{node}"), "labels": {"app": format!("d{set}")},
        "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [owner],
    });
    on(with(ordinary("", "100m"), json!({"metadata": metadata})), node)
}

/// Returns a daemon pod that does not fit on its node, and that the scheduler has failed.
fn failed(set: usize, node: usize) -> Value {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node_name(node)]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [field]}],
    }}});
    let container = json!({"name": "c", "resources": {"requests": {"cpu": "15", "memory": "64Mi"}}});
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
    with(
        daemon(set, node),
        json!({
            "metadata": {"resourceVersion": "7"},
            "spec": {"nodeName": null, "affinity": affinity, "containers": [container]},
            "status": {"phase": "Pending", "conditions": [condition]},
        }),
    )
}

fn ordinary(name: &str, cpu: &str) -> Value {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}});
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [container], "priority": 0},
        "status": {"phase": "Pending"},
    })
}

fn on(pod: Value, node: usize) -> Value {
    with(pod, json!({"spec": {"nodeName": node_name(node)}, "status": {"phase": "Running"}}))
}

fn with(mut object: Value, change: Value) -> Value {
    json_patch::merge(&mut object, &change);
    object
}

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

criterion_group!(benches, judging, judging_as_by_default, events, nominating);
criterion_main!(benches);
