//! Makes a large cluster at little cost: pods are created bound to their nodes, and no kubelet runs them.
//!
//! The controllers and KWOK are stopped when the namespace exists, because they would take minutes of CPU time for work that no
//! benchmark measures. So this program creates each daemon pod as its controller and the scheduler leave it: with owner
//! reference, labels, affinity and `nodeName`. For a scheduler and for the warden there is no difference: neither uses the phase
//! of a bound pod, unless the pod has ended.

use std::time::Instant;

use axum::http::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::harness::{ControlPlane, NodeOptions, TestNamespace, eventually, object};

/// The label that the node selector of [`Large::waiting_daemon_set`] requires.
const HELD: &str = "held";
/// The number of requests in flight, enough to keep the apiserver busy.
const AT_ONCE: usize = 64;
pub(crate) const DAEMON_SETS: usize = 30;
/// An Accept header that makes responses short, because they are not read.
const SHORT: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// The namespace of the pods. It is not the [`TestNamespace`], because the harness records every pod there.
pub(crate) const NAMESPACE: &str = "large";

/// A control plane with nodes, DaemonSets and their pods.
pub(crate) struct Large {
    pub(crate) namespace: TestNamespace<Box<ControlPlane>>,
    pub(crate) client: Client,
    pub(crate) nodes: usize,
}

impl Large {
    /// Starts the control plane and creates the objects. Each DaemonSet runs on `wanted_on` of every three nodes.
    pub(crate) async fn start(name: &str, nodes: usize, wanted_on: usize) -> Self {
        let owned = name.to_owned();
        let plane = tokio::task::spawn_blocking(move || ControlPlane::start(&owned)).await;
        let namespace = TestNamespace::on(Box::new(plane.expect("no panic")), name).await;
        let client = namespace.client.clone();
        let large = Self { namespace, client, nodes };
        large.make_namespace().await;
        tokio::task::block_in_place(|| {
            large.namespace.plane.stop_kwok();
            large.namespace.plane.stop_controller_manager();
        });

        let begin = Instant::now();
        large.make_nodes().await;
        let mut pods = Vec::new();
        for index in 0..DAEMON_SETS {
            let uid = large.make_daemon_set(index, wanted_on).await;
            let on = (0..nodes).filter(|node| wants(index, *node, wanted_on));
            pods.extend(on.map(|node| daemon_pod(index, node, &uid)));
        }
        let count = pods.len();
        large.create_pods(pods).await;
        println!(
            "{nodes} nodes, {DAEMON_SETS} DaemonSets and {count} daemon pods made in {:.0} s",
            begin.elapsed().as_secs_f64()
        );
        large
    }

    /// Creates pods, several at once.
    pub(crate) async fn create_pods(&self, pods: impl IntoIterator<Item = Value>) {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let create = |pod: Value| self.send("POST", &path, "application/json", pod);
        futures::stream::iter(pods).map(create).buffer_unordered(AT_ONCE).count().await;
    }

