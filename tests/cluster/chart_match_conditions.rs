//! The match conditions of `/mutate` and the code's rule never part: over generated pods a real apiserver calls the webhook if and
//! only if the rule gives a patch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use daemonset_warden::admission::mutation;
use daemonset_warden::api::admission_v1;
use daemonset_warden::api::decode_budget::DecodeBudget;
use daemonset_warden::policy::Policy;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::harness::{
    HttpsServer, NodeOptions, TestNamespace, mutating_webhook, object, owned_by_daemon_set, say, sum,
};

const NODES: usize = 16;
/// Pods that are created at once.
const AT_ONCE: usize = 16;
const ERRORS: &str = "apiserver_admission_match_condition_evaluation_errors_total";

/// A webhook that changes nothing and remembers the pods of its reviews by name.
struct RecordingWebhook {
    server: HttpsServer,
    pods: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl RecordingWebhook {
    async fn start() -> Self {
        let pods = Arc::new(Mutex::new(BTreeMap::new()));
        let record = pods.clone();
        let answer = move |pod: &Value| {
            let name = pod["metadata"]["name"].as_str().or(pod["metadata"]["generateName"].as_str());
            record.lock().unwrap().insert(name.unwrap_or_default().to_owned(), pod.clone());
            Vec::new()
        };
        Self { server: HttpsServer::start(mutating_webhook(answer)).await, pods }
    }

    fn url(&self) -> String {
        format!("{}/mutate", self.server.url)
    }

    fn reviewed(&self) -> BTreeMap<String, Value> {
        self.pods.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_webhook_is_called_if_and_only_if_the_rule_gives_a_patch() {
    let namespace = TestNamespace::shared("match-conditions").await;
    let class = namespace.priority_class("agents", 1000).await;
    let (all, ours, with_class) =
        futures::join!(RecordingWebhook::start(), RecordingWebhook::start(), RecordingWebhook::start());
    namespace.register_foreign("match-1-all", &all.url(), &all.server.ca).await;
    namespace.register_foreign_as_ours("match-2-ours", &ours.url(), &ours.server.ca, None).await;
    let (url, ca) = (with_class.url(), &with_class.server.ca);
    namespace.register_foreign_as_ours("match-3-class", &url, ca, Some(&class)).await;

    let pods = generated(&class);
    let resource = ApiResource::erase::<Pod>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    // The apiserver may refuse a pod after the webhooks, but never because of a condition.
    let refusals: Vec<String> = futures::stream::iter(pods.iter().enumerate())
        .map(async |(index, pod)| {
            let mut pod = pod.clone();
            pod["metadata"]["name"] = json!(format!("pod-{index}"));
            let pod: DynamicObject = object(pod);
            api.create(&dry_run, &pod).await.err().map(|e| e.to_string())
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(!refusals.iter().any(|refusal| refusal.contains("webhook")), "{refusals:?}");

    let mut reviewed = all.reviewed();
    reviewed.retain(|name, _| name.starts_with("pod-"));
    assert!(reviewed.len() * 20 > pods.len() * 19, "{} of {} pods: {refusals:?}", reviewed.len(), pods.len());
    let (called, called_with_class) = (ours.reviewed(), with_class.reviewed());
    let mut policy = Policy::default();
    let mut patched = 0;
    for (name, pod) in &reviewed {
        policy.admission.default_priority_class_name.clear();
        let is_patched = is_patched(&policy, pod);
        assert_eq!(called.contains_key(name), is_patched, "{name}: {pod:#}");
        patched += usize::from(is_patched);
        policy.admission.default_priority_class_name.clone_from(&class);
        let is_patched = self::is_patched(&policy, pod);
        assert_eq!(called_with_class.contains_key(name), is_patched, "{name}, with a class: {pod:#}");
    }
    assert!(patched > 100 && reviewed.len() - patched > 100, "{patched} of {} are patched", reviewed.len());

    // Lists that would exceed the apiserver's limit of cost are not searched.
    for (name, changes) in oversized() {
        let mut pod = daemon_pod(changes);
        pod["metadata"]["name"] = json!(name);
        let created = api.create(&dry_run, &object(pod)).await;
        assert!(ours.reviewed().contains_key(name), "{name}: {:?}", created.err().map(|e| e.to_string()));
    }
    let request = axum::http::Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = namespace.client.request_text(request).await.unwrap();
    for webhook in ["match-2-ours", "match-3-class"] {
        let name = format!("{webhook}.daemonset-warden.test");
        assert_eq!(sum(&metrics, ERRORS, &[("name", &name)]), 0.0, "{webhook}");
    }
    say(&format!(
        "{} generated pods, {patched} patched: the apiserver calls /mutate for these and no other",
        reviewed.len()
    ));
}

/// The built-in controller's pods lack nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_the_built_in_controller_cost_no_call() {
    let namespace = TestNamespace::shared("match-built-in").await;
    let (all, ours) = futures::join!(RecordingWebhook::start(), RecordingWebhook::start());
    namespace.register_foreign("match-built-in-1-all", &all.url(), &all.server.ca).await;
    namespace.register_foreign_as_ours("match-built-in-2-ours", &ours.url(), &ours.server.ca, None).await;
    namespace.nodes(1, NODES, &NodeOptions::default()).await;
    let name = "match-built-in-2-ours";
    let before =
        (namespace.mutating_calls("match-built-in-1-all").await, namespace.mutating_calls(name).await);
    namespace.create(&namespace.daemon_set("agent", json!({}))).await;
    let host_network = json!({ "spec": { "template": { "spec": { "hostNetwork": true } } } });
    namespace.create(&namespace.daemon_set("on-host", host_network)).await;
    namespace.settled("agent", NODES as i32).await;
    namespace.settled("on-host", NODES as i32).await;
    let without = namespace.mutating_calls("match-built-in-1-all").await - before.0;
    let with = namespace.mutating_calls(name).await - before.1;
    say(&format!("{} daemon pods created: {without} calls without the condition, {with} with it", 2 * NODES));
    assert!(without >= 2 * NODES as u64, "{without}");
    assert_eq!(with, 0);
}

/// Returns true if the code's rule gives a patch for a pod that a trusted controller creates; a daemon pod may have the class.
fn is_patched(policy: &Policy, pod: &Value) -> bool {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE",
            "namespace": "match-conditions", "object": pod,
            "userInfo": { "username": "system:serviceaccount:kube-system:daemon-set-controller" },
        },
    });
    let review = review.to_string();
    let request = admission_v1::parse(review.as_bytes()).unwrap();
    let budget = DecodeBudget::default();
    let may_have_class = |_: &_| is_daemon_pod(pod);
    !mutation::review_within(policy, &request, None, &budget, may_have_class).unwrap().is_empty()
}

fn is_daemon_pod(pod: &Value) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let mut owners = owners.into_iter().flatten();
    owners.any(|owner| owner["controller"] == true && owner["kind"] == "DaemonSet")
        && pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null()
}

