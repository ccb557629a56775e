//! Requests of pods and room on nodes, in the scheduler's units.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/component-helpers/resource/helpers.go (`PodRequests`,
//! `AggregateContainerRequests`) and pkg/scheduler/framework/plugins/noderesources/fit.go (`fitsRequest`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::pod::{
    Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceList, ResourceRequirements,
};
use crate::api::quantity::Quantity;

/// The most extended resources of one pod that are compared with a node's, one by one: more than a node has, and the scheduler
/// offers a node only to a pod whose resources the node has.
const MAX_SCALARS: usize = 64;

/// Amounts in the scheduler's units: thousandths of a CPU, bytes, pod slots, and whole units of everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU, in thousandths of one.
    pub milli_cpu: i64,
    /// Memory, in bytes.
    pub memory: i64,
    /// Local ephemeral storage, in bytes.
    pub ephemeral_storage: i64,
    /// Pod slots.
    pub pods: i64,
    /// Extended resources, huge pages and attachable volumes, sorted by name, none of amount 0.
    pub scalars: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// Converts a resource list, such as a Node's allocatable, to the scheduler's units; fractions are rounded up. Leaves out names
    /// that the scheduler does not count: all but cpu, memory, ephemeral-storage, pods, names with a domain, huge pages and
    /// attachable volumes.
    pub fn from_list(list: &ResourceList) -> Self {
        Self::from_amounts(list.iter().map(|(name, amount)| (name.as_str(), *amount)))
    }

    fn from_amounts<'a>(amounts: impl Iterator<Item = (&'a str, Quantity)>) -> Self {
        let mut resources = Self::default();
        for (name, amount) in amounts {
            match name {
                "cpu" => resources.milli_cpu = amount.milli_value(),
                "memory" => resources.memory = amount.value(),
                "ephemeral-storage" => resources.ephemeral_storage = amount.value(),
                "pods" => resources.pods = amount.value(),
                _ if is_scalar(name) => resources.add_scalar(name.into(), amount.value()),
                _ => {}
            }
        }
        resources
    }

    /// Adds `other`, saturating.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Subtracts `other`, saturating; amounts may become negative.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// Returns `self - other`, with 0 in place of negative amounts.
    #[must_use]
    pub fn saturating_difference(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract(other);
        rest.milli_cpu = rest.milli_cpu.max(0);
        rest.memory = rest.memory.max(0);
        rest.ephemeral_storage = rest.ephemeral_storage.max(0);
        rest.pods = rest.pods.max(0);
        rest.scalars.retain(|(_, amount)| *amount > 0);
        rest
    }

    /// Forgets the extended resources beyond the first 64 by name, more than a node has. For the requests of a pod that somebody
    /// else has sent.
    pub fn limit_scalars(&mut self) {
        self.scalars.truncate(MAX_SCALARS);
    }

    /// Returns the amount of an extended resource; 0 if it is not listed.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.iter().find(|(own, _)| &**own == name).map_or(0, |(_, amount)| *amount)
    }

    /// Returns the amount of a resource by its name; 0 if it is not listed.
    pub fn amount(&self, name: &str) -> i64 {
        match name {
            "pods" => self.pods,
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            _ => self.scalar(name),
        }
    }

    /// Returns true if any amount is at a limit of `i64`. A part of such a sum may be lost: subtracting one summand does not give
    /// back the others.
    pub fn is_saturated(&self) -> bool {
        let amounts = [self.milli_cpu, self.memory, self.ephemeral_storage, self.pods];
        let scalars = self.scalars.iter().map(|(_, amount)| *amount);
        amounts.into_iter().chain(scalars).any(|amount| amount == i64::MAX || amount == i64::MIN)
    }

    /// Returns true if every amount is 0, that of pod slots included.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the name of the first resource of which `request` asks more than is free; `self` is the free room. Returns `None` if
    /// the request fits.
    ///
    /// A resource that `request` does not ask for is skipped, because a node may be overcommitted in it (`fitsRequest`).
    pub fn lacks<'a>(&self, request: &'a Self) -> Option<&'a str> {
        let lacks = |asked: i64, free: i64| asked > 0 && asked > free;
        if lacks(request.pods, self.pods) {
            return Some("pods");
        }
        if lacks(request.milli_cpu, self.milli_cpu) {
            return Some("cpu");
        }
        if lacks(request.memory, self.memory) {
            return Some("memory");
        }
        if lacks(request.ephemeral_storage, self.ephemeral_storage) {
            return Some("ephemeral-storage");
        }
        let scalar = request.scalars.iter().find(|(name, asked)| lacks(*asked, self.scalar(name)));
        scalar.map(|(name, _)| &**name)
    }

    /// Returns true if a node with `self` allocatable and `used` taken has room for `request`.
    ///
    /// Decides as [`Resources::lacks`] does with the free room, without computing the difference. Hot: once per node and filter
    /// call.
    pub fn has_room_beside(&self, used: &Self, request: &Self) -> bool {
        let fits = |asked: i64, all: i64, used: i64| asked <= 0 || asked <= all.saturating_sub(used);
        fits(request.milli_cpu, self.milli_cpu, used.milli_cpu)
            && fits(request.memory, self.memory, used.memory)
            && fits(request.ephemeral_storage, self.ephemeral_storage, used.ephemeral_storage)
            && fits(request.pods, self.pods, used.pods)
            && request.scalars.iter().all(|(name, asked)| fits(*asked, self.scalar(name), used.scalar(name)))
    }

    /// Returns true as [`Self::has_room_beside`], without a look at extended resources of which `self` has none: a scheduler may
    /// not count them (`ignoredResources`, `ignoredByScheduler`).
    pub fn has_known_room_beside(&self, used: &Self, request: &Self) -> bool {
        if request.scalars.iter().all(|(name, _)| self.scalar(name) > 0) {
            return self.has_room_beside(used, request);
        }
        let mut known = request.clone();
        known.scalars.retain(|(name, _)| self.scalar(name) > 0);
        self.has_room_beside(used, &known)
    }

    /// Returns true if `self` has more than 0 of any resource that `request` asks for, pod slots aside.
    pub fn has_some_of(&self, request: &Self) -> bool {
        let has_some = |asked: i64, own: i64| asked > 0 && own > 0;
        has_some(request.milli_cpu, self.milli_cpu)
            || has_some(request.memory, self.memory)
            || has_some(request.ephemeral_storage, self.ephemeral_storage)
            || request.scalars.iter().any(|(name, asked)| has_some(*asked, self.scalar(name)))
    }

    /// Lowers each amount that is above `most` to it. Negative amounts become 0.
    pub fn cap(&mut self, most: i64) {
        for amount in [&mut self.milli_cpu, &mut self.memory, &mut self.ephemeral_storage, &mut self.pods] {
            *amount = (*amount).clamp(0, most);
        }
        self.scalars.iter_mut().for_each(|(_, amount)| *amount = (*amount).clamp(0, most));
        self.scalars.retain(|(_, amount)| *amount != 0);
    }

    fn combine(&mut self, other: &Self, operation: fn(i64, i64) -> i64) {
        self.milli_cpu = operation(self.milli_cpu, other.milli_cpu);
        self.memory = operation(self.memory, other.memory);
        self.ephemeral_storage = operation(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = operation(self.pods, other.pods);
        for (name, amount) in &other.scalars {
            self.add_scalar(name.clone(), operation(0, *amount));
        }
    }

    fn add_scalar(&mut self, name: Arc<str>, amount: i64) {
        match self.scalars.binary_search_by(|(own, _)| own.cmp(&name)) {
            Ok(at) => {
                self.scalars[at].1 = self.scalars[at].1.saturating_add(amount);
                if self.scalars[at].1 == 0 {
                    self.scalars.remove(at);
                }
            }
            Err(at) if amount != 0 => self.scalars.insert(at, (name, amount)),
            Err(_) => {}
        }
    }
}

