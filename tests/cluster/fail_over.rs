//! The cost of a fail-over: the number of pods that a scheduler places without an answer of the warden when one of two replicas
//! fails.
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

/// The way in which a replica fails.
#[derive(Clone, Copy)]
enum FailureMode {
    /// Its process: the kernel resets its connections and refuses new ones.
    Killed,
    /// Its node, or the network to it: connections stay open without an answer.
    Silent,
}

/// The time from the failure until the Service sends new connections to the other replica only, because a readiness probe
/// failed.
const NOTICED: Duration = Duration::from_secs(2);
/// The number of pods before the failure.
const BEFORE: usize = 18;
/// The pause between two pods: six pods a second.
const PAUSE: Duration = Duration::from_millis(160);

/// Returns the number of pods, of `pods`, that were placed without a call of the warden.
async fn unasked(name: &str, host: &str, gone: FailureMode, asks_both: bool, pods: usize) -> usize {
    let namespace = TestNamespace::shared(name).await;
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let config = namespace.holding_here(serde_json::Value::Null);
    let options = || WardenOptions { config: config.clone(), kubeconfig: kubeconfig.clone() };
    let (mut first, second) = (Warden::start(options()).await, Warden::start(options()).await);
    let forwarder = Forwarder::start(first.port()).await;
    let behind_one_address = Extender {
        url_prefix: format!("https://{host}:{}/scheduler", forwarder.port),
        // Each replica has its own CA.
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
    // With one address, the scheduler logs each call that it skips.
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

/// The second part calls the warden by a host name. It measures HTTP/2 only in a warden that offers HTTP/2 first; now it
/// prefers HTTP/1.1 (src/tls.rs).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes, and alone: see the head of this file"]
async fn a_node_that_falls_silent() {
    let one = unasked("fail-over-silent", "127.0.0.1", FailureMode::Silent, false, 150).await;
    say(&format!("one address, node silent: {one} of 150 pods unasked"));
    let http2 = unasked("fail-over-http2", "localhost", FailureMode::Silent, false, 400).await;
    say(&format!("the same with HTTP/2: {http2} of 400 pods unasked"));
}
