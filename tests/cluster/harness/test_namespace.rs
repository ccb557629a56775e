//! The namespace of one test, with nodes that only its pods select, and functions for what tests do there.

use std::fmt::Debug;
use std::ops::Deref;
use std::path::PathBuf;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::kubectl::Kubectl;
use super::nodes::NodeOptions;
use super::recorder::Recorder;
use super::wait::eventually;

/// The label that separates the tests: nodes have it, and pods select it.
pub(crate) const POOL: &str = "daemonset-warden.test/pool";

/// A namespace with its own nodes.
pub(crate) struct TestNamespace<P> {
    pub(crate) plane: P,
    pub(crate) client: Client,
    /// Also the value of the [`POOL`] label, and the prefix of the nodes' names.
    pub(crate) name: String,
    pub(crate) kubectl: Kubectl,
    pub(crate) recorder: Recorder,
}

impl TestNamespace<&'static ControlPlane> {
    /// Creates a namespace on the control plane that the tests share. Each test uses another name.
    pub(crate) async fn shared(name: &str) -> Self {
        // The first call starts the control plane, and blocks for seconds.
        let plane = tokio::task::spawn_blocking(ControlPlane::shared).await;
        Self::on(plane.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())), name).await
    }
}

impl<P: Deref<Target = ControlPlane>> TestNamespace<P> {
    /// Creates a namespace on a control plane that the test has started.
    pub(crate) async fn on(plane: P, name: &str) -> Self {
        let client = plane.client().await;
        let namespace: Namespace = object(json!({ "metadata": { "name": name } }));
        created(Api::all(client.clone()).create(&PostParams::default(), &namespace).await);
        // The apiserver refuses every pod until the service account exists.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        eventually("the namespace has its service account", async || {
            accounts.get("default").await.map_err(|e| e.to_string())
        })
        .await;
        let kubectl = Kubectl { kubeconfig: plane.kubeconfig(), namespace: name.to_owned() };
        let recorder = Recorder::start(&client, name);
        Self { plane, client, name: name.to_owned(), kubectl, recorder }
    }

    /// Returns the configuration, limited to holds in this namespace. Without the selector a warden on the shared control plane
    /// would hold room, and nominate, for the DaemonSets of other tests.
    pub(crate) fn holding_here(&self, mut config: Value) -> Value {
        if config["reservation"]["namespaceSelector"].is_null() {
            let own = json!({ "matchLabels": { "kubernetes.io/metadata.name": self.name } });
            config["reservation"]["namespaceSelector"] = own;
        }
        config
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Returns kubectl as the user `warden` or `developer`.
    pub(crate) fn kubectl_as(&self, user: &str) -> Kubectl {
        let kubeconfig: PathBuf = self.plane.kubeconfig_of(user);
        Kubectl { kubeconfig, namespace: self.name.clone() }
    }

    /// Creates nodes, numbered from `first`, all at once.
    pub(crate) async fn add_nodes(&self, first: usize, count: usize, options: &NodeOptions) -> Vec<String> {
        let api: Api<Node> = Api::all(self.client.clone());
        let names: Vec<_> = (first..first + count).map(|number| format!("{}-{number}", self.name)).collect();
        let parameters = PostParams::default();
        let requests = names.iter().map(|name| {
            let mut node = options.node(name);
            node.labels_mut().insert(POOL.to_owned(), self.name.clone());
            let (api, parameters) = (&api, &parameters);
            async move { created(api.create(parameters, &node).await) }
        });
        futures::future::join_all(requests).await;
        names
    }

    /// Creates nodes, and waits until they are Ready, unless the options delay that.
    pub(crate) async fn nodes(&self, first: usize, count: usize, options: &NodeOptions) -> Vec<String> {
        let names = self.add_nodes(first, count, options).await;
        if options.ready_after.is_some() {
            return names;
        }
        let api: Api<Node> = Api::all(self.client.clone());
        for name in &names {
            eventually(&format!("node {name} is Ready"), async || {
                let node = api.get(name).await.map_err(|e| e.to_string())?;
                let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
                let waiting = taints.iter().any(|taint| taint.key == "node.kubernetes.io/not-ready");
                if waiting { Err(format!("{taints:?}")) } else { Ok(()) }
            })
            .await;
        }
        names
    }

    /// Creates one node with the default options.
    pub(crate) async fn node(&self) -> String {
        self.nodes(1, 1, &NodeOptions::default()).await.remove(0)
    }

    /// Returns a DaemonSet for the test's nodes, 300m a pod; `changes` are merged into it (RFC 7386).
    pub(crate) fn daemon_set(&self, name: &str, changes: Value) -> DaemonSet {
        merged(
            json!({
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": { "name": name, "namespace": self.name },
                "spec": { "selector": { "matchLabels": { "app": name } }, "template": self.template(name, "300m") },
            }),
            changes,
        )
    }

    /// Returns a Deployment for the test's nodes; `changes` are merged into it.
    pub(crate) fn deployment(&self, name: &str, replicas: usize, cpu: &str, changes: Value) -> Deployment {
        merged(
            json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": { "name": name, "namespace": self.name },
                "spec": {
                    "replicas": replicas,
                    "selector": { "matchLabels": { "app": name } },
                    "template": self.template(name, cpu),
                },
            }),
            changes,
        )
    }

    /// Returns a pod for the test's nodes; `changes` are merged into it.
    pub(crate) fn pod(&self, name: &str, cpu: &str, changes: Value) -> Pod {
        let mut pod = self.template(name, cpu);
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["namespace"] = json!(self.name);
        merged(pod, changes)
    }

    fn template(&self, app: &str, cpu: &str) -> Value {
        json!({
            "metadata": { "labels": { "app": app } },
            "spec": {
                "nodeSelector": { POOL: self.name },
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main",
                    "image": "example.test/main:1",
                    "resources": { "requests": { "cpu": cpu } },
                }],
            },
        })
    }

    /// Creates an object. Panics if the apiserver refuses it.
    pub(crate) async fn create<K>(&self, object: &K) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        created(self.api::<K>().create(&PostParams::default(), object).await)
    }

    /// Merges `changes` into an object.
    pub(crate) async fn change<K>(&self, name: &str, changes: &Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        let patched = self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(changes)).await;
        patched.unwrap_or_else(|e| panic!("failed to change {name}: {e}"))
    }

    /// Merges `changes` into a node.
    pub(crate) async fn change_node(&self, name: &str, changes: &Value) -> Node {
        let api: Api<Node> = Api::all(self.client.clone());
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(changes)).await;
        patched.unwrap_or_else(|e| panic!("failed to change node {name}: {e}"))
    }

    /// Deletes an object, with the default propagation policy.
    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        let deleted = self.api::<K>().delete(name, &DeleteParams::default()).await;
        deleted.map(drop).unwrap_or_else(|e| panic!("failed to delete {name}: {e}"));
    }

    /// Creates a PriorityClass and returns its name: the namespace's name, then `name`, because it is cluster-wide.
    pub(crate) async fn priority_class(&self, name: &str, value: i32) -> String {
        self.create_class(name, json!({ "value": value })).await
    }

    /// Creates a PriorityClass whose pods never preempt, and returns its name.
    pub(crate) async fn class_that_never_preempts(&self, name: &str, value: i32) -> String {
        self.create_class(name, json!({ "value": value, "preemptionPolicy": "Never" })).await
    }

    async fn create_class(&self, name: &str, mut class: Value) -> String {
        let name = format!("{}-{name}", self.name);
        class["metadata"] = json!({ "name": name });
        let class: PriorityClass = object(class);
        created(Api::all(self.client.clone()).create(&PostParams::default(), &class).await);
        // The apiserver's admission reads a cache, which has the class a little later.
        let probe = json!({ "spec": { "priorityClassName": name } });
        let probe: Pod = self.pod("priority-probe", "1m", probe);
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        eventually(&format!("pods may have the class {name}"), async || {
            match self.api::<Pod>().create(&dry_run, &probe).await {
                Err(e) if e.to_string().contains("no PriorityClass") => Err(e.to_string()),
                // The apiserver may refuse the pod for another reason, such as a quota: then it has found the class.
                _ => Ok(()),
            }
        })
        .await;
        name
    }

    /// Returns the pods of an app, also those that are terminating.
    pub(crate) async fn pods(&self, app: &str) -> Vec<Pod> {
        let of_app = ListParams::default().labels(&format!("app={app}"));
        self.api::<Pod>().list(&of_app).await.expect("pods can be listed").items
    }

    /// Waits until `count` pods of the app exist, bound or not.
    pub(crate) async fn pods_exist(&self, app: &str, count: usize) {
        eventually(&format!("{count} pods of {app} exist"), async || match self.pods(app).await.len() {
            there if there == count => Ok(()),
            there => Err(format!("{there} do")),
        })
        .await;
    }

    /// Waits until the app has exactly `count` pods, all of them bound and not terminating.
    pub(crate) async fn bound(&self, app: &str, count: usize) -> Vec<Pod> {
        eventually(&format!("{count} pods of {app} are bound"), async || {
            let pods = self.pods(app).await;
            let bound = pods.iter().filter(|pod| is_bound(pod)).count();
            if bound == count && pods.len() == count { Ok(pods) } else { Err(describe(&pods)) }
        })
        .await
    }

    /// Waits until the DaemonSet controller has observed the latest generation, and `count` nodes have an updated, Ready pod.
    pub(crate) async fn settled(&self, daemon_set: &str, count: i32) -> DaemonSet {
        let api = self.api::<DaemonSet>();
        eventually(&format!("{daemon_set} runs on {count} nodes"), async || {
            let found = api.get(daemon_set).await.map_err(|e| e.to_string())?;
            let status = found.status.clone().unwrap_or_default();
            if status.observed_generation == found.metadata.generation
                && status.desired_number_scheduled == count
                && status.updated_number_scheduled.unwrap_or_default() == count
                && status.number_ready == count
            {
                return Ok(found);
            }
            Err(format!("{status:?}; {}", describe(&self.pods(daemon_set).await)))
        })
        .await
    }
}

