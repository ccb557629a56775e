//! The purpose of the warden: daemon pods and a backlog of ordinary pods compete for room, with a real scheduler.
//!
//! Each scenario runs with the warden as the scheduler's extender, and with a scheduler without extenders whose bindings the
//! apiserver sends to `/bind`: every daemon pod must be bound, and no pod evicted. As a control it also runs without the warden,
//! where some daemon pods must not be bound. All pods have the same priority.

mod events;
pub(crate) mod scenario_run;
mod table;

use crate::harness::{Doors, say};
use scenario_run::{ClientLimits, Outcome, Scenario, ScenarioOptions, ScenarioRun};

/// Small enough for two cores beside other tests; `table` has the full sizes.
const NODES: usize = 6;

async fn run(name: &str, scenario: Scenario, doors: Doors) -> Outcome {
    run_with(name, scenario, ScenarioOptions::new(NODES, doors)).await
}

async fn run_with(name: &str, scenario: Scenario, options: ScenarioOptions) -> Outcome {
    let outcome = ScenarioRun::start(name, options).await.run(scenario).await;
    say(&format!("{name}: {outcome:?}"));
    assert!(outcome.evicted.is_empty(), "pods of equal priority evict no pod: {outcome:?}");
    outcome
}

fn assert_all_run(outcome: &Outcome) {
    assert_eq!(outcome.daemons, outcome.wanted, "{outcome:?}");
    assert_eq!(
        outcome.ordinary, outcome.ordinary_possible,
        "ordinary pods fill all that is left: {outcome:?}"
    );
    assert_eq!(outcome.unanswered, 0, "the test proves nothing: {outcome:?}");
}

fn assert_all_updated(outcome: &Outcome) {
    assert_all_run(outcome);
    assert_eq!(outcome.updated, outcome.wanted, "{outcome:?}");
}

fn assert_some_lost(outcome: &Outcome) {
    assert!(outcome.daemons < outcome.wanted, "the scenario is too easy to show anything: {outcome:?}");
}

#[tokio::test]
async fn a_rollout_on_full_nodes_finishes() {
    let scenario = Scenario::Rollout { gone_after: "0s" };
    assert_all_updated(&run("rollout-with", scenario, Doors::Extender).await);
}

#[tokio::test]
async fn a_rollout_on_full_nodes_finishes_by_bind() {
    let scenario = Scenario::Rollout { gone_after: "0s" };
    assert_all_updated(&run("rollout-bind", scenario, Doors::Bind).await);
}

#[tokio::test]
async fn a_rollout_on_full_nodes_finishes_with_pods_that_take_a_second_to_end() {
    let scenario = Scenario::Rollout { gone_after: "1s" };
    assert_all_updated(&run("rollout-slow-with", scenario, Doors::Extender).await);
}

#[tokio::test]
async fn a_rollout_on_full_nodes_finishes_by_bind_with_pods_that_take_a_second_to_end() {
    let scenario = Scenario::Rollout { gone_after: "1s" };
    assert_all_updated(&run("rollout-slow-bind", scenario, Doors::Bind).await);
}

#[tokio::test]
async fn a_rollout_finishes_by_both_doors() {
    let scenario = Scenario::Rollout { gone_after: "1s" };
    assert_all_updated(&run("rollout-both", scenario, Doors::Both).await);
}

#[tokio::test]
async fn a_rollout_finishes_in_a_quota_that_is_exactly_its_daemon_pods() {
    let scenario = Scenario::RolloutInQuota { gone_after: "1s" };
    assert_all_updated(&run("rollout-in-quota", scenario, Doors::Extender).await);
}

#[tokio::test]
async fn a_rollout_finishes_by_bind_in_a_quota_that_is_exactly_its_daemon_pods() {
    let scenario = Scenario::RolloutInQuota { gone_after: "1s" };
    assert_all_updated(&run("rollout-in-quota-bind", scenario, Doors::Bind).await);
}

#[tokio::test]
async fn a_younger_daemon_set_does_not_take_the_room_of_older_ones() {
    let outcome = run("rollout-younger", Scenario::RolloutBesideYounger, Doors::Extender).await;
    assert_all_updated(&outcome);
}

#[tokio::test]
async fn a_younger_daemon_set_does_not_take_the_room_of_older_ones_by_bind() {
    let outcome = run("rollout-younger-bind", Scenario::RolloutBesideYounger, Doors::Bind).await;
    assert_all_updated(&outcome);
}

#[tokio::test]
async fn without_the_warden_a_rollout_gets_stuck() {
    let outcome = run("rollout-without", Scenario::Rollout { gone_after: "0s" }, Doors::Without).await;
    assert_some_lost(&outcome);
    assert!(outcome.updated < outcome.wanted, "{outcome:?}");
}

#[tokio::test]
async fn a_surging_rollout_finishes_by_bind_with_the_room_of_one_pod() {
    assert_all_updated(&run("surge-bind", Scenario::Surge, Doors::Bind).await);
}

#[tokio::test]
async fn without_the_warden_a_surging_rollout_gets_stuck() {
    let outcome = run("surge-without", Scenario::Surge, Doors::Without).await;
    assert!(outcome.updated < outcome.wanted, "{outcome:?}");
}

