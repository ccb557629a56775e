//! `/scheduler/*` over HTTPS: the responses, their headers, and the metrics.

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::support::Local;
use daemonset_warden::server::http::limits::Limits;

#[tokio::test]
async fn the_scheduler_is_answered_and_counted() {
    let server = Local::start(Limits::default()).await;
    let mut client = server.client().await;
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "1", "controller": true});
    let pod = json!({"metadata": {"name": "d-1", "ownerReferences": [owner]}, "spec": {"nodeName": "n2"}});
    let args = json!({"Pod": pod, "Nodes": null, "NodeNames": ["n1", "n2", "n3"]}).to_string();
    let answer = client.post("/scheduler/filter", args).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string().as_str());
    assert_eq!(answer.json()["NodeNames"], json!(["n2"]));

    let victims = json!({"n1": {"Pods": [{"UID": "b"}, {"UID": "a"}], "NumPDBViolations": 1}, "n2": null});
    let args = json!({"Pod": {}, "NodeNameToVictims": null, "NodeNameToMetaVictims": victims}).to_string();
    let answer = client.post("/scheduler/preempt", args).await;
    assert_eq!(answer.status, StatusCode::OK);
    let none = json!({"Pods": [], "NumPDBViolations": 0});
    assert_eq!(answer.json(), json!({"NodeNameToMetaVictims": {"n1": victims["n1"], "n2": none}}));

    for route in ["/scheduler/filter", "/scheduler/preempt"] {
        let answer = client.post(route, "{}").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.json()["error"].as_str().unwrap().contains("have no Pod"));
        assert_eq!(client.send(Method::GET, route, "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    for (series, expected) in [
        (r#"daemonset_warden_extender_requests_total{outcome="refused",verb="filter"}"#, 1.0),
        (r#"daemonset_warden_extender_requests_total{outcome="bad",verb="filter"}"#, 1.0),
        (r#"daemonset_warden_extender_requests_total{outcome="passed",verb="preempt"}"#, 1.0),
        (r#"daemonset_warden_extender_refused_nodes_total{reason="not_target"}"#, 2.0),
        (r#"daemonset_warden_extender_dropped_nodes_total{reason="daemon_pod_victim"}"#, 0.0),
    ] {
        assert_eq!(server.metric(series).await, expected, "{series}");
    }
}
