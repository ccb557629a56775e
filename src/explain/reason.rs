//! The reason of a row: the taint, the selector or the resource, or the message of the scheduler, the kubelet or the controller.

use super::{DaemonPodState, Subject};
use crate::cache::daemonset_info::PodDemand;
use crate::cache::pod_info::{PodInfo, PodPhase};
use crate::daemonset::namespace_selector::selectors_of;
use crate::daemonset::placement::{Placement, place};
use crate::reservation::feasibility::DaemonShortage;
use crate::reservation::packing::PackingOrder;
use crate::scheduling::host_ports::{HostPort, any_conflict};
use crate::scheduling::resources::Resources;
use crate::scheduling::shortage::{Shortage, amount_of, shortages};

/// The length in characters to which a message is cut; the scheduler cuts its own messages at 1,024 bytes.
const MAX_MESSAGE: usize = 1024;

impl Subject<'_> {
    /// Returns the reason of the row, in words. `pod` is the pod that the state is about, if there is one.
    pub(super) fn reason(
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
                format!("pod {} {ended}{}, and the controller will replace it", pod.name, message_of(pod))
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

    /// Returns the known obstacles to scheduling the pod on the node; for `None`, a pod of the DaemonSet's template.
    fn obstacles(&self, pod: Option<&PodInfo>) -> Vec<String> {
        let mut obstacles = Vec::new();
        obstacles.extend(self.namespace_selector());
        let demand = pod.map_or_else(|| PodDemand::clone(&self.info.demand), PodInfo::demand);
        if pod.is_none() {
            obstacles.extend(self.info.refused_by.map(|obstacle| obstacle.to_string()));
        }
        obstacles.extend(self.too_small(&demand));
        obstacles.extend(self.lack_of_room(&demand));
        obstacles.extend(self.taken_port(&demand.host_ports));
        obstacles
    }

    fn namespace_selector(&self) -> Option<String> {
        let namespace = self.cluster.namespace(&self.info.daemon_set.metadata.namespace)?;
        let node = self.node_info.node.as_ref()?;
        selectors_of(namespace).find_map(|selector| {
            let (key, value) = selector.missing_label(&node.metadata.labels)?;
            Some(format!("the node lacks {key}={value} of the namespace's {}", selector.annotation))
        })
    }

    /// Returns the words for a node that is too small for its daemon pods up to this one, in the order in which they get its room.
    fn too_small(&self, demand: &PodDemand) -> Option<String> {
        let node = self.node_info.node.as_ref()?;
        if node.allocatable().is_empty() {
            return None;
        }
        let allocatable = &self.node_info.allocatable;
        let own = PackingOrder::of_daemon(demand.priority, self.info);
        let others = self.cluster.daemon_sets().filter(|(id, _)| *id != self.id);
        let goes_first = others.filter_map(|(id, info)| {
            let landed = self.pods_here().find(|pod| pod.has_landed_for(id));
            let priority = landed.map_or(info.demand.priority, |pod| pod.priority);
            let order = PackingOrder::of_daemon(priority, info);
            let is_there = landed.is_some()
                || place(&info.daemon_set.spec.template.spec, &info.tolerations, node).should_run;
            let requests = landed.map_or(&info.demand.requests, |pod| &pod.requests);
            (is_there && order < own).then_some((order, requests))
        });
        let mut goes_first: Vec<_> = goes_first.collect();
        goes_first.sort_unstable_by_key(|(order, _)| *order);
        let mut daemons = Resources::default();
        for (_, requests) in goes_first {
            // One that does not fit takes nothing from the next.
            if DaemonShortage::of(allocatable, &daemons, requests).is_none() {
                daemons.add(requests);
            }
        }
        DaemonShortage::of(allocatable, &daemons, &demand.requests).map(|shortage| shortage.to_string())
    }

    fn lack_of_room(&self, demand: &PodDemand) -> Option<String> {
        // A Node without allocatable is a manifest, or has no kubelet yet.
        if self.node_info.node.as_ref()?.allocatable().is_empty() {
            return None;
        }
        let mut free = self.node_info.allocatable.clone();
        free.subtract(&self.node_info.requested);
        let mut lower = Resources::default();
        for pod in self.pods_here() {
            if self.is_own(pod) && pod.is_terminating {
                free.add(&pod.requests);
            } else if pod.priority < demand.priority {
                lower.add(&pod.requests);
            }
        }
        let shortages = shortages(&demand.requests, &free, &self.node_info.allocatable);
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

    fn taken_port(&self, ports: &[HostPort]) -> Option<String> {
        let holder = self
            .pods_here()
            .find(|pod| !(self.is_own(pod) && pod.is_terminating) && any_conflict(&pod.host_ports, ports))?;
        let port = ports.iter().find(|port| any_conflict(&holder.host_ports, std::slice::from_ref(port)))?;
        let HostPort { port, protocol, .. } = port;
        Some(format!("host port {port}/{protocol} is taken by pod {}/{}", holder.namespace, holder.name))
    }

    fn pods_here(&self) -> impl Iterator<Item = &PodInfo> {
        self.node_info.pods.iter().map(|id| self.cluster.pod_by_id(*id))
    }

    fn is_own(&self, pod: &PodInfo) -> bool {
        pod.is_of(self.id)
    }
}

fn running(pod: &PodInfo) -> String {
    if pod.is_ready {
        "bound and Ready".to_owned()
    } else {
        format!("bound but not Ready{}", message_of(pod))
    }
}

fn pending(pod: &PodInfo) -> String {
    if message_of(pod).is_empty() {
        "not scheduled, and the scheduler has not said why".to_owned()
    } else {
        format!("not scheduled{}", message_of(pod))
    }
}

/// Returns `: ` and the message of the scheduler or the kubelet about the pod; empty if there is no message.
fn message_of(pod: &PodInfo) -> String {
    let message = pod.daemon.as_ref().map_or("", |daemon| &*daemon.message);
    if message.is_empty() { String::new() } else { format!(": {}", plain(message)) }
}

/// Returns the message as one line of printable text of at most [`MAX_MESSAGE`] characters: a message must not move a terminal's
/// cursor.
fn plain(message: &str) -> String {
    let mut text: String =
        message.chars().take(MAX_MESSAGE).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if message.chars().nth(MAX_MESSAGE).is_some() {
        text.push('…');
    }
    text.trim_end().trim_end_matches('.').to_owned()
}
