//! The scenarios at full size, printed as a table: `cargo test --release --test cluster full_size -- --ignored --nocapture`.
//! `SCENARIOS=A,D` in the environment runs only these.

use super::scenario_run::{Scenario, ScenarioRun};
use crate::harness::say;

#[tokio::test]
#[ignore = "several minutes, and alone: see the head of this file"]
async fn full_size() {
    let scenarios = [
        ("A", "rolling update, 50 full nodes", 50, Scenario::Rollout { gone_after: "0s" }),
        ("A2", "the same, pods take 1 s to end", 50, Scenario::Rollout { gone_after: "1s" }),
        (
            "A3",
            "A2 in a quota that is exactly the daemon pods",
            50,
            Scenario::RolloutInQuota { gone_after: "1s" },
        ),
        ("B", "100 nodes join", 100, Scenario::Join { ready_after: None }),
        ("C", "the same, Ready after 5 s", 100, Scenario::Join { ready_after: Some("5s") }),
        (
            "D",
            "daemon pods deleted 20 times, 10 full nodes",
            10,
            Scenario::Deleted { times: 20, gone_after: "0s" },
        ),
        ("E", "room comes late, 40 full nodes", 40, Scenario::Late),
    ];
    let only = std::env::var("SCENARIOS").ok();
    let is_asked = |id: &str| only.as_ref().is_none_or(|only| only.split(',').any(|asked| asked == id));
    say("| scenario | warden | daemon pods | updated | ordinary pods | evicted | seconds |");
    say("|---|---|---|---|---|---|---|");
    for (id, what, nodes, scenario) in scenarios.into_iter().filter(|scenario| is_asked(scenario.0)) {
        for with_warden in [false, true] {
            let name = format!("{}-{}", id.to_lowercase(), if with_warden { "with" } else { "without" });
            let scenario_run = ScenarioRun::new(&name, nodes, with_warden).await;
            let outcome = scenario_run.run(scenario).await;
            say(&format!(
                "| {id}. {what} | {} | {} of {} | {} | {} of {} | {} | {:.1} |",
                if with_warden { "yes" } else { "no" },
                outcome.daemons,
                outcome.wanted,
                outcome.updated,
                outcome.ordinary,
                outcome.ordinary_possible,
                outcome.evicted.len(),
                outcome.took.as_secs_f32(),
            ));
            if with_warden {
                super::assert_all_run(&outcome);
            }
            // Otherwise the scheduler would filter the nodes of this scenario in the next one, too.
            scenario_run.clear().await;
        }
    }
}
