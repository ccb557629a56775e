//! A server with a kubeconfig whose apiserver does not answer.

use std::net::TcpListener;

use hyper::StatusCode;
use serde_json::json;

use super::support::{Server, bound_daemon_pod, get_plain, run};

#[tokio::test]
async fn without_its_cluster_it_is_not_ready_and_fails_open() {
    let directory = tempfile::tempdir().unwrap();
    // Bound and never read: no other program gets the port meanwhile.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}], users: [{{name: u, user: {{}}}}], \
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}], current-context: c}}",
        silent.local_addr().unwrap()
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let server = Server::start(directory.path(), &["--kubeconfig", kubeconfig.to_str().unwrap()]);
    let ready = get_plain(server.metrics, "/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get_plain(server.metrics, "/livez").await.status, StatusCode::OK);

    let mut client = server.client().await;
    let mutated = client.post("/mutate", bound_daemon_pod()).await.json();
    assert_eq!(mutated["response"]["patchType"], "JSONPatch", "admission needs no cluster");
    let args = json!({"Pod": {"metadata": {"name": "p", "uid": "u"}}, "NodeNames": ["n1", "n2"]});
    let filtered = client.post("/scheduler/filter", args.to_string()).await.json();
    assert_eq!(filtered["NodeNames"], json!(["n1", "n2"]));
    assert_eq!(server.metric("daemonset_warden_extender_fail_open_total").await, 1.0);
    assert_eq!(server.metric("daemonset_warden_cache_fresh").await, 0.0);
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
}

#[test]
fn a_kubeconfig_of_no_use_is_an_error_in_one_line() {
    let (code, stdout, stderr) = run(&[
        "serve",
        "--secure-port",
        "0",
        "--metrics-bind-address",
        "127.0.0.1:0",
        "--kubeconfig",
        "/nowhere",
    ]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: failed to use the kubeconfig /nowhere: "), "{stderr}");
}
