//! The two courses that showed what autoscalers do beside an extender, as tables.

use std::time::Duration;

use super::{Arm, Autoscaler, AutoscalerTest};
use crate::harness::{is_bound, say};

/// Ordinary pods of the first course: twenty nodes of them.
const ORDINARY: usize = 200;
/// Nothing changes any more.
const QUIET: Duration = Duration::from_secs(45);
/// The time in which an autoscaler would take a node away.
const WATCHED: Duration = Duration::from_secs(75);

/// A scale-up; then a daemon comes to the full nodes, and one pod ends on each, twice.
pub(super) async fn a_daemon_comes_to_full_nodes<A: Autoscaler>() {
    say(
        "| arm | scale-up: daemons, nodes | a daemon comes, one pod ends on each: ordinary, daemons, nodes | one more ends on each: ordinary, daemons, nodes |",
    );
    say("|---|---|---|---|");
    let mut results = Vec::new();
    for arm in Arm::asked() {
        let stage = AutoscalerTest::new(arm).await;
        let autoscaler = A::start(&stage).await;
        stage.create_ordinary(ORDINARY).await;
        let (up, _) =
            stage.rest(3, QUIET, |count| count.ordinary == ORDINARY && count.daemons == count.wanted).await;
        stage.late_daemon_comes().await;
        stage.one_pod_ends_on_each().await;
        let (late, took) = stage.rest(4, QUIET, |count| count.ordinary == ORDINARY).await;
        stage.one_pod_ends_on_each().await;
        let (end, _) =
            stage.rest(4, QUIET, |count| count.ordinary == ORDINARY && count.daemons == count.wanted).await;
        say(&format!(
            "| {} | {} of {}, {} | {} of {ORDINARY} after {:.0} s, {} of {}, {} | {} of {ORDINARY}, {} of {}, {} |",
            arm.name(),
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
        results.push((arm, up, late, took, end));
        drop(autoscaler);
        say_nominations(&stage).await;
    }
    for (arm, up, late, took, end) in results {
        if arm == Arm::Nominated {
            assert_eq!(up.daemons, up.wanted, "after the scale-up");
            assert!(late.ordinary == ORDINARY && took < Duration::from_secs(30), "{late:?} after {took:?}");
            assert_eq!((end.ordinary, end.daemons), (ORDINARY, end.wanted), "in the end");
        }
    }
}

async fn say_nominations(stage: &AutoscalerTest) {
    let Some(warden) = &stage.warden else { return };
    let mut counts = Vec::new();
    for outcome in ["done", "outdated", "failed", "dropped"] {
        let labels = [("effect", "nomination"), ("outcome", outcome)];
        counts.push(format!("{outcome} {}", warden.metric("daemonset_warden_effects_total", &labels).await));
    }
    say(&format!("nominations: {}", counts.join(", ")));
}

/// Ten full nodes wait for a daemon, and one pod has ended on each for good; an eleventh has four pods. Then nodes may go.
pub(super) async fn a_node_is_drained_into_kept_room<A: Autoscaler>() {
    say("| arm | nodes | of four pods, evicted | ordinary pods that run | nodes after |");
    say("|---|---|---|---|---|");
    let mut results = Vec::new();
    for arm in Arm::asked().into_iter().filter(|arm| *arm != Arm::Plain) {
        let stage = AutoscalerTest::new(arm).await;
        let mut autoscaler = A::start(&stage).await;
        stage.create_ordinary(110).await;
        let (up, _) =
            stage.rest(3, QUIET, |count| count.ordinary == 110 && count.daemons == count.wanted).await;
        assert_eq!(up.ordinary, 110, "{up:?}");
        stage.late_daemon_comes().await;
        let four = stage.ordinary_pods_end_for_good().await;
        assert_eq!(four.len(), 4);
        let wanted = stage.arena.pods("web").await.len();
        // The emptied node has room for the daemon now.
        tokio::time::sleep(Duration::from_secs(5)).await;
        autoscaler.scale_down(&stage).await;
        tokio::time::sleep(WATCHED).await;
        let pods = stage.arena.pods("web").await;
        let stayed =
            pods.iter().filter_map(|pod| pod.metadata.uid.as_ref()).filter(|uid| four.contains(*uid));
        let evicted = 4 - stayed.count();
        let run = pods.iter().filter(|pod| is_bound(pod)).count();
        let after = stage.nodes().await.len();
        say(&format!("| {} | {} | {evicted} of 4 | {run} of {wanted} | {after} |", arm.name(), up.nodes));
        say_nominations(&stage).await;
        results.push((arm, evicted, run, wanted));
    }
    for (arm, evicted, run, wanted) in results {
        if arm == Arm::Nominated {
            assert_eq!((evicted, run), (0, wanted), "nobody is moved into kept room");
        }
    }
}
