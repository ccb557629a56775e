//! The resources that a node has too little of for a pod, as amounts and in words.

use std::fmt;

use crate::scheduling::resources::Resources;

/// A resource of which a node has too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage<'a> {
    /// The name of the resource.
    pub resource: &'a str,
    /// The amount that the pod asks for, in the scheduler's units: thousandths for `cpu`, bytes, or whole units.
    pub asked: i64,
    /// The free amount, in the scheduler's units; negative on an overcommitted node.
    pub free: i64,
    /// The node's allocatable amount, in the scheduler's units.
    pub all: i64,
}

impl Shortage<'_> {
    /// Returns the amount that would have to become free, in the scheduler's units.
    pub fn missing(&self) -> i64 {
        self.asked.saturating_sub(self.free)
    }

    /// Formats an amount of this resource, in the scheduler's units, as Kubernetes writes it.
    pub fn amount(&self, amount: i64) -> String {
        format_amount(self.resource, amount)
    }
}

impl fmt::Display for Shortage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, asked, free, all } = *self;
        let amount = |amount| format_amount(resource, amount);
        write!(f, "{resource}: asks {}, {} of {} free", amount(asked), amount(free), amount(all))
    }
}

/// Returns every resource of which `request` asks more than is `free`, in the scheduler's order; an empty list if the request fits.
/// `all` is the node's allocatable.
///
/// [`Resources::lacks`] returns only the first of them, and is cheaper.
pub fn shortages<'a>(request: &'a Resources, free: &Resources, all: &Resources) -> Vec<Shortage<'a>> {
    let fixed = [
        ("pods", request.pods, free.pods, all.pods),
        ("cpu", request.milli_cpu, free.milli_cpu, all.milli_cpu),
        ("memory", request.memory, free.memory, all.memory),
        ("ephemeral-storage", request.ephemeral_storage, free.ephemeral_storage, all.ephemeral_storage),
    ];
    let scalars =
        request.scalars.iter().map(|(name, asked)| (&**name, *asked, free.scalar(name), all.scalar(name)));
    let lacks = |(_, asked, free, _): &(&str, i64, i64, i64)| *asked > 0 && asked > free;
    fixed
        .into_iter()
        .chain(scalars)
        .filter(lacks)
        .map(|(resource, asked, free, all)| Shortage { resource, asked, free, all })
        .collect()
}

/// Returns the amount of a resource by its name, in the scheduler's units; 0 for a resource that is not listed.
pub fn amount_of(resources: &Resources, resource: &str) -> i64 {
    match resource {
        "pods" => resources.pods,
        "cpu" => resources.milli_cpu,
        "memory" => resources.memory,
        "ephemeral-storage" => resources.ephemeral_storage,
        _ => resources.scalar(resource),
    }
}

/// Formats an amount in the scheduler's units as Kubernetes writes it, with the largest suffix by which it is exact.
fn format_amount(resource: &str, amount: i64) -> String {
    if resource == "cpu" {
        return if amount % 1000 == 0 { format!("{}", amount / 1000) } else { format!("{amount}m") };
    }
    let is_bytes = matches!(resource, "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    let suffixes = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let fits = |(_, shift): &&(&str, u32)| is_bytes && amount != 0 && amount % (1_i64 << shift) == 0;
    match suffixes.iter().find(fits) {
        Some((suffix, shift)) => format!("{}{suffix}", amount >> shift),
        None => format!("{amount}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_kubernetes_writes_them() {
        let cases = [
            ("cpu", 300, "300m"),
            ("cpu", 4000, "4"),
            ("cpu", -50, "-50m"),
            ("memory", 0, "0"),
            ("memory", 512 << 20, "512Mi"),
            ("memory", -(3 << 30), "-3Gi"),
            ("memory", 1000, "1000"),
            ("pods", 1024, "1024"),
            ("example.com/gpu", 2, "2"),
        ];
        for (resource, amount, text) in cases {
            assert_eq!(format_amount(resource, amount), text);
        }
    }

    #[test]
    fn every_shortage_is_found_and_none_where_nothing_is_asked() {
        let gpus = |count| vec![("example.com/gpu".into(), count)];
        let request = Resources { milli_cpu: 300, pods: 1, scalars: gpus(2), ..Resources::default() };
        let free =
            Resources { milli_cpu: 100, memory: -5, pods: 1, scalars: gpus(1), ..Resources::default() };
        let all = Resources { milli_cpu: 4000, pods: 110, scalars: gpus(4), ..Resources::default() };
        let texts: Vec<String> = shortages(&request, &free, &all).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["cpu: asks 300m, 100m of 4 free", "example.com/gpu: asks 2, 1 of 4 free"]);
        assert_eq!(free.lacks(&request), Some("cpu"));
        assert_eq!(shortages(&request, &free, &all)[1].missing(), 1);
    }
}
