//! Templates whose pods cannot exist or cannot be scheduled, and one that is in order.

use serde_json::{Value, json};

use crate::harness::POOL;

/// A claim that exists and that nothing provisions.
pub(super) const UNBOUND_CLAIM: &str = "unbound";

/// The kinds of templates. The namespace's quota is 1 CPU and twenty pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Template {
    StatesAPriority,
    BeyondTheQuota,
    NoSuchClass,
    NoSuchAccount,
    Gated,
    MissingClaim,
    UnboundClaim,
    BesideNobody,
    OtherScheduler,
    ManyPorts,
    /// One that runs.
    Runs,
}

impl Template {
    pub(super) const ALL: [Self; 11] = [
        Self::StatesAPriority,
        Self::BeyondTheQuota,
        Self::NoSuchClass,
        Self::NoSuchAccount,
        Self::Gated,
        Self::MissingClaim,
        Self::UnboundClaim,
        Self::BesideNobody,
        Self::OtherScheduler,
        Self::ManyPorts,
        Self::Runs,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StatesAPriority => "states-a-priority",
            Self::BeyondTheQuota => "beyond-the-quota",
            Self::NoSuchClass => "no-such-class",
            Self::NoSuchAccount => "no-such-account",
            Self::Gated => "gated",
            Self::MissingClaim => "missing-claim",
            Self::UnboundClaim => "unbound-claim",
            Self::BesideNobody => "beside-nobody",
            Self::OtherScheduler => "other-scheduler",
            Self::ManyPorts => "many-ports",
            Self::Runs => "runs",
        }
    }

    /// Returns the name of the DaemonSet for a pool.
    pub(super) fn name_on(self, pool: usize) -> String {
        format!("{}-{pool}", self.name())
    }

    /// Returns the change of a DaemonSet. The probe's node has 1.2 CPU and others have 4.
    pub(super) fn change(self, pool: &str, is_probe: bool, scheduler: &str) -> Value {
        let containers = |cpu: &str| {
            let resources = json!({ "requests": { "cpu": cpu } });
            json!([{ "name": "main", "image": "example.test/main:1", "resources": resources }])
        };
        let beyond = if is_probe { "1100m" } else { "3900m" };
        let within = "900m";
        let mut spec = json!({ "nodeSelector": { POOL: pool }, "schedulerName": scheduler });
        let volume = |claim: &str| json!([{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }]);
        let more = match self {
            Self::StatesAPriority => json!({ "priority": 1_999_999_999, "containers": containers(beyond) }),
            Self::BeyondTheQuota => json!({ "containers": containers(beyond) }),
            Self::NoSuchClass => json!({ "priorityClassName": "nobody", "containers": containers(beyond) }),
            Self::NoSuchAccount => {
                json!({ "serviceAccountName": "nobody", "containers": containers(within) })
            }
            Self::Gated => {
                json!({ "schedulingGates": [{ "name": "example.test/gate" }], "containers": containers(within) })
            }
            Self::MissingClaim => json!({ "volumes": volume("missing"), "containers": containers(within) }),
            Self::UnboundClaim => {
                json!({ "volumes": volume(UNBOUND_CLAIM), "containers": containers(within) })
            }
            Self::BesideNobody => json!({
                "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "labelSelector": { "matchLabels": { "nobody": "here" } },
                        "topologyKey": "kubernetes.io/hostname",
                    },
                ] } },
                "containers": containers(within),
            }),
            Self::OtherScheduler => {
                json!({ "schedulerName": format!("{scheduler}-nobody"), "containers": containers(within) })
            }
            Self::ManyPorts => {
                let ports: Vec<Value> =
                    (1..5_000).map(|port| json!({ "containerPort": port, "hostPort": port })).collect();
                let mut containers = containers(beyond);
                containers[0]["ports"] = ports.into();
                json!({ "containers": containers })
            }
            // So little that the probe's pods still fit.
            Self::Runs => json!({ "containers": containers("5m") }),
        };
        json_patch::merge(&mut spec, &more);
        // OnDelete: the controller lets pods be that it has not made.
        json!({ "spec": { "updateStrategy": { "type": "OnDelete" }, "template": { "spec": spec } } })
    }
}
