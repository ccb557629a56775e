//! A small scheduler and a small DaemonSet controller around the cluster, with events that reach each of them late and at
//! different times: whatever the order, every daemon pod lands, and no ordinary pod sleeps while there is room for it.
//!
//! After kubernetes v1.36.3 pkg/scheduler/backend/queue/scheduling_queue.go: a refused pod sleeps until an event of the cluster
//! moves it, and backs off for 1 s to 10 s first. The flush after 5 minutes is left out: who needs it has been forgotten.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::*;
use crate::scheduling::pod::Pod;

/// A deterministic source of chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Our watches.
    SeePod {
        pod: usize,
        node: Option<usize>,
        terminating: bool,
    },
    SeePodGone(usize),
    SeeNode {
        node: usize,
        version: u64,
    },
    /// The scheduler's watches.
    SchedulePod {
        pod: usize,
        node: Option<usize>,
    },
    SchedulePodGone(usize),
    ScheduleNode(usize),
    ScheduleNodeUpdate,
    /// The cluster itself.
    Bind {
        pod: usize,
        node: usize,
    },
    Gone(usize),
    Create {
        set: usize,
        node: usize,
    },
    Roll,
    Cycle,
    Tick,
    PatchNode,
}

#[derive(Debug, Clone)]
struct SimPod {
    object: Pod,
    cpu: i64,
    /// The DaemonSet, the node and the generation of the template.
    daemon: Option<(usize, usize, u64)>,
    node: Option<usize>,
    terminating: bool,
    gone: bool,
}

/// What the scheduler knows of a pod.
#[derive(Debug, Clone, Default)]
struct Queued {
    place: Place,
    assumed: Option<usize>,
    attempts: u32,
    tried_at: u64,
    told: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Nowhere,
    Active,
    Backoff,
    /// Asleep; whether an extender refused it.
    Unschedulable(bool),
}

struct Simulation {
    chance: Chance,
    now: u64,
    start: Instant,
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events: u64,
    world: World,
    pods: Vec<SimPod>,
    node_cpu: Vec<Option<i64>>,
    /// When each watch was last heard of: none goes back in time.
    heard: [u64; 4],
    queued: Vec<Queued>,
    active: VecDeque<usize>,
    scheduled_nodes: Vec<Option<i64>>,
    sets: usize,
    generation: u64,
    end_after: u64,
    pops_backoff: bool,
    patch_pending: bool,
    patched_at: u64,
    without_us: bool,
}

