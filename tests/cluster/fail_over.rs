//! What a fail-over costs: how many pods are scheduled without anybody having been asked, when one of two replicas goes.
//!
//! ```sh
//! cargo test --release --test cluster fail_over:: -- --ignored --nocapture --test-threads=1
//! ```

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::harness::{
    Extender, Forwarder, NodeOptions, SchedulerOptions, TestNamespace, Warden, WardenOptions, describe,
    eventually_within, is_bound, say,
};

/// How a replica goes.
#[derive(Clone, Copy)]
enum FailureMode {
    /// Its process: connections to it are cut, and new ones refused.
    Killed,
    /// Its node, or the way there: nobody answers, and no connection is cut.
    Silent,
}

/// From the loss until the Service sends new connections to the other replica only, as for a readiness probe that fails.
const NOTICED: Duration = Duration::from_secs(2);
/// How many pods are there before.
const BEFORE: usize = 18;
/// Six pods a second.
const PAUSE: Duration = Duration::from_millis(160);

/// Counts the pods that nobody was asked about, of that many.
async fn unasked(name: &str, host: &str, gone: FailureMode, asks_both: bool, pods: usize) -> usize {
    let namespace = TestNamespace::shared(name).await;
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let config = namespace.holding_here(serde_json::Value::Null);
    let options = || WardenOptions { config: config.clone(), kubeconfig: kubeconfig.clone() };
    let (mut first, second) = (Warden::start(options()).await, Warden::start(options()).await);
    let forwarder = Forwarder::start(first.port()).await;
    let behind_one_address = Extender {
        url_prefix: format!("https://{host}:{}/scheduler", forwarder.port),
        // Each has a CA of its own.
        ca: first.ca.clone() + &second.ca,
        ..first.extender()
    };
    let extenders =
        if asks_both { vec![first.extender(), second.extender()] } else { vec![behind_one_address] };
    let asked = SchedulerOptions { name: name.to_owned(), extenders, ..SchedulerOptions::default() };
    let plane = namespace.plane;
    let scheduler = tokio::task::spawn_blocking(move || plane.scheduler(&asked)).await.unwrap();
    namespace.nodes(1, 3, &NodeOptions { cpu: "100", pods: "1000", ..NodeOptions::default() }).await;

    let mut lost = None;
    for number in 0..pods {
        let spec = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "schedulerName": name } });
        namespace.create(&namespace.pod(&format!("web-{number}"), "10m", spec)).await;
        if number == BEFORE {
            tokio::task::block_in_place(|| match gone {
                FailureMode::Killed => first.kill(),
                FailureMode::Silent => first.freeze(),
            });
            lost = Some(Instant::now());
        }
        if lost.is_some_and(|at: Instant| at.elapsed() > NOTICED) {
            forwarder.switch(second.port());
        }
        tokio::time::sleep(PAUSE).await;
    }
    eventually_within(Duration::from_secs(120), "all pods are bound", async || {
        let there: Vec<Pod> = namespace.pods("web").await;
        if there.iter().filter(|pod| is_bound(pod)).count() == pods { Ok(()) } else { Err(describe(&there)) }
    })
    .await;
    // Nobody was asked about a pod where every extender was skipped.
    let skipped = scheduler.log().matches("Skipping extender").count();
    let asked = second.filter_calls().await;
    assert!(asked > 0.0, "the scheduler asks the other in the end");
    if asks_both { pods - asked as usize } else { skipped }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute, and alone: see the head of this file"]
async fn a_process_that_is_killed() {
    let one = unasked("fail-over-killed", "127.0.0.1", FailureMode::Killed, false, 150).await;
    say(&format!("one address, process killed: {one} of 150 pods unasked"));
    let both = unasked("fail-over-killed-two", "127.0.0.1", FailureMode::Killed, true, 150).await;
    say(&format!("two extenders, process killed: {both} of 150 pods unasked"));
}

/// Who calls a name is offered HTTP/2, as every scheduler would be if the server did not mind.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes, and alone: see the head of this file"]
async fn a_node_that_falls_silent() {
    let one = unasked("fail-over-silent", "127.0.0.1", FailureMode::Silent, false, 150).await;
    say(&format!("one address, node silent: {one} of 150 pods unasked"));
    let http2 = unasked("fail-over-http2", "localhost", FailureMode::Silent, false, 400).await;
    say(&format!("the same with HTTP/2: {http2} of 400 pods unasked"));
}
