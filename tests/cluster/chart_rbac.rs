//! The replicas use every permission that the chart grants, and need no other: checked by the apiserver's audit log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, NodeOptions, RELEASE, Release, TestNamespace, describe, eventually, eventually_within,
    is_bound, say,
};

/// Returns the user name of the replicas.
fn user() -> String {
    format!("system:serviceaccount:{RELEASE}:{RELEASE}")
}

/// `verb group/resource name`, with `*` for any name.
type Permission = (String, String, String);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_chart_grants_is_what_its_replicas_use() {
    let rules = json!([{ "level": "Metadata", "users": [user()] }, { "level": "None" }]);
    // Without WatchList, as before Kubernetes 1.27, the replicas list before they watch; with it they only watch. So they use
    // both verbs here. The other tests run with WatchList.
    let flags = &["--feature-gates=WatchList=false"];
    let plane = tokio::task::spawn_blocking(move || ControlPlane::start_audited("chart-rbac", &rules, flags));
    let plane = Arc::new(plane.await.unwrap());
    let mut release = Release::on(plane.clone()).await;
    let config =
        "config.reservation.holdTimeout=4s,config.readinessGates.namespaceSelector.matchLabels.gates=yes";
    release.install(&["--set", config, "--set", "service.clusterIP=127.96.0.60"]).await;
    let replicas = release.start_replicas().await;
    release.in_force().await;

    // Everything that the replicas write: a deleted Secret, the CA bundles, Events of holds that begin and end, the annotation
    // of a gate.
    release.kubectl.succeed(&["delete", "secret", &format!("{RELEASE}-tls")]).await;
    eventually("the Secret is there again", async || {
        let outcome = release.kubectl.run(&["get", "secret", &format!("{RELEASE}-tls")]).await;
        if outcome.success { Ok(()) } else { Err(outcome.stderr) }
    })
    .await;
    hold_room(&release, plane.clone()).await;

    let granted = granted(&release).await;
    let unused = eventually_within(Duration::from_secs(40), "every permission is used", async || {
        let (used, _) = used(&plane);
        let is_used = |permission: &Permission| used.iter().any(|used| covers(permission, used));
        let unused: Vec<_> = granted.iter().filter(|permission| !is_used(permission)).cloned().collect();
        if unused.is_empty() { Ok(unused) } else { Err(format!("{unused:?}")) }
    })
    .await;
    let (used, refused) = used(&plane);
    say(&format!(
        "{} permissions granted, {} never used, {} requests refused",
        granted.len(),
        unused.len(),
        refused.len()
    ));
    used.iter().for_each(|(verb, resource, _)| assert!(!verb.is_empty() && !resource.is_empty()));
    assert!(refused.is_empty(), "{refused:?}");
    drop(replicas);
}

