//! The reason of a row: the taint, the selector, the resource, or the words of whoever said so.

use super::{DaemonPodState, Subject};
use crate::cache::daemonset_info::PodDemand;
use crate::cache::pod_info::{PodInfo, PodPhase};
use crate::daemonset::namespace_selector::selectors_of;
use crate::daemonset::placement::Placement;
use crate::scheduling::host_ports::{HostPort, any_conflict};
use crate::scheduling::resources::Resources;
use crate::scheduling::shortage::{Shortage, amount_of, shortages};

/// How much of what others say is repeated; the scheduler's own messages end at 1,024 bytes too.
const MAX_MESSAGE: usize = 1024;

impl Subject<'_> {
    /// Why the row is as it is. `placement` says why the pod should not run, if it should not.
    pub(super) fn why(
        &self,
        placement: &Placement<'_>,
        state: DaemonPodState,
        pod: Option<&PodInfo>,
    ) -> String {
        let mut parts = Vec::new();
        let unwanted = placement.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        match state {
            DaemonPodState::NotWanted => {
                parts.push(unwanted);
                parts.extend(pod.map(|pod| format!("pod {} is being deleted", pod.name)));
            }
            DaemonPodState::Misplaced => {
                parts.push(unwanted);
                parts.push("the controller will delete the pod".to_owned());
            }
            DaemonPodState::Running => {
                parts.push(pod.map_or_else(String::new, running));
                parts.extend(self.is_outdated(pod).then(|| "made from an older template".to_owned()));
                if !placement.should_run {
                    parts.push(format!("it may stay but would not be created again, because {unwanted}"));
                }
            }
            DaemonPodState::Pending => {
                parts.push(pod.map_or_else(String::new, pending));
                if !placement.should_run {
                    parts.push(unwanted);
                }
                parts.extend(self.obstacles(pod));
            }
            DaemonPodState::Missing => {
                parts.push(self.missing(pod));
                parts.extend(self.obstacles(None));
            }
        }
        parts.join("; ")
    }

    fn is_outdated(&self, pod: Option<&PodInfo>) -> bool {
        let made_from = pod.and_then(|pod| pod.daemon.as_ref()).and_then(|daemon| daemon.generation);
        matches!((made_from, self.info.generation), (Some(made_from), Some(current)) if made_from != current)
    }

    fn missing(&self, pod: Option<&PodInfo>) -> String {
        let metadata = &self.info.daemon_set.metadata;
        if metadata.is_deleting() {
            return "the DaemonSet is being deleted".to_owned();
        }
        match pod {
            Some(pod) if pod.is_terminating => {
                format!("pod {} is being deleted, and the next one is created when it has gone", pod.name)
            }
            Some(pod) => {
                let ended = if pod.phase == PodPhase::Failed { "failed" } else { "has ended" };
                format!("pod {} {ended}{}, and the controller will replace it", pod.name, said_by(pod))
            }
            None => match self.failures.of(&metadata.namespace, &metadata.name, &self.info.uid) {
                Some(failure) => {
                    let at = if failure.time.is_empty() { "" } else { " at " };
                    let (time, message) = (&failure.time, plain(&failure.message));
                    format!("no pod exists; the controller last failed to create one{at}{time}: {message}")
                }
                None => "no pod exists: the controller has not created one yet".to_owned(),
            },
        }
    }

    /// What keeps the pod from the node as far as it can be told from here.
    fn obstacles(&self, pod: Option<&PodInfo>) -> Vec<String> {
        let mut obstacles = Vec::new();
        obstacles.extend(self.namespace_selector());
        let weight = pod.map_or_else(
            || self.info.weight.clone(),
            |pod| PodDemand {
                requests: pod.requests.clone(),
                host_ports: pod.host_ports.clone(),
                priority: pod.priority,
            },
        );
        obstacles.extend(self.lack_of_room(&weight));
        obstacles.extend(self.taken_port(&weight.host_ports));
        obstacles
    }

    fn namespace_selector(&self) -> Option<String> {
        let namespace = self.cluster.namespace(&self.info.daemon_set.metadata.namespace)?;
        let node = self.state.node.as_ref()?;
        selectors_of(namespace).find_map(|selector| {
            let (key, value) = selector.missing_label(&node.metadata.labels)?;
            Some(format!("the node lacks {key}={value} of the namespace's {}", selector.annotation))
        })
    }

    fn lack_of_room(&self, weight: &PodDemand) -> Option<String> {
        // A Node that says nothing of what it has is a manifest, or has no kubelet yet.
        if self.state.node.as_ref()?.allocatable().is_empty() {
            return None;
        }
        let mut free = self.state.allocatable.clone();
        free.subtract(&self.state.used);
        let mut lower = Resources::default();
        for pod in self.pods_here() {
            if self.is_own(pod) && pod.is_terminating {
                free.add(&pod.requests);
            } else if pod.priority < weight.priority {
                lower.add(&pod.requests);
            }
        }
        let shortages = shortages(&weight.requests, &free, &self.state.allocatable);
        let text = |shortage: &Shortage<'_>| {
            let preemptible = amount_of(&lower, shortage.resource);
            let others = if preemptible == 0 {
                "no pod of lower priority holds any".to_owned()
            } else {
                format!("pods of lower priority hold {}", shortage.amount(preemptible))
            };
            format!("{shortage} ({others})")
        };
        let texts: Vec<String> = shortages.iter().map(text).collect();
        (!texts.is_empty()).then(|| format!("it does not fit: {}", texts.join(", ")))
    }

    fn taken_port(&self, wanted: &[HostPort]) -> Option<String> {
        let holder = self
            .pods_here()
            .find(|pod| !(self.is_own(pod) && pod.is_terminating) && any_conflict(&pod.host_ports, wanted))?;
        let port = wanted.iter().find(|port| any_conflict(&holder.host_ports, std::slice::from_ref(port)))?;
        let HostPort { port, protocol, .. } = port;
        Some(format!("host port {port}/{protocol} is taken by pod {}/{}", holder.namespace, holder.name))
    }

    fn pods_here(&self) -> impl Iterator<Item = &PodInfo> {
        self.state.pods.iter().map(|id| self.cluster.pod_by_id(*id))
    }

    fn is_own(&self, pod: &PodInfo) -> bool {
        pod.is_of(self.id)
    }
}

fn running(pod: &PodInfo) -> String {
    if pod.is_ready { "bound and Ready".to_owned() } else { format!("bound but not Ready{}", said_by(pod)) }
}

fn pending(pod: &PodInfo) -> String {
    if said_by(pod).is_empty() {
        "not scheduled, and the scheduler has not said why".to_owned()
    } else {
        format!("not scheduled{}", said_by(pod))
    }
}

/// `: ` and what the scheduler or the kubelet said of the pod, if they did.
fn said_by(pod: &PodInfo) -> String {
    let message = pod.daemon.as_ref().map_or("", |daemon| &*daemon.message);
    if message.is_empty() { String::new() } else { format!(": {}", plain(message)) }
}

/// One line of printable text, of bounded length: others' words must not move a terminal's cursor.
fn plain(message: &str) -> String {
    let mut text: String =
        message.chars().take(MAX_MESSAGE).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if message.chars().nth(MAX_MESSAGE).is_some() {
        text.push('…');
    }
    text.trim_end().trim_end_matches('.').to_owned()
}