impl Simulation {
    fn new(seed: u64, nodes: usize, sets: usize) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            chance.below(2);
        }
        let mut world = World::new();
        let start = world.now;
        world.effects();
        let end_after = chance.below(2) * 1000;
        let pops_backoff = chance.below(2) == 0;
        let mut simulation = Self {
            chance,
            now: 0,
            start,
            heap: BinaryHeap::new(),
            events: 0,
            world,
            pods: Vec::new(),
            node_cpu: vec![None; nodes],
            heard: [0; 4],
            queued: Vec::new(),
            active: VecDeque::new(),
            scheduled_nodes: vec![None; nodes],
            sets,
            generation: 1,
            end_after,
            pops_backoff,
            patch_pending: false,
            patched_at: 0,
            without_us: false,
        };
        simulation.at(0, Event::Cycle);
        simulation.at(simulation.now + 1000, Event::Tick);
        simulation
    }

    fn at(&mut self, time: u64, event: Event) {
        self.events += 1;
        self.heap.push(Reverse((time, self.events, event)));
    }

    /// Tells one watch of something, later than all that it was told before.
    fn tell(&mut self, watch: usize, slowest: u64, event: Event) {
        let time = (self.now + self.chance.below(slowest)).max(self.heard[watch]);
        self.heard[watch] = time;
        self.at(time, event);
    }

    fn tell_pod(&mut self, pod: usize) {
        let SimPod { node, terminating, gone, .. } = self.pods[pod];
        if gone {
            self.tell(0, 200, Event::SeePodGone(pod));
            self.tell(1, 20, Event::SchedulePodGone(pod));
        } else {
            self.tell(0, 200, Event::SeePod { pod, node, terminating });
            self.tell(1, 20, Event::SchedulePod { pod, node });
        }
    }

    fn add_node(&mut self, node: usize, cpu: i64) {
        self.node_cpu[node] = Some(cpu);
        self.tell(2, 200, Event::SeeNode { node, version: 0 });
        // A node that we do not know passes, by contract: the not-ready taint of a new Node covers that time, and no more.
        self.heard[3] = self.heard[3].max(self.heard[2]);
        self.tell(3, 20, Event::ScheduleNode(node));
        for set in 0..self.sets {
            let time = self.now + 5 + self.chance.below(80);
            self.at(time, Event::Create { set, node });
        }
    }

    fn add_daemon_sets(&mut self) {
        for set in 0..self.sets {
            let annotation = json!({"deprecated.daemonset.template.generation": self.generation.to_string()});
            self.world.daemon_set(&format!("d{set}"), json!({"metadata": {"annotations": annotation}}));
        }
    }

    fn add_pod(
        &mut self,
        object: Pod,
        cpu: i64,
        daemon: Option<(usize, usize, u64)>,
        node: Option<usize>,
    ) -> usize {
        let pod = self.pods.len();
        self.pods.push(SimPod { object, cpu, daemon, node, terminating: false, gone: false });
        self.queued.push(Queued::default());
        self.tell_pod(pod);
        pod
    }

    fn add_ordinary(&mut self, cpu: i64, node: Option<usize>) -> usize {
        let name = format!("p{}", self.pods.len());
        self.add_pod(object(pod(&name, &format!("{cpu}m")), json!({})), cpu, None, node)
    }

    fn add_daemon(&mut self, set: usize, node: usize, bound: bool) -> usize {
        let uid = format!("d{set}-{}", self.pods.len());
        let change = json!({"metadata": {
            "uid": uid, "name": uid, "labels": {"pod-template-generation": self.generation.to_string()},
        }});
        let object = object(daemon_pod(&format!("d{set}"), &format!("n{node}")), change);
        self.add_pod(object, 300, Some((set, node, self.generation)), bound.then_some(node))
    }

    /// Lets the start settle before anything happens.
    fn settle(&mut self) {
        self.run_until(self.now + 2000);
    }

    fn run_until(&mut self, end: u64) {
        while let Some(Reverse((time, _, event))) = self.heap.peek().copied() {
            if time > end {
                break;
            }
            self.heap.pop();
            self.now = self.now.max(time);
            self.world.now = self.start + Duration::from_millis(self.now);
            self.happen(event);
            self.do_effects();
        }
        self.now = end;
    }

    fn do_effects(&mut self) {
        let wakes = self.world.effects().iter().any(|done| matches!(done, Done::Wake(_)));
        if wakes && !self.patch_pending {
            self.patch_pending = true;
            let time = (self.now + 5 + self.chance.below(20)).max(self.patched_at + 1000);
            self.at(time, Event::PatchNode);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::SeePod { pod, node, terminating } => {
                let mut object = self.pods[pod].object.clone();
                object.spec.node_name = node.map_or_else(String::new, |node| format!("n{node}"));
                object.metadata.deletion_timestamp = terminating.then(|| "2026-01-01T00:00:01Z".to_owned());
                self.world.cluster.apply_pod(&object, self.world.now);
            }
            Event::SeePodGone(pod) => {
                let uid = self.pods[pod].object.metadata.uid.clone();
                self.world.cluster.delete_pod(&uid, self.world.now);
            }
            Event::SeeNode { node, version } => {
                let cpu = format!("{}m", self.node_cpu[node].unwrap());
                let change = json!({
                    "metadata": {"annotations": {"wake": version.to_string()}},
                    "status": {"allocatable": {"cpu": cpu, "pods": "110"}},
                });
                self.world.node(&format!("n{node}"), change);
            }
            Event::SchedulePod { pod, node } => self.schedule_pod(pod, node),
            Event::SchedulePodGone(pod) => {
                self.active.retain(|other| *other != pod);
                let queued = std::mem::take(&mut self.queued[pod]);
                self.wake(|_| queued.assumed.is_some());
            }
            Event::ScheduleNode(node) => {
                self.scheduled_nodes[node] = self.node_cpu[node];
                self.wake(|_| true);
            }
            Event::ScheduleNodeUpdate => self.wake(|by_extender| by_extender),
            Event::Bind { pod, node } => {
                if self.pods[pod].gone || self.pods[pod].terminating {
                    return;
                }
                self.pods[pod].node = Some(node);
                self.tell_pod(pod);
            }
            Event::Gone(pod) => {
                self.pods[pod].gone = true;
                self.tell_pod(pod);
                if let Some((set, node, _)) = self.pods[pod].daemon {
                    let time = self.now + 5 + self.chance.below(80);
                    self.at(time, Event::Create { set, node });
                }
            }
            Event::Create { set, node } => {
                let exists = self.pods.iter().any(|pod| {
                    !pod.gone && pod.daemon.is_some_and(|daemon| (daemon.0, daemon.1) == (set, node))
                });
                if !exists {
                    self.add_daemon(set, node, false);
                }
            }
            Event::Roll => self.roll(),
            Event::Cycle => {
                self.cycle();
                let time = self.now + 1 + self.chance.below(4);
                self.at(time, Event::Cycle);
            }
            Event::Tick => {
                self.world.cluster.tick(self.world.now);
                self.at(self.now + 1000, Event::Tick);
            }
            Event::PatchNode => {
                self.patch_pending = false;
                self.patched_at = self.now;
                self.tell(3, 20, Event::ScheduleNodeUpdate);
                self.tell(2, 200, Event::SeeNode { node: 0, version: self.now });
            }
        }
    }

    fn delete(&mut self, pod: usize) {
        if self.pods[pod].terminating || self.pods[pod].gone {
            return;
        }
        if self.pods[pod].node.is_none() {
            self.happen(Event::Gone(pod));
            return;
        }
        self.pods[pod].terminating = true;
        self.tell_pod(pod);
        self.at(self.now + self.end_after, Event::Gone(pod));
    }

    /// One step of a rolling update with maxUnavailable 10%, at least 1.
    fn roll(&mut self) {
        let nodes = self.node_cpu.len();
        let mut all_done = true;
        for set in 0..self.sets {
            let live: Vec<usize> = (0..self.pods.len())
                .filter(|pod| {
                    !self.pods[*pod].gone && self.pods[*pod].daemon.is_some_and(|daemon| daemon.0 == set)
                })
                .collect();
            let is_up = |pod: &SimPod| pod.node.is_some() && !pod.terminating;
            let up = live.iter().filter(|pod| is_up(&self.pods[**pod])).count();
            let mut budget = nodes.div_ceil(10).saturating_sub(nodes - up);
            for pod in live {
                let is_old = self.pods[pod].daemon.is_some_and(|daemon| daemon.2 != self.generation);
                all_done &= !is_old && is_up(&self.pods[pod]);
                if is_old && !self.pods[pod].terminating {
                    if !is_up(&self.pods[pod]) {
                        self.delete(pod);
                    } else if budget > 0 {
                        budget -= 1;
                        self.delete(pod);
                    }
                }
            }
        }
        if !all_done {
            let time = self.now + 20 + self.chance.below(100);
            self.at(time, Event::Roll);
        }
    }
}