/// Returns true if the scheduler counts resources of this name as scalars (`schedutil.IsScalarResourceName`): those whose names
/// have a domain, huge pages and attachable volumes.
fn is_scalar(name: &str) -> bool {
    name.contains('/') || name.starts_with("hugepages-") || name.starts_with("attachable-volumes-")
}

/// Returns the resources that a pod takes of its node, one pod slot included.
///
/// While a pod is resized in place, the largest of three amounts counts for each resource: that of the spec, the allocated and the
/// actuated. The amount of the spec does not count once the kubelet has called the resize infeasible.
pub fn pod_requests(pod: &Pod) -> Resources {
    requests(&pod.spec, &pod.status)
}

/// Returns the requests of a pod of this template, one pod slot included. Call [`default_pod_spec`] on the template first, or
/// defaults of the cluster are missing.
pub fn template_requests(spec: &PodSpec) -> Resources {
    requests(spec, &PodStatus::default())
}

fn requests(spec: &PodSpec, status: &PodStatus) -> Resources {
    let infeasible = resize_is_infeasible(status);
    let mut total = Amounts::default();
    let statuses = StatusByName::of(&status.container_statuses);
    for container in &spec.containers {
        total.add(&container_requests(container, &statuses, infeasible));
    }
    // Init containers run one after the other, each beside the sidecars that started before it.
    let mut sidecars = Amounts::default();
    let mut initializing = Amounts::default();
    let statuses = StatusByName::of(&status.init_container_statuses);
    for container in &spec.init_containers {
        if container.is_sidecar() {
            let asked = container_requests(container, &statuses, infeasible);
            total.add(&asked);
            sidecars.add(&asked);
            // The amounts of other names have not changed: comparing all would take the square of their number.
            initializing.raise_to_sums(&sidecars, &Amounts::default(), asked.0.keys().copied());
        } else {
            let asked = Amounts::of(&container.resources.requests);
            initializing.raise_to_sums(&sidecars, &asked, asked.0.keys().copied());
        }
    }
    total.raise_to(&initializing);
    total.replace_with_pod_level(spec, status, infeasible);
    total.add(&Amounts::of(&spec.overhead));

    let mut resources = Resources::from_amounts(total.0.iter().map(|(name, amount)| (*name, *amount)));
    resources.pods = 1;
    resources
}

