//! `host-port-surge`: maxSurge with host ports.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::api::pod::PodSpec;
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "host-port-surge",
    default_level: Level::Warn,
    finds: "maxSurge with host ports",
    rationale: "With maxSurge, the old and the new pod of a node run side by side. If both use the same host port, the new pod stays Pending, and the controller does not stop the old pod before the new one is ready. Use maxUnavailable.",
    source: "pkg/scheduler/framework/plugins/nodeports/node_ports.go (`Fits`), pkg/controller/daemon/update.go (`rollingUpdate`)",
    check,
};

fn check(daemon_set: &DaemonSet) -> ErrorList {
    if !daemon_set.spec.uses_surge() {
        return ErrorList::new();
    }
    let Some((container, port)) = first_host_port(&daemon_set.spec.template.spec) else {
        return ErrorList::new();
    };
    let strategy = daemon_set.spec.update_strategy().unwrap_or_default();
    let surge = strategy.rolling_update.and_then(|rolling_update| rolling_update.max_surge);
    let path = Path::new("spec.updateStrategy.rollingUpdate.maxSurge");
    let detail = format!(
        "container {container:?} takes port {port} of the host, so the old and the new pod exclude each other; use maxUnavailable"
    );
    Error::invalid(path, &surge, detail).into()
}

/// Returns the first host port, with its container, among the containers that run as long as the pod. Returns `None` if there is
/// none. With `hostNetwork`, every container port counts, because the apiserver sets `hostPort` in pods only
/// (pkg/apis/core/v1/defaults.go `defaultHostNetworkPorts`).
fn first_host_port(spec: &PodSpec) -> Option<(&str, i32)> {
    let sidecars = spec.init_containers.iter().filter(|container| container.is_sidecar());
    spec.containers.iter().chain(sidecars).find_map(|container| {
        let ports = container.ports.iter();
        let mut ports =
            ports.map(|port| if spec.host_network { port.container_port } else { port.host_port });
        ports.find(|port| *port != 0).map(|port| (container.name.as_str(), port))
    })
}
