//! The two addresses by which a kube-scheduler calls the chart's pods, with client certificates; and the audit annotations of
//! admission.

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
    // The apiserver has no client certificate, and the webhooks answer it.
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

    // (b) By the loopback address of the scheduler's own node. This scheduler also places the DaemonSet's pod, before which no
    // extender listens there.
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
    assert_eq!(self::asked(&replica).await, asked, "the scheduler does not call the Service any more");
    assert_eq!(refused(&replica).await + refused(&extender).await, 0.0);
    drop(by_loopback);

    // Without a certificate the extender refuses every call, and the scheduler places the pods without it.
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

/// Installs the release with a fixed ClusterIP, the extender DaemonSet and the CA of the schedulers' certificates.
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

/// Creates a DaemonSet and a Deployment for that scheduler, and waits until it has placed their pods.
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

/// Creates a DaemonSet that the warden refuses and a daemon pod that it patches, and checks the audit annotations, as in
/// docs/operate.md.
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
        // Neither refused nor patched: no annotation, to keep the audit log short.
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
