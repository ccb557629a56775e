//! The cost of the cache for 5,000 nodes, 150,000 pods and 30 DaemonSets: from the JSON that an apiserver sends to the state that
//! the hot path reads. In the end a tenant adds 1,500 DaemonSets to them, and deletes them.
//!
//! `cargo bench --bench cache` prints resident memory and microseconds an event; `-- NODES PODS` sets other numbers. Objects
//! are made one at a time, so that the memory is that of the cache and not of the input.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemonset_warden::api::daemonset::DaemonSet;
use daemonset_warden::api::node::Node;
use daemonset_warden::api::pod::Pod;
use daemonset_warden::api::policy_objects::Namespace;
use daemonset_warden::policy::Policy;
use daemonset_warden::reservation::View;
use daemonset_warden::telemetry::metrics::{Metrics, WatchedResource};
use daemonset_warden::watch::kinds::WatchedKind;
use daemonset_warden::watch::shared_cache::SharedCache;
use daemonset_warden::watch::trimmed_object::TrimmedObject;
use daemonset_warden::watch::watch_status::WatchStatus;
use kube::api::WatchEvent;
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;

#[path = "large/lock.rs"]
mod lock;

use lock::describe_lock;

const DAEMON_SETS: usize = 30;
const TENANTS_DAEMON_SETS: usize = 1_500;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (nodes, pods) = (numbers.next().unwrap_or(5_000), numbers.next().unwrap_or(150_000));
    let source = Arc::new(WatchStatus::new(WatchedResource::Pods, true));
    let cluster = View::new(Arc::new(Policy::default()), None);
    let metrics = Arc::new(Metrics::default());
    let cluster = SharedCache::new(cluster, vec![source.clone()], metrics.clone(), |_| {});
    println!("{:>6.1} MiB resident before anything", resident());
    println!("a pod is {} bytes of JSON, a node {}", pod(0, nodes, 1).len(), node(0).len());

    feed::<Node>(&cluster, "nodes", nodes, "Node", node);
    feed::<DaemonSet>(&cluster, "DaemonSets", DAEMON_SETS, "DaemonSet", daemon_set);
    feed::<Pod>(&cluster, "pods", pods, "Pod", |index| pod(index, nodes, 1));
    source.mark_listed();
    let begin = Instant::now();
    cluster.tick(begin);
    println!("{:>6.1} ms to work out every node once", millis(begin.elapsed()));
    let stats = cluster.lock().cache.stats();
    println!("{:>6.1} MiB resident once synced; {stats:?}", resident());

    let some = pods.min(10_000);
    let step = pods / some.max(1);
    feed::<Pod>(&cluster, "changes of a pod's status", some, "Pod", |index| pod(index * step, nodes, 2));
    feed::<Pod>(&cluster, "pods that end", some, "Pod", |index| pod(index * step, nodes, 3));
    feed::<Node>(&cluster, "heartbeats of nodes", nodes, "Node", node);
    let times: Vec<Duration> = (0..20).map(|_| time(|| cluster.tick(Instant::now()))).collect();
    println!("{:>6.0} us the longest of 20 ticks", micros(times.into_iter().max().unwrap_or_default()));
    println!("{:>6.0} us an update of the metrics", micros(time(|| cluster.update_metrics())));
    println!("{:>6.1} MiB resident in the end", resident());
    let lock = || describe_lock(&String::from_utf8_lossy(&metrics.text()));
    println!("the lock: {}", lock());

    feed::<Namespace>(&cluster, "namespaces", 1, "Namespace", |_| {
        r#"{"metadata":{"name":"tenant"}}"#.to_owned()
    });
    feed::<DaemonSet>(
        &cluster,
        "DaemonSets of a tenant",
        TENANTS_DAEMON_SETS,
        "DaemonSet",
        tenants_daemon_set,
    );
    println!("{:>6.1} ms for the tick after", millis(time(|| cluster.tick(Instant::now()))));
    println!("{:>6.1} MiB resident; {:?}", resident(), cluster.lock().reservation.stats());
    for index in 0..TENANTS_DAEMON_SETS {
        cluster.lock().cache.delete_daemon_set(&uid(5, index));
        cluster.refresh_changed();
    }
    println!("{:>6.1} ms for the tick after they are deleted", millis(time(|| cluster.tick(Instant::now()))));
    println!("{:>6.1} MiB resident; {:?}", resident(), cluster.lock().reservation.stats());
    println!("the lock: {}", lock());
}

