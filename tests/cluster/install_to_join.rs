//! All steps from `helm install` to nodes that join a cluster with a backlog. They must work on every supported Kubernetes:
//! `KUBERNETES=1.34 cargo test --test cluster install_to_join` runs them on that minor.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, NodeOptions, RELEASE, Release, Scheduler, SchedulerOptions, TestNamespace, daemon_pod,
    eventually, is_bound, say, tools,
};

const NODES: usize = 3;
const DAEMONS: [&str; 3] = ["cni", "csi", "logs"];

type OwnNamespace = TestNamespace<Arc<ControlPlane>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_helm_install_to_a_node_that_joins() {
    let lists = install_to_join("install-to-join", &[]).await;
    assert!(lists.plain.is_empty(), "lists are streamed, and not requested again: {lists:?}");
    assert!(lists.streamed.contains("pods") && lists.streamed.contains("daemonsets"), "{lists:?}");
}

/// The apiserver refuses to stream lists, as Kubernetes 1.33 does by default, and 1.31 and older: the replicas send plain list
/// requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_where_lists_are_not_streamed() {
    let lists = install_to_join("install-to-join-plain", &["--feature-gates=WatchList=false"]).await;
    assert!(lists.streamed.is_empty(), "{lists:?}");
    assert!(lists.plain.contains("pods") && lists.plain.contains("daemonsets"), "{lists:?}");
}

async fn install_to_join(name: &'static str, flags: &'static [&str]) -> Lists {
    let user = format!("system:serviceaccount:{RELEASE}:{RELEASE}");
    let rules = json!([
        { "level": "Metadata", "users": [user], "verbs": ["list", "watch"] },
        { "level": "None" },
    ]);
    let plane = tokio::task::spawn_blocking(move || ControlPlane::start_audited(name, &rules, flags));
    let plane = Arc::new(plane.await.unwrap());
    let mut release = Release::on(plane.clone()).await;
    // The scheduler calls the Service by this address, so the certificate must contain it.
    release.install(&["--set", "service.clusterIP=127.96.0.70"]).await;
    let _replicas = release.start_replicas().await;
    release.in_force().await;

    let namespace = TestNamespace::on(plane.clone(), name).await;
    webhooks_answer(&namespace).await;
    let _scheduler = scheduler_as_printed(&release).await;
    node_joins(&namespace).await;
    assert_eq!(release.failed_open().await, 0.0);

    let lists = Lists::of(&plane);
    say(&format!(
        "Kubernetes {}: denied, warned and patched as installed; {} daemon pods before {} ordinary ones on {NODES} nodes that \
         joined; lists streamed: {}, plain: {}",
        tools().version(),
        DAEMONS.len() * NODES,
        3 * NODES,
        lists.streamed.len(),
        lists.plain.len(),
    ));
    lists
}

/// Checks one denial, one warning and one patch.
async fn webhooks_answer(namespace: &OwnNamespace) {
    let text = |changes: Value| serde_json::to_string(&namespace.daemon_set("agent", changes)).unwrap();
    let long = json!({ "metadata": { "name": "a".repeat(243) } });
    let denied = namespace.kubectl.apply(&text(long)).await;
    assert!(!denied.success && denied.stderr.contains("242"), "{denied:?}");

    let bound = json!({ "spec": { "template": { "spec": { "nodeName": "somewhere" } } } });
    let dry_run = ["apply", "--dry-run=server", "-f", "-"];
    let warned = namespace.kubectl.run_with_input(&dry_run, &text(bound)).await;
    let warning = |line: &str| line.starts_with("Warning: ") && line.contains("spec.template.spec.nodeName");
    assert!(warned.success && warned.stderr.lines().any(warning), "{warned:?}");

    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let pod: Pod = namespace.api().create(&dry_run, &daemon_pod("bound", "somewhere")).await.unwrap();
    let spec = pod.spec.unwrap();
    assert!(spec.node_name.is_none() && spec.affinity.is_some(), "{spec:?}");
}

/// Starts a scheduler with the configuration that `scheduler-config` prints.
async fn scheduler_as_printed(release: &Release) -> Scheduler {
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(release.extender(String::new()).await.ca.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_daemonset-warden"));
    command.args(["scheduler-config", "--url", &release.endpoints().url("scheduler"), "--ca-file"]);
    command.arg(ca.path()).arg("--scheduler-kubeconfig").arg(release.plane.kubeconfig());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut written: Value = serde_saphyr::from_str(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    // With the other tests on two cores a call can take more than 300 ms; then the scheduler goes on without the extender,
    // and the test proves nothing.
    written["extenders"][0]["httpTimeout"] = json!("5s");
    let options = SchedulerOptions { written: Some(written), ..SchedulerOptions::default() };
    let plane = release.plane.clone();
    tokio::task::spawn_blocking(move || plane.scheduler(&options)).await.unwrap()
}

/// Creates DaemonSets of 900m a node and a backlog of ordinary pods, and then the nodes. Each node must get its daemon pods.
async fn node_joins(namespace: &OwnNamespace) {
    for name in DAEMONS {
        namespace.create(&namespace.daemon_set(name, json!({}))).await;
    }
    namespace.create(&namespace.deployment("web", 8 * NODES, "1", json!({}))).await;
    namespace.pods_exist("web", 8 * NODES).await;
    // 200m more than these pods need, for the pods of the chart's own Deployment.
    let options = NodeOptions { cpu: "4200m", ..NodeOptions::default() };
    namespace.add_nodes(1, NODES, &options).await;
    for name in DAEMONS {
        namespace.settled(name, NODES as i32).await;
    }
    eventually("ordinary pods have the rest", async || {
        match namespace.pods("web").await.iter().filter(|pod| is_bound(pod)).count() {
            bound if bound == 3 * NODES => Ok(()),
            bound => Err(format!("{bound} are bound")),
        }
    })
    .await;
    assert!(namespace.recorder.preempted().is_empty(), "{:?}", namespace.recorder.preempted());
}

/// The resources that the replicas listed, by streamed lists or plain lists.
#[derive(Debug, Default)]
struct Lists {
    streamed: BTreeSet<String>,
    plain: BTreeSet<String>,
}

impl Lists {
    /// Reads them from the apiserver's audit log.
    fn of(plane: &ControlPlane) -> Self {
        let mut lists = Self::default();
        // The last line may be half written.
        for event in plane.audit_log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let resource = event["objectRef"]["resource"].as_str().unwrap_or_default().to_owned();
            let streamed =
                event["requestURI"].as_str().is_some_and(|uri| uri.contains("sendInitialEvents=true"));
            if event["responseStatus"]["code"] != 200 {
                continue;
            }
            match event["verb"].as_str() {
                Some("watch") if streamed => lists.streamed.insert(resource),
                // The replicas list and watch Secrets and webhook configurations by name.
                Some("list") if event["objectRef"]["name"].is_null() => lists.plain.insert(resource),
                _ => false,
            };
        }
        lists
    }
}