/// Creates a readiness gate, DaemonSets whose pods no scheduler places, a daemon pod that the scheduler fails, and ordinary
/// pods that are refused until the holds end.
async fn hold_room(release: &Release, plane: Arc<ControlPlane>) {
    let namespace = TestNamespace::on(plane.clone(), "chart-rbac").await;
    namespace.kubectl.succeed(&["label", "namespace", "chart-rbac", "gates=yes"]).await;
    let service = release.endpoints();
    let extender = release.extender(service.url("scheduler")).await;
    let options = crate::harness::SchedulerOptions {
        extenders: vec![extender],
        ..crate::harness::SchedulerOptions::default()
    };
    let scheduler = tokio::task::spawn_blocking(move || plane.scheduler(&options)).await.unwrap();
    namespace.nodes(1, 1, &NodeOptions::default()).await;
    let gate =
        json!({ "metadata": { "annotations": { "daemonset-warden.io/ready-before-pods": "FirstReady" } } });
    namespace.create(&namespace.daemon_set("gate", gate)).await;
    namespace.settled("gate", 1).await;
    for name in ["first", "second"] {
        // No scheduler has this name, so the pods are missing as long as the DaemonSet exists.
        let nobody = json!({ "spec": { "template": { "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "1500m" } },
            }],
        } } } });
        namespace.create(&namespace.daemon_set(name, nobody)).await;
        namespace.pods_exist(name, 1).await;
    }
    // Fits on the empty node, and not beside the other pods.
    let large = json!({ "spec": { "template": { "spec": { "containers": [{
        "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "800m" } },
    }] } } } });
    namespace.create(&namespace.pod("filler", "3", json!({}))).await;
    namespace.bound("filler", 1).await;
    namespace.create(&namespace.daemon_set("large", large)).await;
    eventually("the daemon pod is nominated", async || {
        let pods: Vec<Pod> = namespace.pods("large").await;
        let nominated = |pod: &Pod| pod.status.as_ref()?.nominated_node_name.clone();
        if pods.iter().any(|pod| nominated(pod).is_some()) { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    namespace.kubectl.succeed(&["delete", "daemonset", "large"]).await;
    namespace.kubectl.succeed(&["delete", "pod", "filler"]).await;
    namespace.create(&namespace.deployment("web", 3, "1", json!({}))).await;
    eventually_within(Duration::from_secs(60), "the holds end, and the pods are woken", async || {
        let pods: Vec<Pod> = namespace.pods("web").await;
        let bound = pods.iter().filter(|pod| is_bound(pod)).count();
        if bound == 3 { Ok(()) } else { Err(format!("{bound} are bound")) }
    })
    .await;
    // Once their pods have landed, they can be held for again; the Events of the Node are then repeated, and their count is raised.
    namespace.kubectl.succeed(&["delete", "deployment", "web"]).await;
    let by = |scheduler: &str| json!({ "spec": { "template": { "spec": { "schedulerName": scheduler } } } });
    for name in ["first", "second"] {
        namespace.change::<DaemonSet>(name, &by("default-scheduler")).await;
    }
    for name in ["first", "second"] {
        namespace.settled(name, 1).await;
    }
    for name in ["first", "second"] {
        namespace.change::<DaemonSet>(name, &by("nobody")).await;
    }
    for name in ["first", "second"] {
        eventually(&format!("the pod of {name} waits"), async || {
            let pods: Vec<Pod> = namespace.pods(name).await;
            if pods.len() == 1 && !is_bound(&pods[0]) { Ok(()) } else { Err(describe(&pods)) }
        })
        .await;
    }
    namespace.create(&namespace.deployment("again", 3, "1", json!({}))).await;
    eventually_within(Duration::from_secs(60), "the holds end once more", async || {
        let bound = namespace.pods("again").await.iter().filter(|pod| is_bound(pod)).count();
        if bound == 3 { Ok(()) } else { Err(format!("{bound} are bound")) }
    })
    .await;
    drop(scheduler);
}

/// Returns the permissions of the chart's ClusterRole and Role.
async fn granted(release: &Release) -> BTreeSet<Permission> {
    let mut permissions = BTreeSet::new();
    for kind in ["clusterrole", "role"] {
        let text = release.kubectl.succeed(&["get", kind, RELEASE, "-o", "json"]).await;
        let role: Value = serde_json::from_str(&text).unwrap();
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        for rule in role["rules"].as_array().unwrap() {
            let mut names = texts(&rule["resourceNames"]);
            if names.is_empty() {
                names.push("*".to_owned());
            }
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        let permission =
                            |name: &String| (verb.clone(), format!("{group}/{resource}"), name.clone());
                        permissions.extend(names.iter().map(permission));
                    }
                }
            }
        }
    }
    permissions
}

/// Returns the permissions that the audited requests needed, and the audit events of refused requests.
fn used(plane: &ControlPlane) -> (BTreeSet<Permission>, Vec<Value>) {
    let (mut used, mut refused) = (BTreeSet::new(), Vec::new());
    // The last line may be half written.
    for event in plane.audit_log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        assert_eq!(event["user"]["username"], user());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let mut resource = format!("{}/{}", text(&object["apiGroup"]), text(&object["resource"]));
        if let Some(subresource) = object["subresource"].as_str() {
            resource += &format!("/{subresource}");
        }
        used.insert((text(&event["verb"]), resource, text(&object["name"])));
        if event["responseStatus"]["code"] == 403 {
            refused.push(event);
        }
    }
    (used, refused)
}

fn covers(granted: &Permission, used: &Permission) -> bool {
    granted.0 == used.0 && granted.1 == used.1 && (granted.2 == "*" || granted.2 == used.2)
}
