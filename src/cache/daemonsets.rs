//! Events of DaemonSets, and the demand of their pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;

use super::change::Change;
use super::daemonset_info::{AdmissionObstacle, DaemonSetInfo, PodDemand};
use super::{Cache, DaemonSetId, PodId};
use crate::api::daemonset::DaemonSet;
use crate::api::event::Event;
use crate::api::meta::Metadata;
use crate::scheduling::host_ports::kept_host_ports;
use crate::scheduling::obstacle::obstacle_before_first_try;
use crate::scheduling::quota::{CountedPod, leaves_room_for, takes_all};
use crate::scheduling::resources::{default_pod_spec, template_requests};

impl Cache {
    /// Adds a DaemonSet, or replaces the one with the same UID. `group` is the API group of its watch.
    pub fn apply_daemon_set(&mut self, group: &str, daemon_set: DaemonSet) {
        self.note_creation(&daemon_set.metadata);
        let uid = self.texts.intern(daemon_set.metadata.uid.as_str());
        match self.daemon_set_ids.get(&uid).copied() {
            Some(id) => self.replace_daemon_set(id, daemon_set),
            None => self.add_daemon_set(uid, group, daemon_set),
        }
    }

    fn add_daemon_set(&mut self, uid: Arc<str>, group: &str, daemon_set: DaemonSet) {
        let info = DaemonSetInfo {
            uid: uid.clone(),
            group: self.texts.intern(group),
            tolerations: DaemonSetInfo::tolerations_of(&daemon_set),
            generation: DaemonSetInfo::generation_of(&daemon_set),
            uses_surge: daemon_set.spec.uses_surge(),
            obstacle: obstacle_before_first_try(&daemon_set.spec.template.spec),
            demand: Arc::default(),
            refused_by: None,
            last_created: Box::default(),
            creation_failed: Box::default(),
            pods: HashSet::new(),
            newest_pod: None,
            is_deleted: false,
            daemon_set,
        };
        let id = self.daemon_sets.insert(info);
        self.daemon_set_ids.insert(uid.clone(), id);
        self.link_pods(id);
        self.update_demand(id);
        self.changes.push(Change::DaemonSetChanged { id, moves: true });
    }

    /// Links a DaemonSet to the pods that name it as their controller, if they belong to it.
    fn link_pods(&mut self, id: DaemonSetId) {
        for pod in std::mem::take(&mut self.daemon_sets[id].pods) {
            if let Some(daemon) = &mut self.pods[pod].daemon {
                daemon.daemon_set = None;
            }
        }
        self.daemon_sets[id].newest_pod = None;
        let uid = self.daemon_sets[id].uid.clone();
        let pods: Vec<PodId> = self.pods_by_owner.get(&uid).into_iter().flatten().copied().collect();
        for pod in pods {
            self.link_pod(pod);
        }
        self.find_newest_pod(id);
    }

    fn replace_daemon_set(&mut self, id: DaemonSetId, daemon_set: DaemonSet) {
        let new_selector = self.daemon_sets[id].daemon_set.spec.selector != daemon_set.spec.selector;
        let info = &mut self.daemon_sets[id];
        // Most events change the status only, which is not cached.
        let unchanged = info.daemon_set.spec == daemon_set.spec
            && info.daemon_set.metadata.labels == daemon_set.metadata.labels
            && info.daemon_set.metadata.annotations == daemon_set.metadata.annotations
            && info.daemon_set.metadata.is_deleting() == daemon_set.metadata.is_deleting();
        let new_template = info.daemon_set.spec.template != daemon_set.spec.template
            || DaemonSetInfo::generation_of(&daemon_set) != info.generation;
        let is_observed =
            |daemon_set: &DaemonSet| daemon_set.status.observed_generation >= daemon_set.metadata.generation;
        if is_observed(&daemon_set) && info.daemon_set.status != daemon_set.status {
            self.changes.push(Change::DaemonSetObserved(id));
        }
        if unchanged {
            info.daemon_set.metadata = daemon_set.metadata;
            info.daemon_set.status = daemon_set.status;
            return;
        }
        let tolerations = DaemonSetInfo::tolerations_of(&daemon_set);
        let (old, new) = (&info.daemon_set.spec.template.spec, &daemon_set.spec.template.spec);
        let moves = (&old.node_name, &old.node_selector, &old.affinity.node_affinity, &info.tolerations)
            != (&new.node_name, &new.node_selector, &new.affinity.node_affinity, &tolerations);
        info.tolerations = tolerations;
        info.generation = DaemonSetInfo::generation_of(&daemon_set);
        info.uses_surge = daemon_set.spec.uses_surge();
        info.obstacle = obstacle_before_first_try(&daemon_set.spec.template.spec);
        info.daemon_set = daemon_set;
        if new_selector {
            self.link_pods(id);
        }
        if new_template {
            self.find_newest_pod(id);
        }
        self.update_demand(id);
        self.changes.push(Change::DaemonSetChanged { id, moves });
    }

