//! `/bind` behind a real apiserver: bindings that a hold refuses, and bindings that are strange, forged or incomplete.
//!
//! The tests bind pods themselves, as a scheduler does. Each has one node of 4 CPU, on which room of 1 CPU is reserved.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::{
    BindRefusal, BindWebhook, Binding, ControlPlane, Doors, TestExtender, TestNamespace, Warden,
    WardenOptions, eventually, eventually_within, is_bound, owned_by_daemon_set,
};
use crate::hostile::caller::Caller;

/// A namespace with one node of 4 CPU, of which 1 CPU is reserved for a daemon pod that does not come.
struct ReservedNode {
    namespace: TestNamespace<&'static ControlPlane>,
    warden: Warden,
    node: String,
}

impl ReservedNode {
    async fn start(name: &str) -> Self {
        let namespace = TestNamespace::shared(name).await;
        let kubeconfig = Some(namespace.warden_kubeconfig().await);
        let config = namespace.holding_here(json!({}));
        let warden = Warden::start(WardenOptions { config, kubeconfig }).await;
        let node = namespace.node().await;
        namespace.register_bind(&warden, &BindWebhook::default()).await;
        let template = json!({ "spec": { "template": { "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "1" } },
            }],
        } } } });
        namespace.create(&namespace.daemon_set("agent", template)).await;
        namespace.pods_exist("agent", 1).await;
        let test = Self { namespace, warden, node };
        let large = test.pod("large", "3500m", json!({})).await;
        // As a dry run, because the first may come before the hold, and the pod must stay for that.
        eventually("room is reserved", async || {
            let tried = Binding { dry_run: true, ..Binding::new(&large, &test.node) };
            match test.namespace.bind(&tried).await {
                Err(refusal) if refusal.is_for_room() => Ok(()),
                other => Err(format!("{other:?}; {}", test.bind_metrics().await)),
            }
        })
        .await;
        test
    }

    /// Creates a pod that no scheduler takes.
    async fn pod(&self, name: &str, cpu: &str, changes: Value) -> Pod {
        self.namespace.create(&self.namespace.unscheduled_pod(name, cpu, changes)).await
    }

    async fn bind(&self, pod: &Pod) -> Result<(), BindRefusal> {
        self.send(&Binding::new(pod, &self.node)).await
    }

    /// Sends a Binding of a pod that exists; again, as a scheduler does, while the warden has not seen the pod.
    async fn send(&self, binding: &Binding) -> Result<(), BindRefusal> {
        for _ in 0..100 {
            match self.namespace.bind(binding).await {
                Err(refusal) if refusal.message.contains("has not been seen yet") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                judged => return judged,
            }
        }
        panic!("the pod of {:?} is never seen", binding.object());
    }

    async fn is_bound(&self, name: &str) -> bool {
        is_bound(&self.namespace.api::<Pod>().get(name).await.expect("the pod exists"))
    }

    /// Asserts that the room beside the reserved one is free: nothing that came before is assumed there.
    async fn assert_three_cpu_are_free(&self) {
        let whole = self.pod("whole", "3", json!({})).await;
        assert_eq!(self.bind(&whole).await, Ok(()), "3 CPU are left");
    }

    async fn bind_requests(&self, outcome: &str) -> f64 {
        self.warden.metric("daemonset_warden_bind_requests_total", &[("outcome", outcome)]).await
    }

    /// Returns the lines of the metrics that tell about `/bind`, for a failure message.
    async fn bind_metrics(&self) -> String {
        let text = self.warden.metrics().await;
        let tells = |line: &&str| {
            line.contains("_bind_")
                && !line.contains("_bucket")
                && !line.starts_with('#')
                && !line.ends_with(" 0")
        };
        text.lines().filter(tells).collect::<Vec<_>>().join("; ")
    }

    async fn unjudged(&self, reason: &str) -> f64 {
        self.warden.metric("daemonset_warden_bind_unjudged_total", &[("reason", reason)]).await
    }
}

impl BindRefusal {
    /// Returns true for a refusal of the warden because room is reserved.
    fn is_for_room(&self) -> bool {
        self.code == 403
            && self.reason == "Forbidden"
            && self.message.contains("reserves room for daemon pods")
    }
}

