//! Both ways from kube-scheduler to the chart's pods, with client certificates; and what the apiserver's audit log says of the
//! admission of their pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, Taint};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::harness::{
    Certificate, ControlPlane, NodeOptions, RELEASE, Release, Replica, TestNamespace, daemon_pod, daemon_set,
    eventually, free_port, node_of, say,
};

const NAME: &str = "chart-wiring";
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedulers_with_a_certificate_ask_by_service_and_by_loopback() {
    let rules =
        json!([{ "level": "Metadata", "namespaces": [NAME], "verbs": ["create"] }, { "level": "None" }]);
    let plane =
        tokio::task::spawn_blocking(move || ControlPlane::start_audited(NAME, &rules, &[])).await.unwrap();
    let plane = Arc::new(plane);
    let mut release = Release::on(plane.clone()).await;
    let client = Certificate::issue();
    let port = free_port();
    install(&mut release, &client, port).await;
    let replica = release.start_replica().await;
    // Apiservers show no certificate, and are answered.
    release.in_force().await;

    let namespace = TestNamespace::on(plane, NAME).await;
    let taint = Taint { key: CONTROL_PLANE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    let labels = BTreeMap::from([(CONTROL_PLANE.to_owned(), String::new())]);
    namespace.nodes(1, 1, &NodeOptions { labels, taints: vec![taint], ..NodeOptions::default() }).await;
    namespace.nodes(2, 2, &NodeOptions::default()).await;

    // (a) By the Service's fixed address.
    let by_service =
        release.scheduler("by-service", &release.endpoints().url("scheduler"), Some(&client)).await;
    place(&namespace, "by-service").await;
    let asked = asked(&replica).await;
    assert!(asked >= 4.0, "two daemon pods and two others: {asked} calls");
    drop(by_service);

    // (b) By the loopback address of its own node. The DaemonSet's pod is placed by the scheduler that it is for, which at
    // first finds nobody there.
    let url = format!("https://127.0.0.1:{port}/scheduler");
    let by_loopback = release.scheduler("default-scheduler", &url, Some(&client)).await;
    let own: Api<Pod> = Api::namespaced(release.client.clone(), RELEASE);
    eventually("the extender's pod is on the control plane's node, and on no other", async || {
        let of_extender = kube::api::ListParams::default().labels("app.kubernetes.io/component=extender");
        let pods = own.list(&of_extender).await.map_err(|e| e.to_string())?.items;
        let nodes: Vec<_> = pods.iter().map(node_of).collect();
        if nodes == [Some("chart-wiring-1")] { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    let extender = release.start_extender().await;
    place(&namespace, "default-scheduler").await;
    let by_loopback_asked = self::asked(&extender).await;
    assert!(by_loopback_asked >= 4.0, "{by_loopback_asked} calls");
    assert_eq!(self::asked(&replica).await, asked, "nobody asks by the Service any more");
    assert_eq!(refused(&replica).await + refused(&extender).await, 0.0);
    drop(by_loopback);

    // Without a certificate nothing is answered, and pods are placed all the same.
    let anonymous = release.scheduler("anonymous", &url, None).await;
    place(&namespace, "anonymous").await;
    assert!(refused(&extender).await >= 4.0, "{} calls refused", refused(&extender).await);
    assert_eq!(self::asked(&extender).await, by_loopback_asked, "and none answered");
    drop(anonymous);
    say(&format!(
        "{asked} calls by the Service, {by_loopback_asked} by loopback, {} without a certificate refused",
        refused(&extender).await
    ));

    audited(&namespace).await;
    assert_eq!(release.failed_open().await, 0.0, "admission without a certificate all the time");
}

/// With a fixed address, the extender DaemonSet, and a CA of the schedulers.
async fn install(release: &mut Release, client: &Certificate, port: u16) {
    release.kubectl.succeed(&["create", "namespace", RELEASE]).await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "scheduler-ca" },
        "stringData": { "ca.crt": client.ca },
    });
    let outcome = release.kubectl.apply(&secret.to_string()).await;
    assert!(outcome.success, "{outcome:?}");
    let extender = format!(
        "schedulerExtender.clientCASecretName=scheduler-ca,schedulerExtender.daemonSet.enabled=true,\
         schedulerExtender.daemonSet.securePort={port},schedulerExtender.daemonSet.metricsPort={},\
         service.clusterIP=127.96.0.70",
        free_port()
    );
    release.install(&["--set", &extender]).await;
}

/// A DaemonSet and a Deployment, placed by that scheduler.
async fn place(namespace: &TestNamespace<Arc<ControlPlane>>, scheduler: &str) {
    let by = json!({ "spec": { "template": { "spec": { "schedulerName": scheduler } } } });
    let (agent, web) = (format!("agent-{scheduler}"), format!("web-{scheduler}"));
    namespace.create(&namespace.daemon_set(&agent, by.clone())).await;
    namespace.create(&namespace.deployment(&web, 2, "100m", by)).await;
    namespace.settled(&agent, 2).await;
    namespace.bound(&web, 2).await;
}

async fn asked(replica: &Replica) -> f64 {
    replica.metric("daemonset_warden_extender_duration_seconds_count", &[("verb", "filter")]).await
}

async fn refused(replica: &Replica) -> f64 {
    replica.metric("daemonset_warden_http_errors_total", &[("code", "401")]).await
}

/// Creates a DaemonSet that is refused and a daemon pod that is changed: docs/operate.md says what the audit log says of them.
async fn audited(namespace: &TestNamespace<Arc<ControlPlane>>) {
    let long = "a".repeat(250);
    let mut refused = daemon_set("long");
    refused.metadata.name = Some(long.clone());
    let refusal = namespace.api().create(&PostParams::default(), &refused).await.map(|_: DaemonSet| ());
    assert!(matches!(&refusal, Err(kube::Error::Api(status)) if status.code == 403), "{refusal:?}");
    namespace.create(&daemon_pod("bound-by-its-controller", "chart-wiring-2")).await;

    let validate = "validate.daemonset-warden.io";
    let mutate = "mutate.daemonset-warden.io";
    for (name, expected) in [
        (
            long.as_str(),
            vec![(format!("{validate}/verdict"), "denied"), (format!("{validate}/fields"), "metadata.name")],
        ),
        ("bound-by-its-controller", vec![(format!("{mutate}/verdict"), "patched")]),
        // Neither refused nor changed: an audit log is long enough.
        ("agent-anonymous", vec![]),
    ] {
        let annotations = eventually(&format!("{name} is in the audit log"), async || {
            let log = namespace.plane.audit_log();
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut of_object = events
                .filter(|event| event["stage"] == "ResponseComplete" && event["objectRef"]["name"] == name);
            of_object.next().map(|event| event["annotations"].clone()).ok_or_else(|| "it is not".to_owned())
        })
        .await;
        let annotations = annotations.as_object().unwrap();
        let ours: BTreeMap<_, _> = annotations
            .iter()
            .filter(|(key, _)| {
                key.split('/').next().is_some_and(|webhook| webhook.ends_with(".daemonset-warden.io"))
            })
            .map(|(key, value)| (key.clone(), value.as_str().unwrap()))
            .collect();
        assert_eq!(ours, expected.into_iter().collect(), "{name}: {annotations:?}");
    }
}
