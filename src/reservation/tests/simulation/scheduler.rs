//! The simulated scheduler: its record of each pod, and its scheduling cycle.

use super::*;

/// The scheduler's record of a pod.
#[derive(Debug, Clone, Default)]
pub(super) struct Queued {
    pub(super) place: Place,
    pub(super) assumed: Option<usize>,
    attempts: u32,
    tried_at: u64,
    told: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Place {
    #[default]
    Nowhere,
    Active,
    Backoff,
    /// Asleep; true if an extender refused it.
    Unschedulable(bool),
}

impl Simulation {
    pub(super) fn schedule_pod(&mut self, pod: usize, node: Option<usize>) {
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

    /// Moves the sleeping pods that an event concerns; `concerns` takes true for those that an extender refused.
    pub(super) fn wake(&mut self, concerns: impl Fn(bool) -> bool) {
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

    pub(super) fn cycle(&mut self) {
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
            // The scheduler writes a new result to the pod's status, and that wakes the pod.
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
        let View { cache, reservation } = &mut self.world.view;
        let mut call = reservation.begin_filter(cache, &self.pods[pod].object, now);
        let mut passed = feasible.to_vec();
        passed.retain(|node| call.refuse(&format!("n{node}")).is_none());
        call.finish();
        passed
    }
}
