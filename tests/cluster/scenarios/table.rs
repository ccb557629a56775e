//! The scenarios at full size, printed as a table: `cargo test --release --test cluster scenarios::table::full_size -- --ignored
//! --nocapture`.
//!
//! In the environment, `SCENARIOS=A,D` runs only these, `DOORS=without,extender,bind,both` chooses the columns, and
//! `LIMITS=default` gives the controllers and the scheduler Kubernetes' default client limits.

use super::scenario_run::{ClientLimits, Outcome, Scenario, ScenarioOptions, ScenarioRun};
use crate::harness::{Doors, say};

/// A row of the table.
struct Row {
    id: &'static str,
    what: &'static str,
    scenario: Scenario,
    nodes: usize,
    daemon_sets: usize,
    daemon_cpu: usize,
    /// Further changes of the cluster.
    change: fn(&mut ScenarioOptions),
}

fn rows() -> Vec<Row> {
    let row = |id, what, nodes, scenario| Row {
        id,
        what,
        scenario,
        nodes,
        daemon_sets: 3,
        daemon_cpu: 300,
        change: |_| {},
    };
    let at_once = Scenario::Join { ready_after: None };
    vec![
        row("A", "rolling update, 50 full nodes", 50, Scenario::Rollout { gone_after: "0s" }),
        row("A2", "the same, pods take 1 s to end", 50, Scenario::Rollout { gone_after: "1s" }),
        row(
            "A3",
            "A2 in a quota that is exactly the daemon pods",
            50,
            Scenario::RolloutInQuota { gone_after: "1s" },
        ),
        row("B", "100 nodes join", 100, at_once),
        row("C", "the same, Ready after 5 s", 100, Scenario::Join { ready_after: Some("5s") }),
        row(
            "D",
            "daemon pods deleted 20 times, 10 full nodes",
            10,
            Scenario::Deleted { times: 20, gone_after: "0s" },
        ),
        row("E", "room comes late, 40 full nodes", 40, Scenario::Late),
        row("F", "30 full nodes made anew under their names", 30, Scenario::Renewed),
        row("G", "a label lets daemons in, 30 full nodes", 30, Scenario::Labelled),
        row("H", "rolling update with surge, 20 full nodes", 20, Scenario::Surge),
        row("I", "30 full nodes emptied, five at a time", 30, Scenario::Emptied),
        Row {
            daemon_sets: 12,
            daemon_cpu: 150,
            change: |options| options.limits = ClientLimits::Default,
            ..row("J", "12 DaemonSets, 60 nodes join, default client limits", 60, at_once)
        },
        row("K", "250 nodes join, 2,000 pods wait", 250, at_once),
        row("L", "rolling update, 400 full nodes", 400, Scenario::Rollout { gone_after: "0s" }),
        Row {
            change: |options| options.has_second_scheduler = true,
            ..row("M", "B with a second scheduler", 100, at_once)
        },
    ]
}

fn cell(outcome: &Outcome, doors: Doors) -> String {
    let refusals = if doors.has_bind() {
        format!(
            ", {:.1} refusals for each daemon pod, {} unjudged, {} unanswered",
            outcome.refused / outcome.wanted as f64,
            outcome.unjudged,
            outcome.unanswered
        )
    } else {
        String::new()
    };
    format!(
        "{} of {}, {} updated, {} of {} ordinary, {} evicted, {:.1} s{refusals}",
        outcome.daemons,
        outcome.wanted,
        outcome.updated,
        outcome.ordinary,
        outcome.ordinary_possible,
        outcome.evicted.len(),
        outcome.took.as_secs_f32(),
    )
}

#[tokio::test]
#[ignore = "several minutes, and alone: see the head of this file"]
async fn full_size() {
    let only = std::env::var("SCENARIOS").ok();
    let is_asked = |row: &Row| only.as_ref().is_none_or(|only| only.split(',').any(|asked| asked == row.id));
    let columns = Doors::asked(&[Doors::Without, Doors::Extender, Doors::Bind]);
    let limits = ClientLimits::asked();
    let names: Vec<_> = columns.iter().map(|doors| doors.name()).collect();
    say(&format!("client limits: {limits:?}"));
    say(&format!("| scenario | {} |", names.join(" | ")));
    say(&format!("|---{}|", "|---".repeat(columns.len())));
    let mut failures = Vec::new();
    for row in rows().into_iter().filter(is_asked) {
        let mut cells = Vec::new();
        for &doors in &columns {
            let name = format!("{}-{}", row.id.to_lowercase(), doors.name());
            let mut options = ScenarioOptions { limits, ..ScenarioOptions::new(row.nodes, doors) };
            (options.daemon_sets, options.daemon_cpu) = (row.daemon_sets, row.daemon_cpu);
            (row.change)(&mut options);
            let scenario_run = ScenarioRun::start(&name, options).await;
            let outcome = scenario_run.run(row.scenario).await;
            cells.push(cell(&outcome, doors));
            // A long run shows its results before its end.
            say(&format!("{name}: {}", cells[cells.len() - 1]));
            let is_whole = outcome.daemons == outcome.wanted
                && (!row.scenario.changes_templates() || outcome.updated == outcome.wanted)
                && outcome.ordinary == outcome.ordinary_possible
                && outcome.evicted.is_empty();
            if doors != Doors::Without && !is_whole {
                failures.push(format!("{name}: {outcome:?}"));
            }
            // Otherwise the scheduler would filter the nodes of this scenario in the next one, too.
            scenario_run.clear().await;
        }
        say(&format!("| {}. {} | {} |", row.id, row.what, cells.join(" | ")));
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