    /// Deletes the DaemonSet with this UID and unlinks its pods, which stay cached. Does nothing if it is not cached. Its id is not
    /// given out again before the reservation has forgotten it.
    pub fn delete_daemon_set(&mut self, uid: &str) {
        let Some(id) = self.daemon_set_ids.remove(uid) else { return };
        let info = &mut self.daemon_sets[id];
        info.is_deleted = true;
        for pod in std::mem::take(&mut info.pods) {
            if let Some(daemon) = &mut self.pods[pod].daemon {
                daemon.daemon_set = None;
            }
        }
        self.changes.push(Change::DaemonSetGone(id));
    }

    /// Frees the id of a deleted DaemonSet. Does nothing if the DaemonSet is not deleted.
    pub(crate) fn forget_daemon_set(&mut self, id: DaemonSetId) {
        if self.deleted_daemon_set(id).is_some() {
            self.daemon_sets.remove(id);
        }
    }

    /// Returns the UIDs of all DaemonSets of a group and kind, to delete those that a relist did not bring.
    pub fn daemon_set_uids(&self, group: &str, kind: &str) -> Vec<Arc<str>> {
        let is_of = |info: &DaemonSetInfo| &*info.group == group && info.daemon_set.kind == kind;
        let of_kind = self.daemon_sets().filter(|(_, info)| is_of(info));
        of_kind.map(|(_, info)| info.uid.clone()).collect()
    }

    /// Returns the number of bound pods that belong to DaemonSets of a namespace, `limit` at most. It visits each pod.
    pub(crate) fn bound_daemon_pods(&self, namespace: &str, limit: usize) -> usize {
        let of_namespace =
            self.daemon_sets().filter(|(_, info)| info.daemon_set.metadata.namespace == namespace);
        let pods = of_namespace.flat_map(|(_, info)| &info.pods);
        pods.filter(|pod| self.pods[**pod].node.is_some()).take(limit).count()
    }

    /// Updates the demand of the DaemonSets for which `concerns` is true, after another object has changed.
    pub(super) fn recheck_daemon_sets(&mut self, concerns: impl Fn(&DaemonSet) -> bool) {
        let concerned = self.daemon_sets().filter(|(_, info)| concerns(&info.daemon_set));
        let ids: Vec<DaemonSetId> = concerned.map(|(id, _)| id).collect();
        for id in ids {
            self.update_demand(id);
        }
    }

    /// Updates the demand of a DaemonSet: the values of its newest pod of the current template, which has passed admission; without
    /// such a pod, those of the template with the apiserver's defaults.
    pub(super) fn update_demand(&mut self, id: DaemonSetId) {
        let info = &self.daemon_sets[id];
        let demand = match info.newest_pod {
            Some(pod) if self.pods[pod].has_demand(&info.demand) => return self.update_admission(id),
            Some(pod) => self.pods[pod].demand(),
            None => self.template_demand(&info.daemon_set),
        };
        if *self.daemon_sets[id].demand != demand {
            self.daemon_sets[id].demand = Arc::new(demand);
            self.changes.push(Change::DemandChanged(id));
        }
        self.update_admission(id);
    }

    /// Updates the known obstacle to the admission of the next pod of a DaemonSet.
    fn update_admission(&mut self, id: DaemonSetId) {
        let info = &self.daemon_sets[id];
        let refused_by = self.admission_obstacle(&info.daemon_set, &info.demand);
        if info.refused_by != refused_by {
            self.daemon_sets[id].refused_by = refused_by;
            self.changes.push(Change::DemandChanged(id));
        }
    }

    /// Updates the obstacles to admission in a namespace, after a quota of it has changed: its status changes with each pod.
    pub(super) fn recheck_admission(&mut self, namespace: &str) {
        let all = self.daemon_sets();
        let concerned = all.filter(|(_, info)| info.daemon_set.metadata.namespace == namespace);
        let ids: Vec<DaemonSetId> = concerned.map(|(id, _)| id).collect();
        for id in ids {
            self.update_admission(id);
        }
    }