/// The statuses of containers. Those of many are found by a map: one by one, the search would take the square of their number.
enum StatusByName<'p> {
    Few(&'p [ContainerStatus]),
    Many(BTreeMap<&'p str, &'p ContainerStatus>),
}

impl<'p> StatusByName<'p> {
    /// The number of statuses from which a map is faster.
    const MANY: usize = 32;

    fn of(statuses: &'p [ContainerStatus]) -> Self {
        if statuses.len() < Self::MANY {
            return Self::Few(statuses);
        }
        // The first of a name counts, so it is inserted last.
        Self::Many(statuses.iter().rev().map(|status| (status.name.as_str(), status)).collect())
    }

    fn get(&self, name: &str) -> Option<&'p ContainerStatus> {
        match self {
            Self::Few(statuses) => statuses.iter().find(|status| status.name == name),
            Self::Many(statuses) => statuses.get(name).copied(),
        }
    }
}

fn container_requests<'p>(
    container: &'p Container,
    statuses: &StatusByName<'p>,
    infeasible: bool,
) -> Amounts<'p> {
    let status = statuses.get(&container.name);
    match status.and_then(|status| status.resources.as_ref().map(|actuated| (status, actuated))) {
        None => Amounts::of(&container.resources.requests),
        Some((status, actuated)) => effective_requests(
            &container.resources.requests,
            &actuated.requests,
            &status.allocated_resources,
            infeasible,
        ),
    }
}

/// Returns the largest request of each resource (`determineEffectiveRequests` upstream). Those of `spec` do not count if the resize
/// is infeasible.
fn effective_requests<'p>(
    spec: &'p ResourceList,
    actuated: &'p ResourceList,
    allocated: &'p ResourceList,
    infeasible: bool,
) -> Amounts<'p> {
    let mut largest = Amounts::of(actuated);
    largest.raise_to(&Amounts::of(allocated));
    if !infeasible {
        largest.raise_to(&Amounts::of(spec));
    }
    largest
}

