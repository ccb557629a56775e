//! Preemption calls with a cache: a node of 1 CPU with the daemon `d`, which has priority 10.

use std::cell::{RefCell, RefMut};

use super::*;
use crate::api::extender_v1::preemption::PreemptionCandidate;
use crate::api::pod::Pod;
use crate::policy::ProtectDaemonPods;
use crate::reservation::incoming_pod::IncomingDemand;
use crate::reservation::preemption::{PreemptionReason, judge_candidates};

fn world() -> TestCluster {
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", template(json!({"priority": 10})));
    world
}

/// Returns a pod of `d` with the priority of its template.
fn agent(uid: &str) -> Value {
    priority(with(daemon_pod("d", "n1"), json!({"metadata": {"name": uid, "uid": uid}})), 10)
}

fn sized(base: Value, cpu: &str) -> Value {
    with(base, json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
}

/// Returns the reasons for which the candidates are dropped.
fn judge(
    world: &mut TestCluster,
    preemptor: &Pod,
    candidates: &[PreemptionCandidate<'_>],
    now: Instant,
) -> Vec<Option<PreemptionReason>> {
    let view = RefCell::new(&mut world.view);
    let lock = || RefMut::map(view.borrow_mut(), |view| &mut **view);
    let demand = IncomingDemand::of(preemptor);
    judge_candidates(lock, ProtectDaemonPods::PreferOthers, &demand, candidates, now).unwrap()
}

/// Returns the reason for which the candidate `n1` with these victims is dropped.
fn dropped(world: &mut TestCluster, preemptor: &Value, victims: &[&str]) -> Option<PreemptionReason> {
    let victims = victims.iter().map(|uid| (*uid).into()).collect();
    let candidate = PreemptionCandidate { node: "n1".into(), victims };
    let now = world.now;
    let pod = object(preemptor.clone(), json!({}));
    judge(world, &pod, &[candidate], now)[0]
}

#[test]
fn issue_102382_nobody_goes_for_a_daemon_pod_whose_predecessor_does() {
    let leaves = Some(PreemptionReason::PredecessorLeaves);
    let cases = [
        ("it leaves enough", terminating(on(agent("old"), "n1")), agent("new"), leaves),
        ("it leaves too little", terminating(on(agent("old"), "n1")), sized(agent("new"), "400m"), None),
        ("it stays", on(agent("old"), "n1"), agent("new"), None),
        (
            "it has ended already",
            with(terminating(on(agent("old"), "n1")), json!({"status": {"phase": "Failed"}})),
            agent("new"),
            None,
        ),
        ("it has no owner", terminating(on(priority(pod("old", "300m"), 10), "n1")), agent("new"), None),
        (
            "its owner is forged",
            terminating(on(with(agent("old"), json!({"metadata": {"labels": {"app": "x"}}})), "n1")),
            agent("new"),
            None,
        ),
        (
            "the owner of the new one is forged",
            terminating(on(agent("old"), "n1")),
            with(agent("new"), json!({"metadata": {"labels": {"app": "x"}}})),
            None,
        ),
    ];
    for (what, old, new, expected) in cases {
        let mut world = world();
        world.pod(&on(pod("o", "700m"), "n1"));
        world.pod(&old);
        world.pod(&new);
        assert_eq!(dropped(&mut world, &new, &["o"]), expected, "{what}");
    }
}

#[test]
fn nobody_goes_for_a_pod_that_would_end_up_in_kept_room() {
    let kept = Some(PreemptionReason::Reserved);
    let ports =
        json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 9100}]}]}});
    let cases = [
        ("room for both", priority(pod("p", "700m"), 5), &["o"][..], None),
        ("room for one", priority(pod("p", "800m"), 5), &["o"], kept),
        ("more important than the daemon", priority(pod("p", "800m"), 11), &["o"], None),
        ("another victim is of another node", priority(pod("p", "700m"), 5), &["elsewhere"], kept),
        ("its ports", with(priority(pod("p", "100m"), 5), ports.clone()), &["o"], kept),
        ("the daemon's own pod", sized(agent("new"), "800m"), &["o"], None),
    ];
    for (what, preemptor, victims, expected) in cases {
        let mut world = TestCluster::new();
        world.node("n1", json!({}));
        let template = with(json!({"spec": {"priority": 10}}), ports.clone());
        let template = sized_template(template);
        world.daemon_set("d", json!({"spec": {"template": template}}));
        world.pod(&on(pod("o", "600m"), "n1"));
        world.pod(&on(pod("elsewhere", "600m"), "n2"));
        assert_eq!(dropped(&mut world, &preemptor, victims), expected, "{what}");
    }
}

/// Adds requests of 300m of CPU.
fn sized_template(mut template: Value) -> Value {
    template["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "300m"}});
    template
}

/// kubernetes#141227: a pod of a DaemonSet that exists is spared if another candidate is left, and the list is never emptied for
/// it.
#[test]
fn issue_141227_only_genuine_daemon_pods_are_spared() {
    let genuine = on(agent("old"), "n1");
    let forged = with(genuine.clone(), json!({"metadata": {"labels": {"app": "x"}}}));
    for (victim, expected) in
        [(genuine, [Some(PreemptionReason::DaemonPodVictim), None]), (forged, [None, None])]
    {
        let mut world = world();
        world.node("n2", json!({"metadata": {"labels": {"no": "daemon"}}}));
        world.pod(&victim);
        world.pod(&on(priority(daemon_pod("d", "n2"), 10), "n2"));
        world.pod(&on(pod("o", "700m"), "n2"));
        let now = world.now;
        let preemptor = object(priority(pod("p", "300m"), 100), json!({}));
        let candidate = |node: &'static str, victim: &'static str| PreemptionCandidate {
            node: node.into(),
            victims: vec![victim.into()],
        };
        let both = [candidate("n1", "old"), candidate("n2", "o")];
        assert_eq!(judge(&mut world, &preemptor, &both, now), expected);
        assert_eq!(judge(&mut world, &preemptor, &both[..1], now), [None], "nothing else will do");
    }
}