/// The scheduler.
impl Simulation {
    fn schedule_pod(&mut self, pod: usize, node: Option<usize>) {
        match node {
            Some(node) => {
                self.queued[pod].assumed = Some(node);
                self.queued[pod].place = Place::Nowhere;
                self.wake(|by_extender| by_extender);
            }
            None if self.queued[pod].assumed.is_none() && self.queued[pod].place == Place::Nowhere => {
                self.queued[pod].place = Place::Active;
                self.active.push_back(pod);
            }
            None => {}
        }
    }

    /// Moves the pods that sleep and that an event concerns: `concerns` says so of those that an extender refused or not.
    fn wake(&mut self, concerns: impl Fn(bool) -> bool) {
        for pod in 0..self.queued.len() {
            if let Place::Unschedulable(by_extender) = self.queued[pod].place
                && concerns(by_extender)
            {
                self.move_up(pod);
            }
        }
    }

    fn move_up(&mut self, pod: usize) {
        if self.ready_at(pod) <= self.now {
            self.queued[pod].place = Place::Active;
            self.active.push_back(pod);
        } else {
            self.queued[pod].place = Place::Backoff;
        }
    }

    fn ready_at(&self, pod: usize) -> u64 {
        let queued = &self.queued[pod];
        queued.tried_at + 1000 * (1_u64 << queued.attempts.saturating_sub(1).min(4)).min(10)
    }