    /// Returns true if the quotas of a namespace would take `planned` pods, by DaemonSet, and one more of this DaemonSet, even if
    /// no other pod counted. It does not ask what is used: that tells of some of them already, or still of the pods that they
    /// replace.
    pub(crate) fn quotas_take(&self, id: DaemonSetId, planned: &BTreeMap<DaemonSetId, u32>) -> bool {
        let info = &self.daemon_sets[id];
        let counted = |id: DaemonSetId| {
            self.daemon_sets.get(id).map(|info| self.counted_pod(&info.daemon_set, &info.demand))
        };
        let planned: Vec<(CountedPod<'_>, u32)> =
            planned.iter().filter_map(|(id, count)| Some((counted(*id)?, *count))).collect();
        let pod = self.counted_pod(&info.daemon_set, &info.demand);
        let mut quotas = self.resource_quotas(&info.daemon_set.metadata.namespace);
        quotas.all(|quota| takes_all(quota, &pod, &planned))
    }

    fn counted_pod<'c>(&'c self, daemon_set: &'c DaemonSet, demand: &'c PodDemand) -> CountedPod<'c> {
        let spec = &daemon_set.spec.template.spec;
        CountedPod {
            class: self.class_of(&spec.priority_class_name),
            ends_by_itself: spec.active_deadline_seconds.is_some(),
            requests: &demand.requests,
        }
    }

    /// Returns the reason for which admission would refuse the next pod of a DaemonSet, if it is known.
    fn admission_obstacle(&self, daemon_set: &DaemonSet, demand: &PodDemand) -> Option<AdmissionObstacle> {
        let spec = &daemon_set.spec.template.spec;
        let pod = self.counted_pod(daemon_set, demand);
        let class = pod.class;
        // The Priority plugin refuses what its class does not give (plugin/pkg/admission/priority/admission.go, `admitPod`).
        if !self.class_exists(class) {
            Some(AdmissionObstacle::PriorityClass)
        } else if self.knows_priority_classes()
            && spec.priority.is_some_and(|priority| priority != self.priority_of_class(class))
        {
            Some(AdmissionObstacle::Priority)
        } else if self
            .resource_quotas(&daemon_set.metadata.namespace)
            .any(|quota| !leaves_room_for(quota, &pod))
        {
            Some(AdmissionObstacle::Quota)
        } else {
            None
        }
    }

    /// Records that the controller could not create a pod of a DaemonSet. Does nothing if the Event is not of the namespace of that
    /// DaemonSet, or does not name it: an author of Events can name any UID. No time counts that is later than the newest object,
    /// for such a failure would count for ever.
    pub fn apply_creation_failure(&mut self, event: &Event) {
        self.note_creation(&event.metadata);
        let object = &event.involved_object;
        let Some(id) = self.daemon_set_ids.get(object.uid.as_str()).copied() else { return };
        let info = &mut self.daemon_sets[id];
        let Metadata { namespace, name, .. } = &info.daemon_set.metadata;
        if *namespace != event.metadata.namespace || (namespace, name) != (&object.namespace, &object.name) {
            return;
        }
        let time = event.last_time().min(&self.newest_creation);
        if *info.creation_failed < *time {
            info.creation_failed = time.into();
            self.changes.push(Change::CreationFailed(id));
        }
    }

    /// Returns the demand that a pod of the template has after admission: with the defaults of limit ranges, the overhead of the
    /// runtime class and the priority of the priority class.
    pub fn template_demand(&self, daemon_set: &DaemonSet) -> PodDemand {
        let mut spec = daemon_set.spec.template.spec.clone();
        let defaults = self.limit_range_defaults(&daemon_set.metadata.namespace);
        let overhead = self.runtime_class_overhead(&spec.runtime_class_name);
        default_pod_spec(&mut spec, &defaults, overhead);
        let mut requests = template_requests(&spec);
        requests.limit_scalars();
        PodDemand {
            requests,
            host_ports: kept_host_ports(&spec).into(),
            // Admission computes it from the class, and refuses a pod that states another one.
            priority: match spec.priority {
                Some(stated) if !self.knows_priority_classes() => stated,
                _ => self.priority_of_class(self.class_of(&spec.priority_class_name)),
            },
        }
    }

    /// Returns the priority class of a pod whose template names `class`: if that is empty, the default class of the configuration,
    /// provided that it exists.
    fn class_of<'a>(&'a self, class: &'a str) -> &'a str {
        let default = &self.policy.admission.default_priority_class_name;
        if class.is_empty() && self.priority_class(default).is_some() { default } else { class }
    }

    pub(super) fn find_newest_pod(&mut self, id: DaemonSetId) {
        let info = &self.daemon_sets[id];
        let current = info.pods.iter().copied().filter(|pod| self.is_current(*pod, info));
        let newest = current.max_by_key(|pod| self.age_key(*pod));
        self.daemon_sets[id].newest_pod = newest;
    }

    /// Returns true if the generation in the pod's label is that of the DaemonSet's template, or if one of the two has none.
    pub(super) fn is_current(&self, pod: PodId, info: &DaemonSetInfo) -> bool {
        let generation = self.pods[pod].daemon.as_ref().and_then(|daemon| daemon.generation);
        generation.is_none() || info.generation.is_none() || generation == info.generation
    }

    /// Returns a key that sorts older daemon pods first: the creation time, which is empty for other pods, and the UID, because
    /// creation times are whole seconds.
    pub(crate) fn age_key(&self, pod: PodId) -> (&str, &str) {
        let pod = &self.pods[pod];
        (pod.daemon.as_ref().map_or("", |daemon| &daemon.created), &pod.uid)
    }
}