/// Returns pods of a DaemonSet with each node affinity and each list of tolerations; with each scheduler, node name and class; and
/// pods that are no daemon pods.
fn generated(class: &str) -> Vec<Value> {
    let (affinities, tolerations) = (affinities(), tolerations());
    let mut pods = Vec::new();
    for affinity in &affinities {
        for tolerations in &tolerations {
            for host_network in [false, true] {
                pods.push(daemon_pod(json!({
                    "affinity": affinity, "tolerations": tolerations, "hostNetwork": host_network,
                })));
            }
        }
        let complete = daemons(7);
        for scheduler in ["default-scheduler", "kubernetes.io/daemonset-controller", "other"] {
            for node in [Value::Null, json!("n1")] {
                for class in [Value::Null, json!(class)] {
                    pods.push(daemon_pod(json!({
                        "affinity": affinity, "tolerations": complete, "schedulerName": scheduler,
                        "nodeName": node, "priorityClassName": class,
                    })));
                }
            }
        }
    }
    let lacks_all = || daemon_pod(json!({ "nodeName": "n1" }));
    let mut of_replica_set = lacks_all();
    of_replica_set["metadata"]["ownerReferences"][0]["kind"] = json!("ReplicaSet");
    let mut guest = lacks_all();
    guest["metadata"]["ownerReferences"][0]["controller"] = json!(false);
    let mut mirror = lacks_all();
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
    let mut without_owner = lacks_all();
    without_owner["metadata"]["ownerReferences"] = Value::Null;
    pods.extend([of_replica_set, guest, mirror, without_owner]);
    pods
}

/// Returns a pod of a DaemonSet with these fields of its spec.
fn daemon_pod(spec: Value) -> Value {
    let mut pod = owned_by_daemon_set("agent", "00000000");
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["spec"] = spec;
    pod["spec"]["containers"] = json!([{ "name": "main", "image": "example.test/main:1" }]);
    pod
}

/// Returns a requirement on the node's name.
fn name(operator: &str, values: Value) -> Value {
    json!({ "key": "metadata.name", "operator": operator, "values": values })
}

