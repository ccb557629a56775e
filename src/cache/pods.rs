//! Events of pods.

use std::sync::Arc;

use hashbrown::hash_map::Entry;

use super::change::Change;
use super::node_info::remove_id;
use super::pod_info::{DaemonPodInfo, PodInfo, PodPhase};
use super::{Cache, DaemonSetId, PodId};
use crate::api::pod::{Pod, PodSpec};
use crate::daemonset::daemon_pod::{GENERATION_LABEL, daemon_set_reference, target_node_name};
use crate::policy::opt_out::{has_own_label, is_opted_out};
use crate::scheduling::host_ports::{MAX_HOST_PORTS, host_ports};
use crate::scheduling::obstacle::obstacle;
use crate::scheduling::resources::{Resources, pod_requests};

/// The elements of the node selector, affinity and tolerations of an unbound ordinary pod that is compared with nodes. Each tick
/// compares some hundred pods with the nodes of nominated ones.
const MAX_PLACEMENT_ELEMENTS: usize = 64;

impl Cache {
    /// Adds a pod, or replaces the one with the same UID.
    pub fn apply_pod(&mut self, pod: &Pod) {
        self.note_creation(&pod.metadata);
        self.replicas.apply(pod);
        let known = self.pod_ids.get_key_value(&pod.metadata.uid);
        let Some((uid, id)) = known else {
            let uid: Arc<str> = pod.metadata.uid.as_str().into();
            let info = self.pod_info(uid.clone(), pod);
            let id = self.pods.insert(Box::new(info));
            self.pod_ids.insert(uid, id);
            self.attach(id);
            self.link_to_owner(id);
            self.note_created(id);
            return;
        };
        let mut info = self.pod_info(uid, pod);
        let linked = self.pods[id].daemon.as_ref().and_then(|daemon| daemon.daemon_set);
        if let Some(daemon) = &mut info.daemon {
            daemon.daemon_set = linked;
        }
        // Most events change a part of the status that is not cached.
        if *self.pods[id] == info {
            return;
        }
        let same_identity = self.pods[id].has_same_identity(&info);
        if self.pods[id].node.is_none() && info.node.is_some() {
            self.changes.push(Change::PodBound(id));
        }
        self.detach(id);
        if !same_identity {
            self.unlink_pod(id);
            if let Some(daemon) = &mut info.daemon {
                daemon.daemon_set = None;
            }
        }
        let old = std::mem::replace(&mut *self.pods[id], info);
        self.attach(id);
        self.changes.push(Change::PodChanged(id));
        if !same_identity {
            self.link_to_owner(id);
        } else if let Some(daemon_set) =
            linked.filter(|linked| self.daemon_sets[*linked].newest_pod == Some(id))
        {
            self.update_demand(daemon_set);
        }
        if let Some(node) =
            old.occupied_node().filter(|node| !self.pods[id].still_occupies(*node, &old.requests))
        {
            self.changes.push(Change::RoomFreed(node));
        }
        self.forget_nodes_of(&old);
    }

    /// Deletes the pod with this UID, if it is cached.
    pub fn delete_pod(&mut self, uid: &str) {
        self.replicas.remove(uid);
        let Some(id) = self.pod_ids.remove(uid) else { return };
        self.detach(id);
        self.unlink_pod(id);
        let pod = self.pods.remove(id);
        self.changes.push(Change::PodNotPending(pod.uid.clone()));
        if pod.is_terminating {
            self.changes.push(Change::TerminatingPodGone(pod.namespace.clone()));
        }
        if let Some(node) = pod.occupied_node() {
            self.changes.push(Change::RoomFreed(node));
        }
        self.forget_nodes_of(&pod);
    }

    /// Records that a pod of a DaemonSet was created.
    fn note_created(&mut self, id: PodId) {
        let Some(daemon) = &self.pods[id].daemon else { return };
        let Some(daemon_set) = daemon.daemon_set else { return };
        self.changes.push(Change::DaemonPodCreated(daemon_set));
    }

    /// Forgets the nodes that only this pod names.
    fn forget_nodes_of(&mut self, pod: &PodInfo) {
        let target = pod.daemon.as_ref().and_then(|daemon| daemon.target);
        for node in [pod.node, pod.nominated, target].into_iter().flatten() {
            if self.nodes.contains(node) {
                self.forget_node_if_unused(node);
            }
        }
    }

    /// Returns the UIDs of all pods, to delete those that a relist did not bring.
    pub fn pod_uids(&self) -> Vec<Arc<str>> {
        self.pod_ids.uids().cloned().collect()
    }