/// Returns true if the kubelet has called the resize infeasible (`IsPodResizeInfeasible` upstream).
fn resize_is_infeasible(status: &PodStatus) -> bool {
    let pending = status.conditions.iter().find(|condition| condition.kind == "PodResizePending");
    pending.is_some_and(|condition| condition.reason == "Infeasible")
}

/// Exact amounts by name: as upstream, only the sum is rounded.
#[derive(Debug, Clone, Default)]
struct Amounts<'p>(BTreeMap<&'p str, Quantity>);

impl<'p> Amounts<'p> {
    /// The apiserver refuses a negative amount, and a forged one must not make room.
    fn of(list: &'p ResourceList) -> Self {
        let amount = |amount: &Quantity| (*amount).max(Quantity::default());
        Self(list.iter().map(|(name, own)| (name.as_str(), amount(own))).collect())
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let own = self.0.entry(name).or_default();
            *own = own.plus(*amount);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let own = self.0.entry(name).or_insert(*amount);
            *own = (*own).max(*amount);
        }
    }

    /// Raises the amounts of `names` to the sums of two others.
    fn raise_to_sums(&mut self, a: &Self, b: &Self, names: impl Iterator<Item = &'p str>) {
        for name in names {
            let amount = |amounts: &Self| amounts.0.get(name).copied().unwrap_or_default();
            let sum = amount(a).plus(amount(b));
            let own = self.0.entry(name).or_insert(sum);
            *own = (*own).max(sum);
        }
    }

    /// Puts pod-level requests, where the pod has them, in the place of the sums of its containers.
    fn replace_with_pod_level(&mut self, spec: &'p PodSpec, status: &'p PodStatus, infeasible: bool) {
        let asked = &spec.resources.requests;
        let effective = status.resources.as_ref().map(|actuated| {
            effective_requests(asked, &actuated.requests, &status.allocated_resources, infeasible)
        });
        for (name, amount) in asked.iter().filter(|(name, _)| is_pod_level(name)) {
            let amount =
                effective.as_ref().and_then(|effective| effective.0.get(name.as_str())).unwrap_or(amount);
            self.0.insert(name, (*amount).max(Quantity::default()));
        }
    }
}

/// Returns true if a pod may have pod-level requests of the resource (`IsSupportedPodLevelResource` upstream).
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Adds to a template the defaults that the apiserver gives only to pods, so that the template has the demand of its pods: requests
/// from limits, the defaults of LimitRanges, the overhead of the RuntimeClass (`None` without one), and with `hostNetwork` a host
/// port for each port.
///
/// After pkg/apis/core/v1/defaults.go (`SetDefaults_Pod`, `defaultHostNetworkPorts`), plugin/pkg/admission/limitranger
/// and plugin/pkg/admission/runtimeclass.
pub fn default_pod_spec(
    spec: &mut PodSpec,
    limit_range_defaults: &ResourceRequirements,
    overhead: Option<&ResourceList>,
) {
    for container in spec.containers.iter_mut().chain(&mut spec.init_containers) {
        requests_from_limits(&mut container.resources);
        // LimitRanger runs after the API's own defaults and sets only amounts that are still absent.
        let ResourceRequirements { requests, limits } = &mut container.resources;
        fill(limits, &limit_range_defaults.limits);
        fill(requests, &limit_range_defaults.requests);
    }
    if !spec.resources.limits.is_empty() {
        requests_from_limits(&mut spec.resources);
    }
    if let Some(overhead) = overhead {
        spec.overhead.clone_from(overhead);
    }
    if spec.host_network {
        let containers = spec.containers.iter_mut().chain(&mut spec.init_containers);
        for port in containers.flat_map(|container| &mut container.ports).filter(|port| port.host_port == 0) {
            port.host_port = port.container_port;
        }
    }
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    fill(&mut resources.requests, &resources.limits);
}

fn fill(list: &mut ResourceList, defaults: &ResourceList) {
    for (name, amount) in defaults {
        list.entry(name.clone()).or_insert(*amount);
    }
}

#[cfg(test)]
mod tests;