/// True if the pod is bound to a node and not terminating.
pub(crate) fn is_bound(pod: &Pod) -> bool {
    node_of(pod).is_some() && pod.metadata.deletion_timestamp.is_none()
}

/// Returns the node that the pod is bound to.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Describes pods for a failure message.
pub(crate) fn describe(pods: &[Pod]) -> String {
    let lines: Vec<_> = pods
        .iter()
        .map(|pod| {
            let status = pod.status.clone().unwrap_or_default();
            let why = status.conditions.unwrap_or_default().into_iter().find(|c| c.type_ == "PodScheduled");
            let why = why.and_then(|condition| condition.message).unwrap_or_default();
            let phase = status.phase.unwrap_or_default();
            let ending = if pod.metadata.deletion_timestamp.is_some() { " terminating" } else { "" };
            format!("{} on {:?} {phase}{ending} {why}", pod.name_any(), node_of(pod))
        })
        .collect();
    format!("{} pods: {}", lines.len(), lines.join("; "))
}

fn merged<K: DeserializeOwned>(mut base: Value, changes: Value) -> K {
    json_patch::merge(&mut base, &changes);
    object(base)
}

/// Converts JSON to the typed object.
pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of that kind")
}

fn created<K>(result: Result<K, kube::Error>) -> K {
    result.unwrap_or_else(|e| panic!("not created: {e}"))
}