    fn cycle(&mut self) {
        for pod in 0..self.queued.len() {
            if self.queued[pod].place == Place::Backoff && self.ready_at(pod) <= self.now {
                self.move_up(pod);
            }
        }
        let in_backoff = |pod: &usize| self.queued[*pod].place == Place::Backoff;
        let early = (0..self.queued.len()).filter(in_backoff).min_by_key(|pod| self.ready_at(*pod));
        let next = self.active.pop_front().or(early.filter(|_| self.pops_backoff));
        let Some(pod) = next else { return };
        self.queued[pod].attempts += 1;
        self.queued[pod].tried_at = self.now;
        let mut free = self.scheduled_nodes.clone();
        for (other, queued) in self.queued.iter().enumerate() {
            if let Some(free) = queued.assumed.and_then(|node| free[node].as_mut()) {
                *free -= self.pods[other].cpu;
            }
        }
        let SimPod { cpu, daemon, .. } = self.pods[pod];
        let fits = |node: &usize| {
            free[*node].is_some_and(|free| cpu <= free) && daemon.is_none_or(|daemon| daemon.1 == *node)
        };
        let feasible: Vec<usize> = (0..free.len()).filter(fits).collect();
        let passed = if self.without_us { feasible.clone() } else { self.filter(pod, &feasible) };
        if passed.is_empty() {
            let by_extender = !feasible.is_empty();
            self.queued[pod].place = Place::Unschedulable(by_extender);
            // The scheduler writes what it found on the pod, where that is new, and by that wakes it itself.
            if self.queued[pod].told.replace(by_extender) != Some(by_extender) && by_extender {
                self.move_up(pod);
            }
            return;
        }
        let at = usize::try_from(self.chance.below(passed.len() as u64)).unwrap();
        let node = passed[at];
        self.queued[pod].place = Place::Nowhere;
        self.queued[pod].assumed = Some(node);
        let time = self.now + 1 + self.chance.below(30);
        self.at(time, Event::Bind { pod, node });
    }

    fn filter(&mut self, pod: usize, feasible: &[usize]) -> Vec<usize> {
        if feasible.is_empty() {
            return Vec::new();
        }
        let now = self.world.now;
        let mut call = self.world.cluster.judge(&self.pods[pod].object, now);
        let mut passed = feasible.to_vec();
        passed.retain(|node| call.refuse(&format!("n{node}")).is_none());
        call.finish();
        passed
    }
}

/// What must hold in the end.
impl Simulation {
    fn running(&self) -> usize {
        let runs = |pod: &&SimPod| {
            !pod.gone
                && !pod.terminating
                && pod.node.is_some()
                && pod.daemon.is_some_and(|daemon| daemon.2 == self.generation)
        };
        self.pods.iter().filter(runs).count()
    }

    /// Ordinary pods that are not bound although a node has room for them.
    fn sleepers(&self) -> Vec<String> {
        let mut free = self.node_cpu.clone();
        for pod in self.pods.iter().filter(|pod| !pod.gone) {
            if let Some(free) = pod.node.and_then(|node| free[node].as_mut()) {
                *free -= pod.cpu;
            }
        }
        assert!(free.iter().flatten().all(|free| *free >= 0));
        let waits = |(at, pod): &(usize, &SimPod)| {
            !pod.gone
                && pod.node.is_none()
                && pod.daemon.is_none()
                && free.iter().flatten().any(|free| *free >= pod.cpu)
                && self.queued[*at].assumed.is_none()
        };
        let sleepers = self.pods.iter().enumerate().filter(waits);
        sleepers.map(|(at, pod)| format!("{}: {:?}", pod.object.metadata.name, self.queued[at])).collect()
    }

