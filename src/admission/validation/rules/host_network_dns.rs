//! `host-network-dns`: `hostNetwork` with dnsPolicy ClusterFirst, which is also the default.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "host-network-dns",
    default_level: Level::Warn,
    finds: "`hostNetwork` with dnsPolicy ClusterFirst, which is also the default",
    rationale: "A pod on its node's network cannot use ClusterFirst: the kubelet falls back to the node's own resolver, and names of Services are not found. Use ClusterFirstWithHostNet, or Default if the node's resolver is intended.",
    source: "pkg/kubelet/network/dns/dns.go (`getPodDNSType`)",
    check,
};

const DETAIL: &str =
    "with hostNetwork it falls back to the node's resolver; use ClusterFirstWithHostNet, or say Default";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    let spec = &daemon_set.spec.template.spec;
    if !spec.host_network || !matches!(spec.dns_policy.as_str(), "" | "ClusterFirst") {
        return ErrorList::new();
    }
    let path = Path::new("spec.template.spec.dnsPolicy");
    Error::invalid(path, &"ClusterFirst", DETAIL).into()
}
