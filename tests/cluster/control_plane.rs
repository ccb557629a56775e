//! Tests of the harness itself. The other tests rely on them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use serde_json::json;

use crate::harness::{
    ControlPlane, NodeOptions, SchedulerOptions, TestNamespace, consistently, eventually, tools,
};

#[tokio::test]
async fn a_daemon_pod_lands_on_a_node() {
    let namespace = TestNamespace::shared("smoke").await;
    let node = namespace.node().await;
    namespace.create(&namespace.daemon_set("agent", json!({}))).await;
    namespace.settled("agent", 1).await;
    let pods = namespace.bound("agent", 1).await;
    assert_eq!(pods[0].spec.as_ref().unwrap().node_name, Some(node));
    assert_eq!(namespace.recorder.created_by("agent"), 1);
    assert!(namespace.recorder.preempted().is_empty());
}

#[tokio::test]
async fn kubectl_speaks_the_servers_version() {
    let namespace = TestNamespace::shared("versions").await;
    let versions = namespace.kubectl.succeed(&["version", "--output=json"]).await;
    let versions: serde_json::Value = serde_json::from_str(&versions).unwrap();
    assert_eq!(
        versions["clientVersion"]["gitVersion"], versions["serverVersion"]["gitVersion"],
        "{versions}"
    );
    assert_eq!(versions["serverVersion"]["gitVersion"], tools().version(), "{versions}");
}

#[tokio::test]
async fn nodes_and_pods_take_their_time() {
    let namespace = TestNamespace::shared("delays").await;
    let options = NodeOptions { ready_after: Some("3s"), ..NodeOptions::default() };
    let started = Instant::now();
    let node = namespace.nodes(1, 1, &options).await.remove(0);
    let api: Api<Node> = Api::all(namespace.client.clone());
    eventually("the node is Ready", async || {
        let status = api.get(&node).await.unwrap().status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready =
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if ready { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
    assert!(started.elapsed() > Duration::from_millis(2500), "Ready after {:?}", started.elapsed());

    let slow = json!({ "metadata": { "annotations": { "daemonset-warden.test/gone-after": "3s" } } });
    namespace.create(&namespace.pod("slow", "100m", slow)).await;
    namespace.bound("slow", 1).await;
    let started = Instant::now();
    namespace.delete::<Pod>("slow").await;
    eventually("the pod is gone", async || match namespace.pods("slow").await.len() {
        0 => Ok(()),
        _ => Err("it is there".to_owned()),
    })
    .await;
    assert!(started.elapsed() > Duration::from_millis(2500), "gone after {:?}", started.elapsed());

    let never = NodeOptions { ready_after: Some(crate::harness::NEVER), ..NodeOptions::default() };
    let node = namespace.nodes(2, 1, &never).await.remove(0);
    consistently(Duration::from_secs(3), "the node is not Ready", async || {
        let taints = api.get(&node).await.unwrap().spec.unwrap().taints.unwrap_or_default();
        match taints.iter().any(|taint| taint.key == "node.kubernetes.io/not-ready") {
            true => Ok(()),
            false => Err(format!("{taints:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn components_go_and_come_back() {
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start("restarts")).await.unwrap();
    let mut scheduler = tokio::task::block_in_place(|| plane.scheduler(&SchedulerOptions::default()));
    let namespace = TestNamespace::on(&plane, "restarts").await;
    namespace.node().await;
    namespace.create(&namespace.daemon_set("before", json!({}))).await;
    namespace.settled("before", 1).await;
    let scheduled = crate::harness::sum(&scheduler.metrics().await, "scheduler_schedule_attempts_total", &[]);
    assert!(scheduled >= 1.0, "{scheduled}");

    plane.stop_controller_manager();
    namespace.create(&namespace.daemon_set("after", json!({}))).await;
    consistently(Duration::from_secs(1), "no controller creates pods", async || {
        match namespace.pods("after").await.len() {
            0 => Ok(()),
            _ => Err("a controller does".to_owned()),
        }
    })
    .await;
    tokio::task::block_in_place(|| {
        plane.restart_apiserver(Duration::from_millis(500));
        plane.start_controller_manager();
        scheduler.restart();
    });
    namespace.settled("after", 1).await;
}

/// A killed run must leave no process and no folder. This test starts another run of the tests and kills it.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_run_leaves_nothing_behind() {
    // Builds the programs first, so that the time limit below does not include the build.
    tools();
    let temporary = tempfile::tempdir().unwrap();
    let mut run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "control_plane::nodes_and_pods_take_their_time"])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let pids = loop {
        let pids = pids_in(temporary.path());
        // etcd, kube-apiserver, kube-controller-manager, kwok, kube-scheduler
        if pids.len() == 5 {
            break pids;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "only {pids:?} started");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(pids.iter().all(|pid| runs(*pid)), "{pids:?}");

    run.kill().unwrap();
    run.wait().unwrap();
    let killed = Instant::now();
    while pids.iter().any(|pid| runs(*pid)) || std::fs::read_dir(temporary.path()).unwrap().next().is_some() {
        assert!(killed.elapsed() < Duration::from_secs(20), "{pids:?} or their folder are still there");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns the process ids of a run's components, from their pid files.
fn pids_in(folder: &Path) -> Vec<u32> {
    let inside =
        |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    inside(folder)
        .flat_map(|run| inside(&run).collect::<Vec<_>>())
        .flat_map(|plane| inside(&plane).collect::<Vec<_>>())
        .filter(|file| file.extension().is_some_and(|extension| extension == "pid"))
        .filter_map(|file| std::fs::read_to_string(file).ok()?.parse().ok())
        .collect()
}

/// True if the process runs. A zombie, which only waits for its parent to read its exit code, does not run.
fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}