    fn check(&mut self, what: &str, seed: u64, expected: usize) {
        let end = self.now + 40_000;
        self.run_until(end);
        assert_eq!(self.running(), expected, "{what}, seed {seed}: daemon pods that run");
        assert_eq!(self.sleepers(), Vec::<String>::new(), "{what}, seed {seed}: ordinary pods that sleep");
        assert_eq!(self.world.cluster.ledger_len(), 0, "{what}, seed {seed}");
    }
}

/// Debug builds take forty times as long.
const SEEDS: u64 = if cfg!(debug_assertions) { 12 } else { 400 };

/// Full nodes with 3 daemons and 10 ordinary pods each, and a backlog.
fn full(seed: u64, nodes: usize) -> Simulation {
    let mut simulation = Simulation::new(seed, nodes, 3);
    simulation.add_daemon_sets();
    for node in 0..nodes {
        simulation.add_node(node, 4000);
        for set in 0..3 {
            simulation.add_daemon(set, node, true);
        }
        for _ in 0..10 {
            simulation.add_ordinary(300, Some(node));
        }
    }
    for _ in 0..nodes * 4 {
        simulation.add_ordinary(300, None);
    }
    simulation.settle();
    simulation
}

fn rolling_update(seed: u64, without_us: bool) -> Simulation {
    let mut simulation = full(seed, 5);
    simulation.without_us = without_us;
    simulation.generation = 2;
    simulation.add_daemon_sets();
    simulation.at(simulation.now, Event::Roll);
    simulation
}

#[test]
fn a_rolling_updates_finish_on_full_nodes() {
    for seed in 1..SEEDS {
        rolling_update(seed, false).check("A", seed, 15);
    }
}

#[test]
fn a_without_us_is_lost() {
    let mut lost = 0;
    for seed in 1..10 {
        let mut simulation = rolling_update(seed, true);
        simulation.run_until(60_000);
        lost += usize::from(simulation.running() < 15);
    }
    assert!(lost > 5, "{lost}: the model is too kind to show anything");
}

#[test]
fn b_joining_nodes_get_their_daemons_first() {
    for seed in 1..SEEDS {
        let mut simulation = Simulation::new(seed, 6, 3);
        simulation.add_daemon_sets();
        for _ in 0..30 {
            simulation.add_ordinary(1000, None);
        }
        simulation.settle();
        for node in 0..6 {
            simulation.add_node(node, 4000);
            let time = simulation.now + simulation.chance.below(300);
            simulation.run_until(time);
        }
        simulation.check("B", seed, 18);
    }
}

#[test]
fn d_a_deleted_daemon_pod_comes_back() {
    for seed in 1..SEEDS {
        let mut simulation = full(seed, 3);
        for _ in 0..4 {
            let daemons = (0..simulation.pods.len())
                .filter(|pod| !simulation.pods[*pod].gone && simulation.pods[*pod].daemon.is_some());
            let daemons: Vec<usize> = daemons.collect();
            let at = usize::try_from(simulation.chance.below(daemons.len() as u64)).unwrap();
            simulation.delete(daemons[at]);
            let time = simulation.now + simulation.chance.below(1500);
            simulation.run_until(time);
        }
        simulation.check("D", seed, 9);
    }
}

#[test]
fn e_new_daemons_get_what_comes_free() {
    for seed in 1..SEEDS {
        let mut simulation = Simulation::new(seed, 5, 3);
        let sets = std::mem::take(&mut simulation.sets);
        let mut ordinary = Vec::new();
        for node in 0..5 {
            simulation.add_node(node, 4000);
            ordinary.extend((0..4).map(|_| simulation.add_ordinary(1000, Some(node))));
        }
        for _ in 0..20 {
            let cpu = 100 + 300 * i64::try_from(simulation.chance.below(4)).unwrap();
            simulation.add_ordinary(cpu, None);
        }
        simulation.settle();
        simulation.sets = sets;
        simulation.add_daemon_sets();
        for node in 0..5 {
            for set in 0..sets {
                let time = simulation.now + simulation.chance.below(100);
                simulation.at(time, Event::Create { set, node });
            }
        }
        simulation.settle();
        for pod in ordinary.into_iter().step_by(4) {
            simulation.delete(pod);
            let time = simulation.now + simulation.chance.below(200);
            simulation.run_until(time);
        }
        simulation.check("E", seed, 15);
    }
}
