//! `host-port-surge`: maxSurge with ports of the host.
//!
//! While a rolling update surges, the old and the new pod of a node run side by side; with the same host port they
//! exclude each other, the new pod stays Pending, and the old one is not stopped before the new one is ready. Use
//! maxUnavailable.
//!
//! Source: kubernetes v1.36.3 pkg/scheduler/framework/plugins/nodeports/node_ports.go (`Fits`),
//! pkg/controller/daemon/update.go (`rollingUpdate`).

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, Path};
use crate::api::pod::PodSpec;
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "host-port-surge",
    default: Level::Warn,
    what: "maxSurge with ports of the host",
    why: "While a rolling update surges, the old and the new pod of a node run side by side; with the same host port they exclude each other, the new pod stays Pending, and the old one is not stopped before the new one is ready. Use maxUnavailable.",
    source: "pkg/scheduler/framework/plugins/nodeports/node_ports.go (`Fits`), pkg/controller/daemon/update.go (`rollingUpdate`)",
    check,
};

fn check(daemon_set: &DaemonSet) -> Vec<Error> {
    if !daemon_set.spec.uses_surge() {
        return Vec::new();
    }
    let Some((container, port)) = first_host_port(&daemon_set.spec.template.spec) else { return Vec::new() };
    let strategy = daemon_set.spec.update_strategy().unwrap_or_default();
    let surge = strategy.rolling_update.and_then(|rolling_update| rolling_update.max_surge);
    let path = Path::new("spec.updateStrategy.rollingUpdate.maxSurge");
    let detail = format!(
        "container {container:?} takes port {port} of the host, so the old and the new pod exclude each other; use maxUnavailable"
    );
    vec![Error::invalid(path, &surge, detail)]
}

/// A container that runs as long as the pod and a port of the host that it takes. On the host's network every port is one; the
/// apiserver writes that into pods only (pkg/apis/core/v1/defaults.go `defaultHostNetworkPorts`).
fn first_host_port(spec: &PodSpec) -> Option<(&str, i32)> {
    let sidecars = spec.init_containers.iter().filter(|container| container.is_sidecar());
    spec.containers.iter().chain(sidecars).find_map(|container| {
        let ports = container.ports.iter();
        let mut ports =
            ports.map(|port| if spec.host_network { port.container_port } else { port.host_port });
        ports.find(|port| *port != 0).map(|port| (container.name.as_str(), port))
    })
}