#[tokio::test]
async fn nodes_that_join_get_their_daemon_pods_first() {
    let outcome = run("join-with", Scenario::Join { ready_after: None }, Doors::Extender).await;
    assert_all_run(&outcome);
}

#[tokio::test]
async fn nodes_that_join_get_their_daemon_pods_first_by_bind() {
    let outcome = run("join-bind", Scenario::Join { ready_after: None }, Doors::Bind).await;
    assert_all_run(&outcome);
}

#[tokio::test]
async fn nodes_that_join_get_their_daemon_pods_first_by_both_doors() {
    let outcome = run("join-both", Scenario::Join { ready_after: None }, Doors::Both).await;
    assert_all_run(&outcome);
}

#[tokio::test]
async fn nodes_that_join_get_their_daemon_pods_first_beside_a_second_scheduler() {
    let mut options = ScenarioOptions::new(NODES, Doors::Bind);
    options.has_second_scheduler = true;
    assert_all_run(&run_with("join-two", Scenario::Join { ready_after: None }, options).await);
}

/// The controllers make 20 calls a second and the scheduler 50, as in most clusters.
#[tokio::test]
async fn twelve_daemon_sets_land_on_nodes_that_join_at_the_default_client_limits() {
    let mut options = ScenarioOptions::new(NODES, Doors::Bind);
    (options.daemon_sets, options.daemon_cpu) = (12, 150);
    options.limits = ClientLimits::Default;
    assert_all_run(&run_with("join-limited", Scenario::Join { ready_after: None }, options).await);
}

#[tokio::test]
async fn without_the_warden_a_backlog_takes_the_new_nodes() {
    assert_some_lost(&run("join-without", Scenario::Join { ready_after: None }, Doors::Without).await);
}

#[tokio::test]
async fn nodes_that_join_and_are_ready_late_get_their_daemon_pods_first() {
    let scenario = Scenario::Join { ready_after: Some("3s") };
    assert_all_run(&run("late-join-with", scenario, Doors::Extender).await);
}

#[tokio::test]
async fn nodes_that_join_and_are_ready_late_get_their_daemon_pods_first_by_bind() {
    let scenario = Scenario::Join { ready_after: Some("3s") };
    assert_all_run(&run("late-join-bind", scenario, Doors::Bind).await);
}

#[tokio::test]
async fn without_the_warden_a_backlog_takes_late_nodes_too() {
    let scenario = Scenario::Join { ready_after: Some("3s") };
    assert_some_lost(&run("late-join-without", scenario, Doors::Without).await);
}

#[tokio::test]
async fn nodes_made_anew_under_their_names_get_their_daemon_pods_first_by_bind() {
    assert_all_run(&run("renewed-bind", Scenario::Renewed, Doors::Bind).await);
}

#[tokio::test]
async fn without_the_warden_a_backlog_takes_nodes_made_anew() {
    assert_some_lost(&run("renewed-without", Scenario::Renewed, Doors::Without).await);
}

#[tokio::test]
async fn a_deleted_daemon_pod_comes_back() {
    let scenario = Scenario::Deleted { times: 5, gone_after: "0s" };
    assert_all_run(&run("deleted-with", scenario, Doors::Extender).await);
}

#[tokio::test]
async fn a_deleted_daemon_pod_comes_back_by_bind() {
    let scenario = Scenario::Deleted { times: 3, gone_after: "0s" };
    assert_all_run(&run("deleted-bind", scenario, Doors::Bind).await);
}

#[tokio::test]
async fn a_deleted_daemon_pod_that_takes_a_second_to_end_comes_back() {
    let scenario = Scenario::Deleted { times: 3, gone_after: "1s" };
    assert_all_run(&run("deleted-slow-with", scenario, Doors::Extender).await);
}

#[tokio::test]
async fn without_the_warden_a_deleted_daemon_pod_is_lost() {
    let scenario = Scenario::Deleted { times: 5, gone_after: "0s" };
    assert_some_lost(&run("deleted-without", scenario, Doors::Without).await);
}

#[tokio::test]
async fn nodes_that_are_emptied_get_their_daemon_pods_back_by_bind() {
    assert_all_run(&run("emptied-bind", Scenario::Emptied, Doors::Bind).await);
}

#[tokio::test]
async fn without_the_warden_a_backlog_takes_emptied_nodes() {
    assert_some_lost(&run("emptied-without", Scenario::Emptied, Doors::Without).await);
}

#[tokio::test]
async fn room_that_comes_late_goes_to_the_daemon_pods() {
    assert_all_run(&run("late-with", Scenario::Late, Doors::Extender).await);
}

#[tokio::test]
async fn room_that_comes_late_goes_to_the_daemon_pods_by_bind() {
    assert_all_run(&run("late-bind", Scenario::Late, Doors::Bind).await);
}

#[tokio::test]
async fn without_the_warden_room_that_comes_late_goes_to_the_backlog() {
    assert_some_lost(&run("late-without", Scenario::Late, Doors::Without).await);
}

#[tokio::test]
async fn a_label_that_lets_daemons_in_gives_them_the_room_that_comes_by_bind() {
    assert_all_run(&run("labelled-bind", Scenario::Labelled, Doors::Bind).await);
}

#[tokio::test]
async fn without_the_warden_a_backlog_takes_the_room_of_daemons_that_a_label_lets_in() {
    assert_some_lost(&run("labelled-without", Scenario::Labelled, Doors::Without).await);
}
