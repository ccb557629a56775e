//! The two scenarios that show the effect of the warden on autoscalers, printed as tables.

use std::time::Duration;

use super::{Autoscaler, AutoscalerTest, WardenSetup};
use crate::harness::{is_bound, say};

/// The ordinary pods of the first scenario: they fill twenty nodes.
const ORDINARY: usize = 200;
/// The time without a change after which a step is over.
const QUIET: Duration = Duration::from_secs(45);
/// The time in which an autoscaler would remove a node.
const WATCHED: Duration = Duration::from_secs(75);

/// Makes the autoscaler scale up; then creates a DaemonSet for the full nodes, and deletes one pod on each node, twice.
pub(super) async fn a_daemon_comes_to_full_nodes<A: Autoscaler>() {
    say(
        "| setup | scale-up: daemons, nodes | a daemon comes, one pod ends on each: ordinary, daemons, nodes | one more ends on each: ordinary, daemons, nodes |",
    );
    say("|---|---|---|---|");
    let mut results = Vec::new();
    for setup in WardenSetup::asked() {
        let test = AutoscalerTest::new(setup).await;
        let autoscaler = A::start(&test).await;
        test.create_ordinary(ORDINARY).await;
        let (up, _) =
            test.rest(3, QUIET, |count| count.ordinary == ORDINARY && count.daemons == count.wanted).await;
        test.late_daemon_comes().await;
        test.one_pod_ends_on_each().await;
        let (late, took) = test.rest(4, QUIET, |count| count.ordinary == ORDINARY).await;
        test.one_pod_ends_on_each().await;
        let (end, _) =
            test.rest(4, QUIET, |count| count.ordinary == ORDINARY && count.daemons == count.wanted).await;
        say(&format!(
            "| {} | {} of {}, {} | {} of {ORDINARY} after {:.0} s, {} of {}, {} | {} of {ORDINARY}, {} of {}, {} |",
            setup.name(),
            up.daemons,
            up.wanted,
            up.nodes,
            late.ordinary,
            took.as_secs_f32(),
            late.daemons,
            late.wanted,
            late.nodes,
            end.ordinary,
            end.daemons,
            end.wanted,
            end.nodes,
        ));
        results.push((setup, up, late, took, end));
        drop(autoscaler);
        say_nominations(&test).await;
    }
    for (setup, up, late, took, end) in results {
        if setup.nominates() {
            assert_eq!(up.daemons, up.wanted, "after the scale-up");
            assert!(late.ordinary == ORDINARY && took < Duration::from_secs(30), "{late:?} after {took:?}");
            assert_eq!((end.ordinary, end.daemons), (ORDINARY, end.wanted), "in the end");
        }
    }
}

async fn say_nominations(test: &AutoscalerTest) {
    let Some(warden) = &test.warden else { return };
    let mut counts = Vec::new();
    for outcome in ["done", "outdated", "failed", "dropped"] {
        let labels = [("kind", "nomination"), ("outcome", outcome)];
        counts.push(format!(
            "{outcome} {}",
            warden.metric("daemonset_warden_cluster_writes_total", &labels).await
        ));
    }
    say(&format!("nominations: {}", counts.join(", ")));
}

/// Ten nodes hold room for a daemon pod after one ordinary pod has ended on each, and an eleventh node has four ordinary
/// pods. Then scale-down is enabled.
pub(super) async fn a_node_is_drained_into_held_room<A: Autoscaler>() {
    say("| setup | nodes | of four pods, evicted | ordinary pods that run | nodes after |");
    say("|---|---|---|---|---|");
    let mut results = Vec::new();
    for setup in WardenSetup::asked().into_iter().filter(|setup| *setup != WardenSetup::Plain) {
        let test = AutoscalerTest::new(setup).await;
        let mut autoscaler = A::start(&test).await;
        test.create_ordinary(110).await;
        let (up, _) =
            test.rest(3, QUIET, |count| count.ordinary == 110 && count.daemons == count.wanted).await;
        assert_eq!(up.ordinary, 110, "{up:?}");
        test.late_daemon_comes().await;
        let four = test.ordinary_pods_end_for_good().await;
        assert_eq!(four.len(), 4);
        let wanted = test.namespace.pods("web").await.len();
        // The daemon pod fits on the emptied node now, and is bound in this time.
        tokio::time::sleep(Duration::from_secs(5)).await;
        autoscaler.scale_down(&test).await;
        tokio::time::sleep(WATCHED).await;
        let pods = test.namespace.pods("web").await;
        let stayed =
            pods.iter().filter_map(|pod| pod.metadata.uid.as_ref()).filter(|uid| four.contains(*uid));
        let evicted = 4 - stayed.count();
        let run = pods.iter().filter(|pod| is_bound(pod)).count();
        let after = test.nodes().await.len();
        say(&format!("| {} | {} | {evicted} of 4 | {run} of {wanted} | {after} |", setup.name(), up.nodes));
        say_nominations(&test).await;
        results.push((setup, evicted, run, wanted));
    }
    for (setup, evicted, run, wanted) in results {
        if setup.nominates() {
            assert_eq!((evicted, run), (0, wanted), "no pod is moved into held room");
        }
    }
}
