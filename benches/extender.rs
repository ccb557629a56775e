//! `/scheduler/filter` without the server: parsing the arguments, filtering, and writing the result.

// A failed unwrap must end the benchmark.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use daemonset_warden::api::decode_budget::DecodeBudget;
use daemonset_warden::api::extender_v1::ExtenderArgs;
use daemonset_warden::api::extender_v1::verdicts::EchoedBody;
use daemonset_warden::policy::Policy;
use daemonset_warden::reservation::filter_reason::FilterReason;
use daemonset_warden::reservation::prepared_filter;
use daemonset_warden::reservation::target_node_filter::TargetNodeFilter;
use serde_json::{Value, json};

fn names(criterion: &mut Criterion) {
    let names: Vec<String> = (0..5_000).map(node_name).collect();
    let mut group = criterion.benchmark_group("filter of 5,000 names");
    for (label, pod) in [("ordinary pod", ordinary_pod()), ("daemon pod", daemon_pod(&names[2_500]))] {
        let body = json!({"Pod": pod, "Nodes": null, "NodeNames": names}).to_string();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(label, |bencher| bencher.iter(|| filter(black_box(body.as_bytes()))));
    }
    let body = json!({"Pod": ordinary_pod(), "Nodes": null, "NodeNames": names}).to_string();
    group.bench_function("ordinary pod, every tenth node refused", |bencher| {
        bencher.iter(|| {
            let args = ExtenderArgs::parse(black_box(body.as_bytes())).unwrap();
            prepared_filter::answer(&args, |name, _| name.ends_with('7').then_some(FilterReason::Reserved))
                .body
        });
    });
    group.finish();
}

fn nodes(criterion: &mut Criterion) {
    let items: Vec<Value> = (0..1_000).map(node).collect();
    let mut group = criterion.benchmark_group("filter of 1,000 whole Nodes");
    group.sample_size(50);
    for (label, pod) in [("ordinary pod", ordinary_pod()), ("daemon pod", daemon_pod(&node_name(500)))] {
        let body =
            json!({"Pod": pod, "Nodes": {"metadata": {}, "items": items}, "NodeNames": null}).to_string();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(label, |bencher| bencher.iter(|| filter(black_box(body.as_bytes()))));
    }
    group.finish();
}

fn filter(body: &[u8]) -> EchoedBody {
    let args = ExtenderArgs::parse(body).unwrap();
    let policy = Policy::default();
    let mut target = TargetNodeFilter::read(&policy, &args, &DecodeBudget::default());
    prepared_filter::answer(&args, |name, _| target.as_mut()?.refuse(name)).body
}

fn node_name(index: usize) -> String {
    format!("ip-10-{}-{}-7.eu-central-1.compute.internal", index / 250, index % 250)
}

fn ordinary_pod() -> Value {
    let resources = json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}});
    let container = json!({"name": "web", "image": "registry.invalid/web:1.2.3", "resources": resources});
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "3", "controller": true});
    json!({
        "metadata": {"name": "web-1-x", "namespace": "default", "uid": "4", "ownerReferences": [owner], "labels": {"app": "web"}},
        "spec": {"containers": [container], "schedulerName": "default-scheduler", "priority": 0},
        "status": {"phase": "Pending"},
    })
}

fn daemon_pod(target: &str) -> Value {
    let mut pod = ordinary_pod();
    pod["metadata"]["ownerReferences"][0]["kind"] = json!("DaemonSet");
    let field = json!({"key": "metadata.name", "operator": "In", "values": [target]});
    let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
    pod["spec"]["affinity"] =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
    pod
}

/// Returns a Node of about 9 KB, as of a cloud provider: with labels, managed fields and images.
fn node(index: usize) -> Value {
    let labels: serde_json::Map<String, Value> = (0..20)
        .map(|label| (format!("topology.example.com/label-{label}"), json!(format!("value-{index}-{label}"))))
        .collect();
    let fields: serde_json::Map<String, Value> =
        (0..60).map(|field| (format!("f:status-{field}"), json!({"f:type": {}, "f:message": {}}))).collect();
    let images: Vec<Value> = (0..25)
        .map(|image| {
            let digest = format!("{image:064x}");
            json!({"names": [format!("registry.invalid/team/image-{image}@sha256:{digest}"), format!("registry.invalid/team/image-{image}:v1.2.3")], "sizeBytes": 123_456_789})
        })
        .collect();
    let amounts = json!({"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    json!({
        "metadata": {"name": node_name(index), "uid": format!("{index:032x}"), "labels": labels, "managedFields": [{"manager": "kubelet", "fieldsV1": fields}]},
        "spec": {"podCIDR": "10.0.0.0/24", "providerID": "cloud:///zone/i-1234"},
        "status": {"capacity": amounts, "allocatable": amounts, "images": images},
    })
}

criterion_group!(benches, names, nodes);
criterion_main!(benches);
