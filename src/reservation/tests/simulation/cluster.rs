//! The simulated cluster: its objects, its DaemonSet controller and the handling of events.

use super::*;

impl Simulation {
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

    pub(super) fn add_node(&mut self, node: usize, cpu: i64) {
        self.node_cpu[node] = Some(cpu);
        self.tell(2, 200, Event::SeeNode { node, version: 0 });
        // A node that the cache does not know passes: the not-ready taint of a new Node covers that time.
        self.heard[3] = self.heard[3].max(self.heard[2]);
        self.tell(3, 20, Event::ScheduleNode(node));
        for set in 0..self.sets {
            let time = self.now + 5 + self.chance.below(80);
            self.at(time, Event::Create { set, node });
        }
    }

    pub(super) fn add_daemon_sets(&mut self) {
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

    pub(super) fn add_ordinary(&mut self, cpu: i64, node: Option<usize>) -> usize {
        let name = format!("p{}", self.pods.len());
        self.add_pod(object(pod(&name, &format!("{cpu}m")), json!({})), cpu, None, node)
    }

    pub(super) fn add_daemon(&mut self, set: usize, node: usize, bound: bool) -> usize {
        let uid = format!("d{set}-{}", self.pods.len());
        let change = json!({"metadata": {
            "uid": uid, "name": uid, "labels": {"pod-template-generation": self.generation.to_string()},
        }});
        let object = object(daemon_pod(&format!("d{set}"), &format!("n{node}")), change);
        self.add_pod(object, 300, Some((set, node, self.generation)), bound.then_some(node))
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::SeePod { pod, node, terminating } => {
                let mut object = self.pods[pod].object.clone();
                object.spec.node_name = node.map_or_else(String::new, |node| format!("n{node}"));
                object.metadata.deletion_timestamp = terminating.then(|| "2026-01-01T00:00:01Z".to_owned());
                self.world.event(|cache| cache.apply_pod(&object));
            }
            Event::SeePodGone(pod) => {
                let uid = self.pods[pod].object.metadata.uid.clone();
                self.world.delete_pod(&uid);
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
                self.world.tick();
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

    pub(super) fn delete(&mut self, pod: usize) {
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

    /// Makes one step of a rolling update with maxUnavailable 10%, at least 1.
    fn roll(&mut self) {
        let nodes = self.node_cpu.len();
        let mut all_done = true;
        for set in 0..self.sets {
            let pods: Vec<usize> = (0..self.pods.len())
                .filter(|pod| {
                    !self.pods[*pod].gone && self.pods[*pod].daemon.is_some_and(|daemon| daemon.0 == set)
                })
                .collect();
            let is_up = |pod: &SimPod| pod.node.is_some() && !pod.terminating;
            let up = pods.iter().filter(|pod| is_up(&self.pods[**pod])).count();
            let mut budget = nodes.div_ceil(10).saturating_sub(nodes - up);
            for pod in pods {
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