#[tokio::test]
async fn a_binding_into_reserved_room_is_refused_with_the_names_and_the_amounts() {
    let test = ReservedNode::start("bind-refused").await;
    for number in 0..3 {
        let pod = test.pod(&format!("web-{number}"), "1", json!({})).await;
        assert_eq!(test.bind(&pod).await, Ok(()), "pod {number} leaves the reserved room");
    }
    let last = test.pod("web-3", "500m", json!({})).await;
    let refusal = test.bind(&last).await.unwrap_err();
    assert!(refusal.is_for_room(), "{refusal:?}");
    let says = format!(
        "node {:?} reserves room for daemon pods that have not landed yet: bind-refused/agent (1 cpu); this pod asks 500m cpu, \
         and 0 is left beside them",
        test.node
    );
    assert!(refusal.message.ends_with(&says), "{}\n{says}", refusal.message);
    assert!(!test.is_bound("web-3").await);
    assert!(test.bind_requests("refused").await >= 1.0);

    // The hold ends with its DaemonSet.
    test.namespace.delete::<DaemonSet>("agent").await;
    eventually("the pod may be bound", async || test.bind(&last).await.map_err(|refusal| refusal.message))
        .await;
    let waited = [("door", "bind"), ("reason", "reserved")];
    eventually("its wait is measured", async || {
        match test.warden.metric("daemonset_warden_pod_wait_seconds_count", &waited).await {
            1.0 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

/// All of them are sent in the same moment, before the watch shows one.
#[tokio::test]
async fn bindings_of_the_same_moment_do_not_share_the_room_that_is_left() {
    let test = ReservedNode::start("bind-at-once").await;
    let mut pods = Vec::new();
    for number in 0..12 {
        pods.push(test.pod(&format!("web-{number}"), "1", json!({})).await);
    }
    let bound = futures::future::join_all(pods.iter().map(|pod| test.bind(pod))).await;
    assert_eq!(bound.iter().filter(|result| result.is_ok()).count(), 3, "{bound:?}");
    assert!(
        bound.iter().filter_map(|result| result.as_ref().err()).all(BindRefusal::is_for_room),
        "{bound:?}"
    );
}

#[tokio::test]
async fn the_legacy_bindings_are_judged_alike() {
    let test = ReservedNode::start("bind-legacy").await;
    let (large, small) =
        (test.pod("too-large", "3500m", json!({})).await, test.pod("small", "3", json!({})).await);
    let legacy = |pod: &Pod| Binding { is_legacy: true, ..Binding::new(pod, &test.node) };
    let refusal = test.send(&legacy(&large)).await.unwrap_err();
    assert!(refusal.is_for_room(), "{refusal:?}");
    assert_eq!(test.send(&legacy(&small)).await, Ok(()));
    assert!(test.is_bound("small").await);
}

#[tokio::test]
async fn a_dry_run_is_judged_and_changes_nothing() {
    let test = ReservedNode::start("bind-dry").await;
    let (small, large) =
        (test.pod("small", "3", json!({})).await, test.pod("too-large", "3500m", json!({})).await);
    let dry = |pod: &Pod| Binding { dry_run: true, ..Binding::new(pod, &test.node) };
    // A dry run is not refused because the pod has not been seen yet.
    eventually("both pods are seen", async || match test.namespace.bind(&dry(&large)).await {
        Err(refusal) => Ok(refusal),
        Ok(()) => Err("allowed".to_owned()),
    })
    .await;
    for _ in 0..5 {
        let refusal = test.send(&dry(&large)).await.unwrap_err();
        assert!(refusal.is_for_room(), "{refusal:?}");
        assert_eq!(test.send(&dry(&small)).await, Ok(()));
    }
    assert!(!test.is_bound("small").await);
    let refusing = test.warden.metric("daemonset_warden_holds_refusing_total", &[]).await;
    assert_eq!(refusing, 0.0, "a dry run starts no clock of a hold");
    test.assert_three_cpu_are_free().await;
}

/// The apiserver refuses these itself; only somebody who calls the warden's port can send them.
#[tokio::test]
async fn a_binding_that_binds_no_pod_to_a_node_is_allowed_and_counted() {
    let test = ReservedNode::start("bind-strange").await;
    let large = test.pod("too-large", "3500m", json!({})).await;
    let strange = [
        ("without a target", json!({})),
        ("to nothing", json!({ "kind": "Node", "name": "" })),
        ("to a pod", json!({ "kind": "Pod", "name": test.node })),
        ("to a list", json!([])),
    ];
    let caller = Caller::of(&test.warden);
    for (what, target) in strange {
        let binding = Binding { target, ..Binding::new(&large, &test.node) };
        let refusal = test.namespace.bind(&binding).await.unwrap_err();
        assert!(!refusal.message.contains("admission webhook"), "{what}: {refusal:?}");
        let before = test.unjudged("not_a_binding").await;
        let answer = ask(&caller, &review(&test.namespace.name, &binding.object())).await;
        assert_eq!(answer["response"]["allowed"], true, "{what}: {answer}");
        assert_eq!(test.unjudged("not_a_binding").await, before + 1.0, "{what}");
    }
    let elsewhere =
        Binding { metadata: json!({ "namespace": "default" }), ..Binding::new(&large, &test.node) };
    let refusal = test.namespace.bind(&elsewhere).await.unwrap_err();
    assert_eq!(refusal.code, 400, "{refusal:?}");
    let answer = ask(&caller, &review(&test.namespace.name, &elsewhere.object())).await;
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    assert!(!test.is_bound("too-large").await);
    test.assert_three_cpu_are_free().await;
}

#[tokio::test]
async fn a_binding_of_a_pod_that_is_not_there_waits_only_a_moment_and_takes_no_room() {
    let test = ReservedNode::start("bind-nobody").await;
    let nobody = test.pod("nobody", "3", json!({})).await;
    let at_once = kube::api::DeleteParams::default().grace_period(0);
    test.namespace.api::<Pod>().delete("nobody", &at_once).await.unwrap();
    let code = async |binding: &Binding| test.namespace.bind(binding).await.unwrap_err().code;
    // A pod that never was: refused at first, because the watch may be behind.
    let never = Binding { uid: "never".to_owned(), ..Binding::new(&nobody, &test.node) };
    assert_eq!(code(&never).await, 403);
    let soon = Duration::from_secs(10);
    eventually_within(soon, "the apiserver says that there is no such pod", async || {
        match code(&Binding::new(&nobody, &test.node)).await {
            404 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    // Another pod of that name: its UID is not the one that the Binding names.
    test.pod("nobody", "3", json!({})).await;
    eventually_within(soon, "the apiserver says that it is another pod", async || {
        match code(&Binding::new(&nobody, &test.node)).await {
            409 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    assert!(!test.is_bound("nobody").await);
    test.assert_three_cpu_are_free().await;
}

#[tokio::test]
async fn a_binding_without_a_uid_is_judged_by_the_name_of_its_pod() {
    let test = ReservedNode::start("bind-no-uid").await;
    let (large, small) =
        (test.pod("too-large", "3500m", json!({})).await, test.pod("small", "3", json!({})).await);
    let nameless = |pod: &Pod| Binding { uid: String::new(), ..Binding::new(pod, &test.node) };
    let refusal = test.send(&nameless(&large)).await.unwrap_err();
    assert!(refusal.is_for_room(), "{refusal:?}");
    assert_eq!(test.send(&nameless(&small)).await, Ok(()));
    let another = test.pod("another", "100m", json!({})).await;
    let refusal = test.bind(&another).await.unwrap_err();
    assert!(refusal.is_for_room(), "the pod before it is assumed: {refusal:?}");
}

/// The labels of a Binding become labels of the pod, and are judged as nothing: the pod is judged as it was created.
#[tokio::test]
async fn labels_and_owner_references_that_are_forged_gain_nothing() {
    let test = ReservedNode::start("bind-forged").await;
    let large = test.pod("too-large", "3500m", json!({})).await;
    let uid = test.namespace.api::<DaemonSet>().get("agent").await.unwrap().uid().unwrap();
    let owner = owned_by_daemon_set("agent", &uid)["metadata"]["ownerReferences"].clone();
    let claims = json!({
        "labels": { "daemonset-warden.io/ignore": "true", "app": "agent", "app.kubernetes.io/name": "daemonset-warden" },
        "ownerReferences": owner,
    });
    let forged = Binding { metadata: claims, ..Binding::new(&large, &test.node) };
    let refusal = test.send(&forged).await.unwrap_err();
    assert!(refusal.is_for_room(), "{refusal:?}");

    // The controllers delete a pod whose owner or target does not exist; the unit tests have those.
    let owned = |app: &str| {
        let mut pod = owned_by_daemon_set("agent", &uid);
        pod["metadata"]["labels"] = json!({ "app": app });
        pod
    };
    let forgeries = [
        ("other-labels", owned("other")),
        ("without-a-target", owned("agent")),
        (
            "as-one-of-ours",
            json!({ "metadata": { "labels": { "app.kubernetes.io/name": "daemonset-warden" } } }),
        ),
    ];
    for (name, changes) in forgeries {
        let pod = test.pod(name, "3500m", changes).await;
        let refusal = test.bind(&pod).await.unwrap_err();
        assert!(refusal.is_for_room(), "{name}: {refusal:?}");
    }
}

#[tokio::test]
async fn kubectl_describe_shows_the_refusal_in_one_line() {
    let test = TestExtender::start_by("bind-describe", Doors::Bind, json!({})).await;
    let node = test.namespace.node().await;
    test.missing_daemon_set("agent", "1", json!({})).await;
    test.namespace.pods_exist("agent", 1).await;
    test.ordinary("web", 4, json!({})).await;
    let says = format!(
        "node {node:?} reserves room for daemon pods that have not landed yet: bind-describe/agent (1 cpu)"
    );
    eventually("kubectl describe shows it", async || {
        let pods = test.namespace.pods("web").await;
        let waits = pods.iter().find(|pod| !is_bound(pod)).ok_or("all are bound")?.name_any();
        let shown = test.namespace.kubectl.succeed(&["describe", "pod", &waits]).await;
        match shown.lines().find(|line| line.contains("FailedScheduling") && line.contains(&says)) {
            Some(_) => Ok(()),
            None => Err(shown),
        }
    })
    .await;
}

/// Returns the review that an apiserver sends for a Binding of that namespace.
fn review(namespace: &str, binding: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "kind": { "group": "", "version": "v1", "kind": "Binding" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "subResource": "binding",
            "name": binding["metadata"]["name"], "namespace": namespace, "operation": "CREATE", "object": binding,
        },
    })
}

async fn ask(caller: &Caller, review: &Value) -> Value {
    let (status, text) = caller.post("/bind", review.to_string()).await.expect("an answer");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("a review")
}
