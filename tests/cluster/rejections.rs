//! Denials as kubectl prints them. The apiserver refuses a wrong `apps/v1` DaemonSet before it calls a validating webhook, so
//! most of these tests use a kind that it does not check: a CRD with the same fields.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::harness::{ControlPlane, PERMISSIVE, TestNamespace, Warden, WardenOptions, eventually, object};

/// Starts a test with the permissive kind, and a warden that handles it as a DaemonSet.
async fn with_permissive_kind(name: &str) -> (TestNamespace<&'static ControlPlane>, Warden) {
    let namespace = TestNamespace::shared(name).await;
    serve_permissive_kind(&namespace).await;
    let kinds = json!({ "daemonSetKinds": [
        { "apiGroup": "apps", "kind": "DaemonSet" },
        { "apiGroup": PERMISSIVE, "kind": "DaemonSet" },
    ] });
    let warden = Warden::start(WardenOptions { config: kinds, ..WardenOptions::default() }).await;
    namespace.register(&warden, "Fail").await;
    (namespace, warden)
}

async fn serve_permissive_kind(namespace: &TestNamespace<&'static ControlPlane>) {
    let definition: CustomResourceDefinition = object(json!({
        "metadata": { "name": format!("daemonsets.{PERMISSIVE}") },
        "spec": {
            "group": PERMISSIVE,
            "names": { "kind": "DaemonSet", "plural": "daemonsets" },
            "scope": "Namespaced",
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            } } }],
        },
    }));
    let api: Api<CustomResourceDefinition> = Api::all(namespace.client.clone());
    // Another test may have created it before.
    let _ = api.create(&PostParams::default(), &definition).await;
    eventually("the permissive kind is served", async || {
        let outcome = namespace.kubectl.run(&["get", &format!("daemonsets.{PERMISSIVE}")]).await;
        if outcome.success { Ok(()) } else { Err(outcome.stderr) }
    })
    .await;
}

/// Returns a DaemonSet of the permissive kind, as JSON.
fn permissive(namespace: &TestNamespace<&'static ControlPlane>, name: &str, changes: &Value) -> String {
    let mut value = serde_json::to_value(namespace.daemon_set(name, json!({}))).unwrap();
    value["apiVersion"] = json!(format!("{PERMISSIVE}/v1"));
    json_patch::merge(&mut value, changes);
    value.to_string()
}

fn on_failure() -> Value {
    json!({ "spec": { "template": { "spec": { "restartPolicy": "OnFailure" } } } })
}

#[tokio::test]
async fn rejects_what_people_get_wrong_with_upstreams_causes() {
    let (namespace, _warden) = with_permissive_kind("wrong").await;
    let no_selector = json!({ "spec": { "selector": null } });
    let mismatch = json!({ "spec": { "selector": { "matchLabels": { "app": "other" } } } });
    let labels = r#"{"app":"agent"}"#;
    let does_not_match = format!(
        "spec.template.metadata.labels: Invalid value: {labels}: `selector` does not match template `labels`"
    );
    let cases = [
        (
            on_failure(),
            r#"spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always""#,
        ),
        (no_selector, does_not_match.as_str()),
        (mismatch, does_not_match.as_str()),
    ];
    for (changes, cause) in cases {
        let outcome = namespace.kubectl.apply(&permissive(&namespace, "agent", &changes)).await;
        assert!(!outcome.success, "{changes}: {outcome:?}");
        assert_eq!(
            outcome.stderr.trim_end(),
            format!("The DaemonSet \"agent\" is invalid: {cause}"),
            "{changes}"
        );
    }
    let several = json!({ "spec": {
        "selector": { "matchLabels": { "app": "other" } },
        "template": { "spec": { "restartPolicy": "OnFailure" } },
    } });
    let outcome = namespace.kubectl.apply(&permissive(&namespace, "agent", &several)).await;
    let lines: Vec<_> = outcome.stderr.trim_end().lines().collect();
    assert_eq!(
        lines,
        [
            "The DaemonSet \"agent\" is invalid: ",
            &format!("* {does_not_match}"),
            r#"* spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always""#,
        ],
        "every fault at once, in upstream's order"
    );
}

#[tokio::test]
async fn accepts_a_right_one_and_rejects_a_changed_selector() {
    let (namespace, _warden) = with_permissive_kind("immutable").await;
    let created = namespace.kubectl.apply(&permissive(&namespace, "agent", &json!({}))).await;
    assert!(created.success, "{created:?}");
    let moved = json!({ "spec": {
        "selector": { "matchLabels": { "app": "moved" } },
        "template": { "metadata": { "labels": { "app": "moved" } } },
    } });
    let outcome = namespace.kubectl.apply(&permissive(&namespace, "agent", &moved)).await;
    assert!(!outcome.success, "{outcome:?}");
    let stderr = &outcome.stderr;
    assert!(
        stderr.contains("The DaemonSet \"agent\" is invalid: spec.selector: Invalid value: "),
        "{stderr}"
    );
    assert!(stderr.trim_end().ends_with("field is immutable"), "{stderr}");

    // The labels of the object itself may change.
    let labelled = json!({ "metadata": { "labels": { "team": "storage" } } });
    let outcome = namespace.kubectl.apply(&permissive(&namespace, "agent", &labelled)).await;
    assert!(outcome.success, "{outcome:?}");
}

#[tokio::test]
async fn the_apiserver_refuses_wrong_apps_v1_before_it_asks() {
    let namespace = TestNamespace::shared("builtin").await;
    let warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Fail").await;
    let before = namespace.validating_calls().await;
    let mut wrong = serde_json::to_value(namespace.daemon_set("agent", json!({}))).unwrap();
    json_patch::merge(&mut wrong, &on_failure());
    let outcome = namespace.kubectl.apply(&wrong.to_string()).await;
    assert!(!outcome.success, "{outcome:?}");
    assert!(outcome.stderr.contains("spec.template.spec.restartPolicy: Unsupported value"), "{outcome:?}");

    let mut ancient = serde_json::to_value(namespace.daemon_set("agent", json!({}))).unwrap();
    ancient["apiVersion"] = json!("extensions/v1beta1");
    let outcome = namespace.kubectl.apply(&ancient.to_string()).await;
    assert!(!outcome.success, "{outcome:?}");
    assert!(outcome.stderr.contains("no matches for kind \"DaemonSet\" in version \"extensions/v1beta1\""));
    assert_eq!(namespace.validating_calls().await, before);
}

/// A denial by the warden's own rules is a 403, which kubectl prints with the webhook's name and the causes.
#[tokio::test]
async fn rejects_pods_without_end() {
    let namespace = TestNamespace::shared("endless").await;
    let warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Fail").await;
    let labels = json!({ "app": "agent", "controller-revision-hash": "fixed" });
    let endless = json!({ "spec": {
        "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels } },
    } });
    let manifest = serde_json::to_string(&namespace.daemon_set("agent", endless)).unwrap();
    let outcome = namespace.kubectl.apply(&manifest).await;
    assert!(!outcome.success, "{outcome:?}");
    assert!(outcome.stderr.contains("Error from server (Forbidden)"), "{outcome:?}");
    assert!(outcome.stderr.contains("denied the request"), "{outcome:?}");
    assert!(outcome.stderr.contains("controller-revision-hash"), "{outcome:?}");
    assert!(namespace.pods("agent").await.is_empty());
}
