//! The chart on a real control plane: installed, upgraded, rolled back and uninstalled. Its replicas run as processes, and
//! the apiserver calls them by the Service's ClusterIP.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, Kubectl, MATRIX, NodeOptions, RELEASE, Release, SchedulerOptions, TestNamespace, chart,
    daemon_pod, daemon_set, eventually, eventually_within, say,
};

/// Long, because other tests run on the same two cores. The test prints the time; measure on a machine that does nothing else.
const IN_FORCE: Duration = Duration::from_secs(60);

pub(crate) async fn plane(name: &'static str) -> Arc<ControlPlane> {
    Arc::new(tokio::task::spawn_blocking(move || ControlPlane::start(name)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_in_force_soon_and_leaves_nothing() {
    let mut release = Release::on(plane("chart-install").await).await;
    let before = everything(&release).await;

    let started = Instant::now();
    release.install(&[]).await;
    let _replicas = release.start_replicas().await;
    release.in_force().await;
    let took = started.elapsed();
    say(&format!("both webhooks in force {:.1} s after helm install", took.as_secs_f32()));
    assert!(took < IN_FORCE, "in force after {took:?}");

    // The chart does not render the CA, so no Helm command changes the CA that clients trust.
    let (secret, bundle) = (release.secret().await.data, release.ca_bundle("mutating").await);
    release.upgrade(&["--set", "config.reservation.mode=Audit,replicas=3"]).await;
    assert_eq!(release.secret().await.data, secret, "upgrade");
    release.roll_back("1").await;
    assert_eq!(release.secret().await.data, secret, "rollback");
    eventually("the caBundle is what it was", async || {
        let now = release.ca_bundle("mutating").await;
        if now == bundle { Ok(()) } else { Err(now) }
    })
    .await;

    // Both replicas still run; they must not create objects again.
    release.uninstall().await;
    let own = ["Namespace", "ServiceAccount default", "ConfigMap kube-root-ca.crt"];
    // A slow control plane may still create its own service accounts after the first look.
    let is_ours = |line: &&String| !(line.starts_with("ServiceAccount ") && line.ends_with(" kube-system"));
    eventually("nothing is left", async || {
        let left: Vec<_> = everything(&release).await.difference(&before).cloned().collect();
        let foreign: Vec<_> =
            left.iter().filter(|line| !own.iter().any(|own| line.starts_with(own))).filter(is_ours).collect();
        if foreign.is_empty() { Ok(()) } else { Err(format!("{foreign:?}")) }
    })
    .await;
    // Longer than the interval at which the replicas check the Secret.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let left = everything(&release).await;
    assert!(!left.iter().any(|line| line.starts_with("Secret")), "{left:?}");
}

/// Returns every object of every kind, as `Kind name namespace`, except for Events, Leases and the like, which the control
/// plane creates and deletes.
async fn everything(release: &Release) -> BTreeSet<String> {
    let kinds = release.kubectl.succeed(&["api-resources", "--verbs=list", "--output=name"]).await;
    let kinds: Vec<_> = kinds
        .lines()
        .filter(|kind| !["events", "events.events.k8s.io", "leases.coordination.k8s.io"].contains(kind))
        .filter(|kind| !kind.starts_with("componentstatuses"))
        .collect();
    let columns = "-o=custom-columns=K:.kind,N:.metadata.name,S:.metadata.namespace";
    let all = ["get", &kinds.join(","), "--all-namespaces", "--no-headers", columns];
    let lines = release.kubectl.succeed(&all).await;
    let lines = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    // kube-controller-manager creates the controllers' service accounts one after the other while it starts.
    lines.filter(|line| !(line.starts_with("ServiceAccount ") && line.ends_with(" kube-system"))).collect()
}

#[tokio::test]
async fn an_apiserver_takes_every_combination_of_values() {
    let release = Release::on(plane("chart-values").await).await;
    release.kubectl.succeed(&["create", "namespace", RELEASE]).await;
    for kind in FOREIGN_KINDS {
        let outcome = release.kubectl.apply(&foreign_kind(kind).to_string()).await;
        assert!(outcome.success, "{outcome:?}");
    }
    let folder = chart();
    let mut objects = 0;
    for (name, values) in MATRIX {
        let mut args = vec!["template", "warden", folder.to_str().unwrap()];
        args.extend(*values);
        if values.iter().any(|value| value.contains("service.clusterIP=")) {
            // An address in the service range of the tests' apiserver.
            args.push("--set=service.clusterIP=127.96.0.50");
        }
        let rendered = release.helm(&args).await;
        assert!(rendered.success, "{name}: {rendered:?}");
        let namespace = if values.contains(&"--namespace=kube-system") { "kube-system" } else { RELEASE };
        let kubectl = Kubectl { namespace: namespace.to_owned(), ..release.kubectl.clone() };
        eventually_within(Duration::from_secs(20), &format!("{name} is accepted"), async || {
            let args = ["apply", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-"];
            let outcome = kubectl.run_with_input(&args, &rendered.stdout).await;
            if outcome.success { Ok(outcome) } else { Err(outcome.stderr) }
        })
        .await
        .stdout
        .lines()
        .for_each(|_| objects += 1);
    }
    say(&format!("{objects} objects of {} combinations of values accepted", MATRIX.len()));
    assert!(objects > 10 * MATRIX.len(), "{objects}");
}

/// The custom resources of other projects that the chart can create: group, kind, plural.
const FOREIGN_KINDS: &[(&str, &str, &str)] = &[
    ("cert-manager.io", "Certificate", "certificates"),
    ("cert-manager.io", "Issuer", "issuers"),
    ("monitoring.coreos.com", "ServiceMonitor", "servicemonitors"),
    ("monitoring.coreos.com", "PrometheusRule", "prometheusrules"),
];

/// Returns a CRD without a schema in place of the original one. So the apiserver does not check the fields of the objects.
fn foreign_kind((group, kind, plural): &(&str, &str, &str)) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}"), "annotations": { "api-approved.kubernetes.io": "unapproved, a test" } },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_daemon_pods_and_daemon_sets_reach_the_service() {
    let plane = plane("chart-reach").await;
    let starter = plane.clone();
    let _scheduler =
        tokio::task::spawn_blocking(move || starter.scheduler(&SchedulerOptions::default())).await.unwrap();
    let mut release = Release::on(plane.clone()).await;
    release.install(&[]).await;
    let replicas = release.start_replicas().await;
    release.in_force().await;
    let namespace = TestNamespace::on(plane, "chart-reach").await;
    namespace.nodes(1, 1, &NodeOptions::default()).await;
    let calls = async || (release.answered("validate").await, release.answered("mutate").await);
    let before = calls().await;

    // Objects that must not reach the warden.
    namespace.create(&namespace.deployment("web", 2, "100m", json!({}))).await;
    namespace.bound("web", 2).await;
    let ignored = json!({ "metadata": { "labels": { "daemonset-warden.io/ignore": "true" } } });
    let mut left_alone = namespace.daemon_set("left-alone", ignored.clone());
    left_alone
        .spec
        .as_mut()
        .unwrap()
        .template
        .metadata
        .as_mut()
        .unwrap()
        .labels
        .as_mut()
        .unwrap()
        .extend([("daemonset-warden.io/ignore".to_owned(), "true".to_owned())]);
    namespace.create(&left_alone).await;
    namespace.settled("left-alone", 1).await;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for (name, labels) in [("left-alone", &ignored["metadata"]["labels"]), (RELEASE, &json!({}))] {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels },
        });
        let outcome = namespace.kubectl.apply(&object.to_string()).await;
        assert!(outcome.success, "{outcome:?}");
        // The apiserver's webhook admission sees the labels of a Namespace a little later.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Api::namespaced(namespace.client.clone(), name).create(&dry_run, &daemon_set("agent")).await.unwrap();
        let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), name);
        eventually("the namespace takes pods", async || {
            pods.create(&dry_run, &daemon_pod("agent", "node")).await.map_err(|e| e.to_string())
        })
        .await;
    }
    assert_eq!(calls().await, before, "the apiserver does not call the webhooks for these");

    namespace.create(&namespace.daemon_set("agent", json!({}))).await;
    namespace.settled("agent", 1).await;
    assert_eq!(calls().await, (before.0 + 1.0, before.1), "one DaemonSet; its pod lacks nothing");
    let pod = namespace.api::<Pod>().create(&dry_run, &daemon_pod("bound", "node")).await.unwrap();
    let spec = pod.spec.unwrap();
    assert!(spec.node_name.is_none() && spec.affinity.is_some(), "the patch arrives: {spec:?}");
    assert_eq!(calls().await.1, before.1 + 1.0, "one daemon pod that lacks something");
    assert_eq!(release.failed_open().await, 0.0);
    assert!(release.endpoints().connections() > 0, "the calls come through the ClusterIP");
    drop(replicas);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overwritten_ca_bundle_is_put_right_at_once() {
    let mut release = Release::on(plane("chart-bundle").await).await;
    release.install(&[]).await;
    let _replicas = release.start_replicas().await;
    release.in_force().await;
    let right = release.ca_bundle("validating").await;
    let bind = format!("{RELEASE}-bind");
    for (kind, name) in [("validating", RELEASE), ("mutating", RELEASE), ("validating", &bind)] {
        let wrong = json!([{ "op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "" }]);
        let patch =
            ["patch", &format!("{kind}webhookconfiguration"), name, "--type=json", "-p", &wrong.to_string()];
        release.kubectl.succeed(&patch).await;
        let overwritten = Instant::now();
        eventually_within(Duration::from_secs(3), "the bundle is right", async || {
            let now = release.ca_bundle_of(kind, name).await;
            if now == right { Ok(()) } else { Err(now) }
        })
        .await;
        say(&format!("{kind} {name} caBundle put right after {:.1} s", overwritten.elapsed().as_secs_f32()));
    }
}