/// Returns a DaemonSet that fits on every node.
fn tenants_daemon_set(index: usize) -> String {
    format!(
        r#"{{"metadata":{{"name":"small-{index}","namespace":"tenant","uid":"{}","generation":1,"creationTimestamp":"2026-01-02T00:00:00Z",{MANAGED}}},"spec":{{"selector":{{"matchLabels":{{"app":"small-{index}"}}}},"template":{{"metadata":{{"labels":{{"app":"small-{index}"}}}},"spec":{{"containers":[{}]}}}}}}}}"#,
        uid(5, index),
        container("1m").replace("128Mi", "1Mi")
    )
}

/// Decodes and applies `count` objects, and prints the time; making them is not counted.
fn feed<T: WatchedKind>(
    cluster: &SharedCache,
    what: &str,
    count: usize,
    kind: &str,
    make: impl Fn(usize) -> String,
) {
    let group = if kind == "DaemonSet" { "apps" } else { "" };
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    let (mut decoding, mut applying, mut longest) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for index in 0..count {
        let line = format!(r#"{{"type":"MODIFIED","object":{}}}"#, make(index));
        let begin = Instant::now();
        let event: WatchEvent<TrimmedObject<T>> = serde_json::from_str(&line).unwrap();
        let WatchEvent::Modified(trimmed) = event else { unreachable!() };
        let object = trimmed.object.unwrap();
        let decoded = Instant::now();
        object.apply(&mut cluster.lock().cache, &kind);
        cluster.refresh_changed();
        decoding += decoded - begin;
        applying += decoded.elapsed();
        longest = longest.max(decoded.elapsed());
    }
    let each = |total: Duration| micros(total) / count.max(1) as f64;
    println!(
        "{:>6.2} us to decode, {:>6.2} us to apply (longest {:.0}) each of {count} {what}; {:.1} MiB resident",
        each(decoding),
        each(applying),
        micros(longest),
        resident()
    );
}

fn node(index: usize) -> String {
    let name =
        format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", index >> 16, index >> 8 & 255, index & 255);
    let labels = labels(&[
        ("kubernetes.io/hostname", &name),
        ("topology.kubernetes.io/zone", ["a", "b", "c"][index % 3]),
        ("node.kubernetes.io/instance-type", "m6i.4xlarge"),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("eks.amazonaws.com/nodegroup", "workers"),
        ("team", "platform"),
    ]);
    let images: String = (0..40).fold(String::new(), |mut text, image| {
        let _ = write!(text, r#"{{"names":["registry.example/team/image-{image}@sha256:{image:064}","registry.example/team/image-{image}:v1"],"sizeBytes":123456}},"#);
        text
    });
    let amounts = r#"{"cpu":"15890m","ephemeral-storage":"76224326324","hugepages-1Gi":"0","hugepages-2Mi":"0","memory":"62Gi","pods":"110"}"#;
    format!(
        r#"{{"kind":"Node","apiVersion":"v1","metadata":{{"name":"{name}","uid":"{}","resourceVersion":"{index}","labels":{{{labels}}},"annotations":{{"csi.volume.kubernetes.io/nodeid":"{{}}","volumes.kubernetes.io/controller-managed-attach-detach":"true"}},{MANAGED}}},"spec":{{"podCIDR":"10.0.0.0/24","providerID":"aws:///eu-central-1a/i-0{index}"}},"status":{{"capacity":{amounts},"allocatable":{amounts},"conditions":[{{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-01T00:00:00Z"}}],"images":[{}]}}}}"#,
        uid(1, index),
        images.trim_end_matches(',')
    )
}

fn daemon_set(index: usize) -> String {
    format!(
        r#"{{"metadata":{{"name":"agent-{index}","namespace":"kube-system","uid":"{}","generation":1,{MANAGED}}},"spec":{{"selector":{{"matchLabels":{{"app":"agent-{index}"}}}},"template":{{"metadata":{{"labels":{{"app":"agent-{index}"}}}},"spec":{{"containers":[{}]}}}}}}}}"#,
        uid(2, index),
        container("50m")
    )
}

/// Returns a pod. The first ones are the DaemonSets' pods, one for each node and DaemonSet if `pods` is large enough.
fn pod(index: usize, nodes: usize, version: usize) -> String {
    let daemon_pods = nodes * DAEMON_SETS * 2 / 3;
    let (kind, owner, app) = if index < daemon_pods {
        let daemon_set = index / nodes;
        ("DaemonSet", uid(2, daemon_set), format!("agent-{daemon_set}"))
    } else {
        ("ReplicaSet", uid(4, index / 20), format!("service-{}", index / 20))
    };
    let on = index % nodes;
    let target = format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", on >> 16, on >> 8 & 255, on & 255);
    let labels = labels(&[("app", &app), ("pod-template-hash", "7d4b9c6f5"), ("team", "payments")]);
    let phase = if version == 3 { "Succeeded" } else { "Running" };
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{app}-7d4b9c6f5-{index:05}","generateName":"{app}-7d4b9c6f5-","namespace":"{}","uid":"{}","resourceVersion":"{index}{version}","creationTimestamp":"2026-01-01T00:00:00Z","labels":{{{labels}}},"annotations":{{"kubernetes.io/config.seen":"2026","prometheus.io/scrape":"true"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"{kind}","name":"{app}","uid":"{owner}","controller":true,"blockOwnerDeletion":true}}],{MANAGED}}},"spec":{{"volumes":[{{"name":"kube-api-access","projected":{{"sources":[{{"serviceAccountToken":{{"expirationSeconds":3607,"path":"token"}}}}]}}}}],"containers":[{},{}],"nodeName":"{target}","priority":0,"tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}},{{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}]}},"status":{{"phase":"{phase}","conditions":[{{"type":"PodScheduled","status":"True"}},{{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:0{version}Z"}}],"containerStatuses":[{{"name":"main","ready":true,"restartCount":{version},"image":"registry.example/team/image:v1","imageID":"registry.example/team/image@sha256:{index:064}","containerID":"containerd://{index:064}","allocatedResources":{{"cpu":"100m","memory":"128Mi"}},"resources":{{"requests":{{"cpu":"100m","memory":"128Mi"}}}}}}]}}}}"#,
        if kind == "DaemonSet" { "kube-system" } else { "payments" },
        uid(3, index),
        container("100m"),
        container("10m").replace("main", "proxy"),
    )
}

fn container(cpu: &str) -> String {
    let env: String = (0..20).fold(String::new(), |mut text, number| {
        let _ =
            write!(text, r#"{{"name":"SOME_SETTING_{number}","value":"https://service.example/{number}"}},"#);
        text
    });
    format!(
        r#"{{"name":"main","image":"registry.example/team/image:v1","args":["--verbose","--port=8080"],"ports":[{{"containerPort":8080,"protocol":"TCP"}}],"env":[{}],"resources":{{"requests":{{"cpu":"{cpu}","memory":"128Mi"}},"limits":{{"memory":"256Mi"}}}},"volumeMounts":[{{"name":"kube-api-access","mountPath":"/var/run/secrets"}}],"livenessProbe":{{"httpGet":{{"path":"/healthz","port":8080,"scheme":"HTTP"}},"timeoutSeconds":1,"periodSeconds":10}},"terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"}}"#,
        env.trim_end_matches(',')
    )
}

fn labels(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(key, value)| format!(r#""{key}":"{value}""#)).collect::<Vec<_>>().join(",")
}

fn uid(kind: usize, index: usize) -> String {
    format!("{kind:08x}-0000-4000-8000-{index:012x}")
}

const MANAGED: &str = r#""managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:team":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"x\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"main\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"A\"}":{".":{},"f:name":{},"f:value":{}},"k:{\"name\":\"B\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"f:resources":{".":{},"f:limits":{".":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}}}}}}}]"#;

fn time(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Returns the resident memory of this process in MiB, as the kernel counts it.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