    /// Deletes the pods of an app without a grace period, because no kubelet ends them.
    pub(crate) async fn delete_pods(&self, app: &str) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let of_app = ListParams::default().labels(&format!("app={app}"));
        let at_once = DeleteParams::default().grace_period(0);
        api.delete_collection(&at_once, &of_app).await.map(drop).expect("pods can be deleted");
    }

    /// Creates a DaemonSet for the first `count` nodes, on which [`Self::fill`] has left 400m. Its pods request 500m, and wait.
    pub(crate) async fn waiting_daemon_set(&self, app: &str, count: usize, scheduler: &str) {
        let spec = json!({ "schedulerName": scheduler, "nodeSelector": { HELD: "yes" } });
        let mut template = pod(app, app, "500m");
        json_patch::merge(&mut template["spec"], &spec);
        let uid = self.create_daemon_set(app, &template).await;
        let pods = (0..count).map(|node| {
            let mut pod = of_daemon_set(template.clone(), app, node, &uid);
            pod["metadata"]["name"] = json!(format!("{app}-{node}"));
            pod
        });
        self.create_pods(pods).await;
    }

    /// Deletes a DaemonSet and its pods.
    pub(crate) async fn delete_daemon_set(&self, app: &str) {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        api.delete(app, &DeleteParams::default()).await.map(drop).expect("a DaemonSet can be deleted");
        self.delete_pods(app).await;
    }

    /// Leaves 400m of 4 CPU on each of the first `count` nodes, for [`Self::waiting_daemon_set`].
    pub(crate) async fn fill(&self, count: usize) {
        let label = async |number: usize| {
            let path = format!("/api/v1/nodes/{}", node_name(number));
            let label = json!({ "metadata": { "labels": { HELD: "yes" } } });
            self.send("PATCH", &path, "application/merge-patch+json", label).await;
        };
        futures::stream::iter(0..count).map(label).buffer_unordered(AT_ONCE).count().await;
        let cpu = format!("{}m", 4000 - 50 * DAEMON_SETS - 400);
        self.create_pods((0..count).map(|number| {
            let mut filler = pod(&format!("filler-{number}"), "filler", &cpu);
            filler["spec"]["nodeName"] = json!(node_name(number));
            filler
        }))
        .await;
    }

    /// Returns a pod without a controller, with `spec` merged into its spec.
    pub(crate) fn ordinary_pod(&self, app: &str, number: usize, spec: Value) -> Value {
        let mut pod = pod(&format!("{app}-{number}"), app, "100m");
        json_patch::merge(&mut pod["spec"], &spec);
        pod
    }

    /// Returns the name of a node; `number` may be larger than the number of nodes.
    pub(crate) fn node(&self, number: usize) -> String {
        node_name(number % self.nodes)
    }

    /// Sends a request. Panics if the response is an error.
    pub(crate) async fn send(&self, method: &str, path: &str, content: &str, body: Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(CONTENT_TYPE, content)
            .header(ACCEPT, SHORT)
            .body(body.to_string().into_bytes())
            .expect("a request");
        self.client.request_text(request).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
    }

    async fn make_namespace(&self) {
        let namespace: Namespace = object(json!({ "metadata": { "name": NAMESPACE } }));
        let created = Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await;
        created.expect("a namespace");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), NAMESPACE);
        eventually("the namespace has its service account", async || {
            accounts.get("default").await.map_err(|e| e.to_string())
        })
        .await;
    }

    async fn make_nodes(&self) {
        let make = async |number: usize| {
            let mut node = NodeOptions::default().node(&node_name(number));
            node.labels_mut().insert("third".to_owned(), (number % 3).to_string());
            self.send("POST", "/api/v1/nodes", "application/json", json!(node)).await;
            // Admission adds the not-ready taint, and the controller that would remove it is stopped.
            let path = format!("/api/v1/nodes/{}", node_name(number));
            let untainted = json!({ "spec": { "taints": null } });
            self.send("PATCH", &path, "application/merge-patch+json", untainted).await;
        };
        futures::stream::iter(0..self.nodes).map(make).buffer_unordered(AT_ONCE).count().await;
    }

    /// Creates a DaemonSet and returns its uid.
    async fn make_daemon_set(&self, index: usize, wanted_on: usize) -> String {
        let app = daemon_app(index);
        let mut template = pod(&app, &app, "50m");
        if wanted_on < 3 {
            template["spec"]["affinity"] = affinity(json!({ "matchExpressions": [
                { "key": "third", "operator": "NotIn", "values": [(index % 3).to_string()] },
            ] }));
        }
        self.create_daemon_set(&app, &template).await
    }

    /// Creates a DaemonSet with a pod as its template, and returns its uid.
    async fn create_daemon_set(&self, app: &str, template: &Value) -> String {
        let metadata = json!({ "labels": template["metadata"]["labels"] });
        let daemon_set: DaemonSet = object(json!({
            "metadata": { "name": app },
            "spec": {
                "selector": { "matchLabels": { "app": app } },
                "template": { "metadata": metadata, "spec": template["spec"] },
            },
        }));
        let api = Api::namespaced(self.client.clone(), NAMESPACE);
        api.create(&PostParams::default(), &daemon_set).await.expect("a DaemonSet").uid().expect("it has one")
    }
}

/// True if the DaemonSet runs on the node: on every node, or on all but the nodes of one third.
fn wants(daemon_set: usize, node: usize, wanted_on: usize) -> bool {
    wanted_on == 3 || node % 3 != daemon_set % 3
}

fn node_name(number: usize) -> String {
    format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", number >> 16, number >> 8 & 255, number & 255)
}

fn daemon_app(index: usize) -> String {
    format!("agent-{index}")
}

fn affinity(term: Value) -> Value {
    json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } })
}

fn daemon_pod(index: usize, node: usize, uid: &str) -> Value {
    let app = daemon_app(index);
    let mut pod = of_daemon_set(pod(&format!("{app}-{node}"), &app, "50m"), &app, node, uid);
    pod["spec"]["nodeName"] = json!(node_name(node));
    pod
}

/// Turns a pod into one that the DaemonSet controller has created for a node.
fn of_daemon_set(mut pod: Value, app: &str, node: usize, uid: &str) -> Value {
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": app, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    pod["spec"]["affinity"] = affinity(json!({ "matchFields": [
        { "key": "metadata.name", "operator": "In", "values": [node_name(node)] },
    ] }));
    pod
}

/// Returns a pod with about as many fields as a usual pod has.
fn pod(name: &str, app: &str, cpu: &str) -> Value {
    let env: Vec<_> = (0..8)
        .map(|number| json!({ "name": format!("SETTING_{number}"), "value": "https://service.example/path" }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": app, "team": "platform" } },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "registry.example/team/image:v1", "env": env,
                "resources": { "requests": { "cpu": cpu, "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
            }],
        },
    })
}
