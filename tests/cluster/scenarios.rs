//! The purpose of the warden: daemon pods and a backlog of ordinary pods compete for room, with a real scheduler.
//!
//! Each scenario runs with the warden as the scheduler's extender: every daemon pod must be bound, and no pod evicted. As a
//! control it also runs without the warden, where some daemon pods must not be bound. All pods have the same priority.

pub(crate) mod scenario_run;
mod table;

use scenario_run::{Outcome, Scenario, ScenarioRun};

/// Small enough for two cores beside other tests; `table` has the full sizes.
const NODES: usize = 6;

async fn run(name: &'static str, scenario: Scenario, with_warden: bool) -> Outcome {
    let outcome = ScenarioRun::new(name, NODES, with_warden).await.run(scenario).await;
    assert!(outcome.evicted.is_empty(), "pods of equal priority evict no pod: {outcome:?}");
    outcome
}

fn assert_all_run(outcome: &Outcome) {
    assert_eq!(outcome.daemons, outcome.wanted, "{outcome:?}");
    assert_eq!(
        outcome.ordinary, outcome.ordinary_possible,
        "ordinary pods fill all that is left: {outcome:?}"
    );
}

fn assert_some_lost(outcome: &Outcome) {
    assert!(outcome.daemons < outcome.wanted, "the scenario is too easy to show anything: {outcome:?}");
}

#[tokio::test]
async fn a_rollout_on_full_nodes_finishes() {
    let outcome = run("rollout-with", Scenario::Rollout { gone_after: "0s" }, true).await;
    assert_all_run(&outcome);
    assert_eq!(outcome.updated, outcome.wanted, "{outcome:?}");
}

#[tokio::test]
async fn a_rollout_on_full_nodes_finishes_with_pods_that_take_a_second_to_end() {
    let outcome = run("rollout-slow-with", Scenario::Rollout { gone_after: "1s" }, true).await;
    assert_all_run(&outcome);
    assert_eq!(outcome.updated, outcome.wanted, "{outcome:?}");
}

#[tokio::test]
async fn a_rollout_finishes_in_a_quota_that_is_exactly_its_daemon_pods() {
    let outcome = run("rollout-in-quota", Scenario::RolloutInQuota { gone_after: "1s" }, true).await;
    assert_all_run(&outcome);
    assert_eq!(outcome.updated, outcome.wanted, "{outcome:?}");
}

#[tokio::test]
async fn a_younger_daemon_set_does_not_take_the_room_of_older_ones() {
    let outcome = run("rollout-younger", Scenario::RolloutBesideYounger, true).await;
    assert_all_run(&outcome);
    assert_eq!(outcome.updated, outcome.wanted, "{outcome:?}");
}

#[tokio::test]
async fn without_the_warden_a_rollout_gets_stuck() {
    let outcome = run("rollout-without", Scenario::Rollout { gone_after: "0s" }, false).await;
    assert_some_lost(&outcome);
    assert!(outcome.updated < outcome.wanted, "{outcome:?}");
}

#[tokio::test]
async fn nodes_that_join_get_their_daemon_pods_first() {
    let outcome = run("join-with", Scenario::Join { ready_after: None }, true).await;
    assert_all_run(&outcome);
}

#[tokio::test]
async fn without_the_warden_a_backlog_takes_the_new_nodes() {
    assert_some_lost(&run("join-without", Scenario::Join { ready_after: None }, false).await);
}

#[tokio::test]
async fn nodes_that_join_and_are_ready_late_get_their_daemon_pods_first() {
    let outcome = run("late-join-with", Scenario::Join { ready_after: Some("3s") }, true).await;
    assert_all_run(&outcome);
}

#[tokio::test]
async fn without_the_warden_a_backlog_takes_late_nodes_too() {
    assert_some_lost(&run("late-join-without", Scenario::Join { ready_after: Some("3s") }, false).await);
}

#[tokio::test]
async fn a_deleted_daemon_pod_comes_back() {
    let outcome = run("deleted-with", Scenario::Deleted { times: 5, gone_after: "0s" }, true).await;
    assert_all_run(&outcome);
}

#[tokio::test]
async fn a_deleted_daemon_pod_that_takes_a_second_to_end_comes_back() {
    let outcome = run("deleted-slow-with", Scenario::Deleted { times: 3, gone_after: "1s" }, true).await;
    assert_all_run(&outcome);
}

#[tokio::test]
async fn without_the_warden_a_deleted_daemon_pod_is_lost() {
    let scenario = Scenario::Deleted { times: 5, gone_after: "0s" };
    assert_some_lost(&run("deleted-without", scenario, false).await);
}

#[tokio::test]
async fn room_that_comes_late_goes_to_the_daemon_pods() {
    let outcome = run("late-with", Scenario::Late, true).await;
    assert_all_run(&outcome);
}

#[tokio::test]
async fn without_the_warden_room_that_comes_late_goes_to_the_backlog() {
    assert_some_lost(&run("late-without", Scenario::Late, false).await);
}
