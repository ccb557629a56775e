//! An upgrade from the version before this one and back, each while nodes join.
//!
//! ```sh
//! git worktree add ../previous COMMIT && (cd ../previous && cargo build --release)
//! PREVIOUS_CHART=../previous/charts/daemonset-warden PREVIOUS_PROGRAM=../previous/target/release/daemonset-warden \
//!   cargo test --release --test cluster real_path::upgrade -- --ignored --nocapture
//! ```

use std::path::PathBuf;
use std::time::Duration;

use super::Routing;
use super::joining::{JoiningCluster, previous_values, values};
use crate::harness::{eventually_within, is_inside, say};

/// The number of nodes of each join.
const NODES: usize = 30;
const SOON: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the version before this one: see the head of this file"]
async fn from_the_version_before_and_back() {
    if !is_inside("real_path::upgrade::from_the_version_before_and_back") {
        return;
    }
    let chart = PathBuf::from(std::env::var_os("PREVIOUS_CHART").expect("PREVIOUS_CHART is set"));
    let mut cluster = JoiningCluster::install(Routing::Aggregator, &chart, &previous_values()).await;
    two_run(&cluster).await;
    let before = cluster.join_while(NODES, async {}).await;
    say(&format!("before: {before:?} daemon pods lost"));

    let release = cluster.release.clone();
    let values = values("Ignore", true);
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let during = cluster.join_while(NODES, async { release.upgrade(&values).await }).await;
    cluster.recover().await;
    cluster.bind_is_called().await;
    say(&format!("during the upgrade: {during:?} daemon pods lost, {:?} unjudged", cluster.unjudged().await));

    let unjudged = cluster.unjudged().await;
    let after = cluster.join_while(NODES, async {}).await;
    say(&format!("after the upgrade: {after:?} daemon pods lost"));
    assert_eq!((after.0, cluster.unjudged().await), (0, unjudged), "after the upgrade");

    let release = cluster.release.clone();
    let back = cluster.join_while(NODES, async { release.roll_back("1").await }).await;
    two_run(&cluster).await;
    say(&format!("during the rollback: {back:?} daemon pods lost"));
    for (kind, name) in
        [("validatingwebhookconfiguration", "daemonset-warden-bind"), ("service", "daemonset-warden-bind")]
    {
        let left = cluster.release.kubectl.run(&["get", kind, name]).await;
        assert!(left.stderr.contains("NotFound"), "{left:?}");
    }
    let back = cluster.join_while(NODES, async {}).await;
    say(&format!("after the rollback: {back:?} daemon pods lost"));
    assert!(cluster.namespace.recorder.preempted().is_empty(), "pods of equal priority evict no pod");
    cluster.ordinary_pods_fill_the_rest().await;
}

async fn two_run(cluster: &JoiningCluster) {
    eventually_within(SOON, "two replicas run, and no other", async || {
        let (living, there) = (cluster.kubelet.living().await.len(), cluster.replicas().await);
        if (living, there) == (2, 2) { Ok(()) } else { Err(format!("{living} run of {there}")) }
    })
    .await;
}