    /// Returns the DaemonSet of a pod, if it is verified: it exists with the UID that the pod names, in the pod's namespace, and
    /// its selector matches the pod.
    pub(crate) fn verified_daemon_set(&self, pod: &Pod) -> Option<DaemonSetId> {
        let owner = daemon_set_reference(&self.policy.daemon_set_kinds, &pod.metadata)?;
        let (id, info) = self.daemon_set(&owner.uid)?;
        info.owns(&pod.metadata.namespace, &pod.metadata.labels).then_some(id)
    }

    fn pod_info(&mut self, uid: Arc<str>, pod: &Pod) -> PodInfo {
        let spec = &pod.spec;
        let phase = match pod.status.phase.as_str() {
            "Succeeded" => PodPhase::Succeeded,
            "Failed" => PodPhase::Failed,
            _ => PodPhase::Unfinished,
        };
        let policy = self.policy.clone();
        let owner = daemon_set_reference(&policy.daemon_set_kinds, &pod.metadata);
        // A pod refers to nodes only while it is in their lists, so that no id is kept that may be given to another.
        let is_unfinished = phase == PodPhase::Unfinished;
        let bound_to = Some(spec.node_name.as_str()).filter(|name| !name.is_empty());
        let node =
            bound_to.filter(|_| is_unfinished || owner.is_some()).map(|name| self.node_id_or_new(name));
        let nominated = Some(pod.status.nominated_node_name.as_str()).filter(|name| !name.is_empty());
        let nominated =
            nominated.filter(|_| is_unfinished && node.is_none()).map(|name| self.node_id_or_new(name));
        let daemon = owner.map(|owner| {
            let target = target_node_name(spec).map(|name| self.node_id_or_new(name));
            Box::new(DaemonPodInfo {
                owner_uid: self.texts.intern(owner.uid.as_str()),
                daemon_set: None,
                target,
                generation: pod.metadata.labels.get(GENERATION_LABEL).and_then(|text| text.parse().ok()),
                labels: self.labels.intern_cloned(&pod.metadata.labels),
                created: pod.metadata.creation_timestamp.as_str().into(),
                failed_version: (is_unfinished && pod.has_failed_scheduling())
                    .then(|| pod.metadata.resource_version.as_str().into()),
                is_nominated_by_warden: nominated.is_some() && pod.metadata.has_warden_status,
                obstacle: obstacle(pod),
                message: first_bytes(not_running_message(pod)).into(),
            })
        });
        let keeps_placement = daemon.is_none()
            && is_unfinished
            && node.is_none()
            && spec.placement_len() <= MAX_PLACEMENT_ELEMENTS;
        let placement = keeps_placement.then(|| {
            Box::new(PodSpec {
                node_selector: spec.node_selector.clone(),
                affinity: spec.affinity.clone(),
                tolerations: spec.tolerations.clone(),
                ..PodSpec::default()
            })
        });
        let mut requests = pod_requests(pod);
        requests.limit_scalars();
        let mut host_ports = host_ports(spec).into_vec();
        let asks_all_ports = host_ports.len() > MAX_HOST_PORTS;
        host_ports.truncate(MAX_HOST_PORTS);
        PodInfo {
            uid,
            namespace: self.texts.intern(pod.metadata.namespace.as_str()),
            name: pod.metadata.name.as_str().into(),
            node,
            nominated,
            priority: pod.priority(),
            requests,
            host_ports: self.host_ports.intern(&*host_ports),
            phase,
            is_terminating: pod.metadata.is_deleting(),
            is_ready: pod.has_condition("Ready"),
            is_opted_out: is_opted_out(&pod.metadata.labels),
            has_own_label: has_own_label(&pod.metadata.labels),
            has_failed: is_unfinished && node.is_none() && pod.has_failed_scheduling(),
            asks_all_ports,
            daemon,
            placement,
        }
    }

    /// Adds a pod to the lists of its nodes.
    fn attach(&mut self, id: PodId) {
        let pod = &self.pods[id];
        let is_unfinished = pod.is_unfinished();
        if let (Some(node), true) = (pod.node, is_unfinished) {
            let state = &mut self.nodes[node];
            state.requested.add(&pod.requests);
            state.pods.push(id);
        }
        if let (Some(node), true) = (pod.nominated, is_unfinished) {
            self.nodes[node].nominated.push(id);
        }
        if pod.has_failed && pod.placement.is_some() {
            self.failed_ordinary.insert(id);
        }
        if pod.is_unbound() {
            self.unbound.insert(&pod.namespace, &pod.name, id);
        }
        if pod.is_terminating {
            *self.terminating.entry(pod.namespace.clone()).or_default() += 1;
        }
        if let Some(node) = pod.place() {
            self.nodes[node].daemon_pods.push(id);
        }
        if pod.node.is_some() || !is_unfinished {
            self.changes.push(Change::PodNotPending(pod.uid.clone()));
        }
        self.mark_nodes_of(id);
    }

