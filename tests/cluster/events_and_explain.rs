//! Events as kubectl shows them, `explain` compared with the real controller and scheduler, and Audit mode.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    NodeOptions, TestExtender, consistently, describe, eventually, is_bound, node_of, object,
};

/// Waits until `kubectl describe` prints all of the texts.
async fn described(test: &TestExtender, what: &[&str], texts: &[&str]) {
    eventually(&format!("kubectl describe {what:?} has {texts:?}"), async || {
        let shown = test.namespace.kubectl.succeed(&[&["describe"], what].concat()).await;
        if texts.iter().all(|text| shown.contains(text)) { Ok(()) } else { Err(shown) }
    })
    .await;
}

#[tokio::test]
async fn kubectl_shows_that_room_is_held_and_why_it_no_longer_is() {
    let test = TestExtender::start("events", json!({})).await;
    let node = test.namespace.node().await;
    test.missing_daemon_set("agent", "1", json!({})).await;
    test.namespace.pods_exist("agent", 1).await;
    test.ordinary("web", 4, json!({})).await;
    let keeping = "keeping room for the missing pod of DaemonSet events/agent";
    described(&test, &["node", &node], &["HoldingRoom", keeping]).await;
    let keeping = "keeping room on nodes that miss a pod of this DaemonSet";
    described(&test, &["daemonset", "agent"], &["HoldingRoom", keeping]).await;

    test.namespace.delete::<k8s_openapi::api::apps::v1::DaemonSet>("agent").await;
    let ended = "no longer keeping room for the pod of DaemonSet events/agent";
    described(&test, &["node", &node], &["HoldEnded", ended]).await;
    let web = async || {
        let pods = test.namespace.pods("web").await;
        if pods.iter().filter(|pod| is_bound(pod)).count() == 4 { Ok(()) } else { Err(describe(&pods)) }
    };
    eventually("the refused pod runs", web).await;
}

#[tokio::test]
async fn audit_mode_refuses_nothing_and_counts() {
    let test = TestExtender::start("audit", json!({ "reservation": { "mode": "Audit" } })).await;
    test.namespace.node().await;
    test.missing_daemon_set("agent", "1", json!({})).await;
    test.namespace.pods_exist("agent", 1).await;
    test.ordinary("web", 4, json!({})).await;
    eventually("all ordinary pods run", async || {
        let pods = test.namespace.pods("web").await;
        if pods.iter().filter(|pod| is_bound(pod)).count() == 4 { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    let counted = test.warden.metric("daemonset_warden_extender_audited_nodes_total", &[]).await;
    assert!(counted > 0.0);
    let refused = test.warden.metric("daemonset_warden_extender_refused_nodes_total", &[]).await;
    assert!(refused < 1.0, "{refused}");
}

/// `explain` names the nodes for which the DaemonSet controller creates a pod, and the state of each pod.
#[tokio::test]
async fn explain_says_what_the_controller_and_the_scheduler_do() {
    let test = TestExtender::start("explained", json!({})).await;
    let namespace = &test.namespace;
    let labelled = || BTreeMap::from([("agent".to_owned(), "yes".to_owned())]);
    let options = NodeOptions { labels: labelled(), ..NodeOptions::default() };
    let taint = |effect: &str| vec![object(json!({ "key": "dedicated", "value": "db", "effect": effect }))];
    let kinds = [
        (options.clone(), "Running"),
        (NodeOptions::default(), "NotWanted"),
        (NodeOptions { taints: taint("NoSchedule"), ..options.clone() }, "NotWanted"),
        (NodeOptions { taints: taint("PreferNoSchedule"), ..options.clone() }, "Running"),
        (NodeOptions { cpu: "100m", ..options.clone() }, "Pending"),
    ];
    let mut expected = BTreeMap::new();
    for (number, (options, state)) in kinds.iter().enumerate() {
        expected.insert(namespace.nodes(number, 1, options).await.remove(0), *state);
    }
    // A node that is cordoned after its pod was bound keeps the pod.
    let cordoned = namespace.nodes(9, 1, &options).await.remove(0);
    test.daemon_set("agent", "300m", json!({ "nodeSelector": { "agent": "yes" } })).await;
    eventually("all that can run do", async || {
        let pods = namespace.pods("agent").await;
        let bound = pods.iter().filter(|pod| is_bound(pod)).count();
        if (bound, pods.len()) == (3, 4) { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    namespace.kubectl.succeed(&["cordon", &cordoned]).await;
    expected.insert(cordoned, "Running");

    let kubeconfig = namespace.warden_kubeconfig().await;
    let explain = async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daemonset-warden"));
        command.args(["explain", "explained/agent", "-o", "json", "--kubeconfig"]).arg(&kubeconfig);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let ours = |row: &Value| expected.contains_key(row["node"].as_str().unwrap());
        rows.into_iter().filter(ours).collect::<Vec<_>>()
    };
    let agree = async || {
        let rows = explain().await;
        assert_eq!(rows.len(), expected.len(), "{rows:?}");
        let pods = namespace.pods("agent").await;
        for row in &rows {
            let node = row["node"].as_str().unwrap();
            let is_there = match expected[node] {
                "Running" => pods.iter().any(|pod| node_of(pod) == Some(node)),
                "Pending" => pods.iter().any(|pod| node_of(pod).is_none()),
                _ => pods.iter().all(|pod| node_of(pod) != Some(node)),
            };
            let should_run = expected[node] != "NotWanted";
            if !is_there || row["state"] != expected[node] || row["shouldRun"] != should_run {
                return Err(format!("{row}; expected {}; {}", expected[node], describe(&pods)));
            }
        }
        Ok(())
    };
    eventually("explain says what is so", agree).await;
    consistently(Duration::from_secs(2), "explain says what is so", agree).await;
}