/// Returns the affinities: of the controller's form, of other forms with and without a target, and none.
fn affinities() -> Vec<Value> {
    let own = name("In", json!(["n1"]));
    let os = json!({ "key": "kubernetes.io/os", "operator": "Exists" });
    let preferred = json!([{ "weight": 1, "preference": { "matchFields": [own] } }]);
    let terms = [
        Value::Null,
        json!([]),
        json!([{}]),
        json!([{ "matchFields": [own] }]),
        json!([{ "matchFields": [own], "matchExpressions": [] }]),
        json!([{ "matchFields": [own], "matchExpressions": [os] }]),
        json!([{ "matchFields": [own] }, { "matchFields": [own] }]),
        json!([{}, { "matchFields": [own] }]),
        json!([{ "matchFields": [own] }, { "matchExpressions": [os] }]),
        json!([{ "matchFields": [own, name("NotIn", json!(["n2"]))] }]),
        json!([{ "matchFields": [name("NotIn", json!(["n0"])), own] }]),
        json!([{ "matchFields": [name("In", json!(["n1", "n2"])), own] }]),
        json!([{ "matchFields": [name("In", json!([]))] }]),
        json!([{ "matchFields": [name("In", Value::Null)] }]),
        json!([{ "matchFields": [name("in", json!(["n1"]))] }]),
        json!([{ "matchFields": [own] }, { "matchFields": [name("In", json!(["n2", "n3"]))] }]),
        json!([{ "matchFields": [name("In", json!(["n2", "n3"]))] }, { "matchFields": [own] }]),
        json!([{ "matchFields": [{ "key": "metadata.namespace", "operator": "In", "values": ["n1"] }] }]),
        json!([{ "matchExpressions": [os] }]),
    ];
    let required = |terms: &Value| json!({ "nodeSelectorTerms": terms });
    let mut affinities: Vec<Value> = terms
        .iter()
        .map(|terms| {
            json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required(terms) } })
        })
        .collect();
    let exact = required(&json!([{ "matchFields": [own] }]));
    affinities.extend([
        Value::Null,
        json!({}),
        json!({ "nodeAffinity": {} }),
        json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": Value::Null } }),
        json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {} } }),
        json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": preferred } }),
        json!({ "podAffinity": {}, "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": exact,
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        } }),
    ]);
    affinities
}

/// Returns the first of the tolerations that the DaemonSet controller adds; the seventh is for the host's network.
fn daemons(count: usize) -> Vec<Value> {
    let all = [
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
        ("node.kubernetes.io/network-unavailable", "NoSchedule"),
    ];
    let toleration =
        |(key, effect): &(&str, &str)| json!({ "key": key, "operator": "Exists", "effect": effect });
    all[..count].iter().map(toleration).collect()
}

/// Returns lists of tolerations: complete, with one that is missing or different, and with others beside them.
fn tolerations() -> Vec<Value> {
    let mut lists = vec![
        Value::Null,
        json!([]),
        json!([{ "operator": "Exists" }]),
        json!(daemons(6)),
        json!(daemons(7)),
        json!(daemons(7).into_iter().rev().collect::<Vec<_>>()),
    ];
    for missing in [0, 3, 5] {
        let mut list = daemons(7);
        list.remove(missing);
        lists.push(json!(list));
    }
    // Each of these changes is made to one of the seven, or is one beside them.
    let changes = [
        (0, json!({ "tolerationSeconds": 300 })),
        (6, json!({ "tolerationSeconds": 300 })),
        (1, json!({ "tolerationSeconds": 0 })),
        (1, json!({ "operator": "Equal" })),
        (2, json!({ "operator": Value::Null })),
        (3, json!({ "effect": Value::Null })),
        (4, json!({ "effect": "NoExecute" })),
        (5, json!({ "value": "x" })),
        (5, json!({ "value": "" })),
        (0, json!({ "key": "example.test/other", "tolerationSeconds": 30 })),
        (1, json!({ "value": "x", "tolerationSeconds": 30 })),
    ];
    for (index, change) in changes {
        let mut changed = daemons(7)[index].clone();
        json_patch::merge(&mut changed, &change);
        let mut list = daemons(7);
        list[index] = changed.clone();
        lists.push(json!(list));
        let mut list = daemons(7);
        list.push(changed);
        lists.push(json!(list));
    }
    lists
}

/// Returns pods with lists of a size that no controller writes.
fn oversized() -> [(&'static str, Value); 3] {
    let affinity = |terms: Value| json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } });
    let own = name("In", json!(["n1"]));
    let foreign = |index: usize| json!({ "key": format!("example.test/{index}"), "operator": "Exists" });
    [
        (
            "many-tolerations",
            json!({
                "affinity": affinity(json!([{ "matchFields": [own] }])),
                "tolerations": (0..20_000).map(foreign).collect::<Vec<_>>(),
            }),
        ),
        ("many-terms", json!({ "affinity": affinity(json!(vec![json!({ "matchFields": [own] }); 10_000])) })),
        (
            "many-fields",
            json!({ "affinity": affinity(json!([{ "matchFields": vec![own.clone(); 10_000] }])) }),
        ),
    ]
}