    /// Removes a pod from the lists of its nodes.
    fn detach(&mut self, id: PodId) {
        let pod = &self.pods[id];
        if let (Some(node), true) = (pod.node, pod.is_unfinished()) {
            let state = &mut self.nodes[node];
            remove_id(&mut state.pods, &id);
            if state.requested.is_saturated() {
                // A saturated sum is wrong after a subtraction, and would stay so.
                state.requested = Resources::default();
                for pod in &state.pods {
                    state.requested.add(&self.pods[*pod].requests);
                }
            } else {
                state.requested.subtract(&pod.requests);
            }
        }
        if let Some(node) = pod.nominated {
            remove_id(&mut self.nodes[node].nominated, &id);
        }
        self.failed_ordinary.remove(&id);
        self.unbound.remove(&pod.namespace, &pod.name, id);
        if pod.is_terminating
            && let Entry::Occupied(mut count) = self.terminating.entry(pod.namespace.clone())
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Some(node) = pod.place() {
            remove_id(&mut self.nodes[node].daemon_pods, &id);
        }
        self.mark_nodes_of(id);
    }

    /// Records a pod under the DaemonSet that it names as its controller, and links it.
    fn link_to_owner(&mut self, id: PodId) {
        if let Some(daemon) = &self.pods[id].daemon {
            let owner = daemon.owner_uid.clone();
            self.pods_by_owner.entry(owner).or_default().insert(id);
            self.link_pod(id);
        }
    }

    /// Removes a pod from the DaemonSet that it names as its controller.
    fn unlink_pod(&mut self, id: PodId) {
        let Some(daemon) = &self.pods[id].daemon else { return };
        let (owner, linked) = (daemon.owner_uid.clone(), daemon.daemon_set);
        if let Some(pods) = self.pods_by_owner.get_mut(&owner) {
            pods.remove(&id);
            if pods.is_empty() {
                self.pods_by_owner.remove(&owner);
            }
        }
        if let Some(daemon_set) = linked {
            let info = &mut self.daemon_sets[daemon_set];
            info.pods.remove(&id);
            if info.newest_pod == Some(id) {
                self.find_newest_pod(daemon_set);
                self.update_demand(daemon_set);
            }
        }
    }

    /// Links a pod to the DaemonSet that it names, if that is cached and owns the pod. Does nothing otherwise.
    pub(super) fn link_pod(&mut self, id: PodId) {
        let pod = &self.pods[id];
        let Some(daemon) = &pod.daemon else { return };
        let Some((daemon_set, info)) = self.daemon_set(&daemon.owner_uid) else { return };
        if !info.owns(&pod.namespace, &daemon.labels) {
            return;
        }
        if let Some(daemon) = &mut self.pods[id].daemon {
            daemon.daemon_set = Some(daemon_set);
        }
        let info = &mut self.daemon_sets[daemon_set];
        info.pods.insert(id);
        if let Some(daemon) =
            self.pods[id].daemon.as_ref().filter(|daemon| info.last_created < daemon.created)
        {
            info.last_created.clone_from(&daemon.created);
        }
        let info = &self.daemon_sets[daemon_set];
        let is_newest = self.is_current(id, info)
            && info.newest_pod.is_none_or(|newest| self.age_key(newest) < self.age_key(id));
        if is_newest {
            self.daemon_sets[daemon_set].newest_pod = Some(id);
            self.update_demand(daemon_set);
        }
        self.mark_nodes_of(id);
    }

    /// Adds a [`Change::PodsChanged`] for each node whose lists of bound or daemon pods have the pod.
    fn mark_nodes_of(&mut self, id: PodId) {
        let pod = &self.pods[id];
        for node in [pod.node.filter(|_| pod.is_unfinished()), pod.place()].into_iter().flatten() {
            self.changes.push(Change::PodsChanged(node));
        }
    }
}

/// The bytes of a message that are kept; the scheduler's own messages end at as many.
const MAX_MESSAGE: usize = 1_024;

/// Returns the first [`MAX_MESSAGE`] bytes, or a few less where a character ends.
fn first_bytes(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_MESSAGE)]
}

/// Returns the message of the scheduler or the kubelet: the reason for which a pod does not run or is not Ready; empty if there is
/// none.
fn not_running_message(pod: &Pod) -> &str {
    if pod.is_terminal() {
        return &pod.status.reason;
    }
    // Readiness means nothing before the pod is bound.
    let kind = if pod.spec.node_name.is_empty() { "PodScheduled" } else { "Ready" };
    let is_it = |own: &str, status: &str| own == kind && status == "False";
    let condition = pod.status.conditions.iter().find(|condition| is_it(&condition.kind, &condition.status));
    condition.map_or(
        "",
        |condition| if condition.message.is_empty() { &condition.reason } else { &condition.message },
    )
}
