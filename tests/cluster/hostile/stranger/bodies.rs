//! Bodies that did harm once, or are of the kind that does.

use serde_json::{Map, Value, json};

use crate::hostile::door::{Door, forged_pod};

/// The length of a long name: what a body of 8 MiB may hold and an object of etcd may not.
const LONG: usize = 3 * 1024 * 1024;

/// The UID of the pod in each body, to be replaced: another one is another pod.
pub(super) const UID: &str = "uid-of-the-pod";

/// The kinds of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// 2,000 faulty references, in 40 KB: each fault printed all of them.
    References,
    /// 500,000 empty containers.
    Lists,
    /// A node selector with one value of megabytes.
    LongSelector,
    /// Keys of 65,535 bytes, below the length from which a string is counted.
    LongKeys,
    /// 1,200 terms with a faulty key, in 61 KB: judged on the thread of a connection.
    FaultyTerms,
    /// A name of megabytes in an object, escaped.
    LongName,
    /// A node that is named 50,000 times for a pod with 20,000 negative resources.
    Repeated,
    /// A pod with 20,000 terms for 5,000 nodes.
    Terms,
    /// A node's name of megabytes, escaped.
    LongNode,
    /// A preemption without candidates.
    Preemption,
    /// A preemption with a victim whose UID has megabytes.
    LongVictim,
    /// New UIDs, each of which is remembered for a while.
    NewPods,
    /// No JSON.
    Rubbish,
}

impl Body {
    pub(super) const ALL: [Self; 13] = [
        Self::References,
        Self::Lists,
        Self::LongSelector,
        Self::LongKeys,
        Self::FaultyTerms,
        Self::LongName,
        Self::Repeated,
        Self::Terms,
        Self::LongNode,
        Self::Preemption,
        Self::LongVictim,
        Self::NewPods,
        Self::Rubbish,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::References => "references",
            Self::Lists => "lists of nothing",
            Self::LongSelector => "a long selector",
            Self::LongKeys => "long keys",
            Self::FaultyTerms => "faulty terms",
            Self::LongName => "a long name",
            Self::Repeated => "one node, named often",
            Self::Terms => "many terms",
            Self::LongNode => "a long node name",
            Self::Preemption => "a preemption",
            Self::LongVictim => "a long victim",
            Self::NewPods => "new pods",
            Self::Rubbish => "rubbish",
        }
    }

    /// Returns true if an answer with this status means that the body was read. One that was shed was not.
    pub(super) fn is_read(self, status: u16) -> bool {
        match self {
            Self::Rubbish => status == 400,
            Self::LongName | Self::LongNode | Self::LongVictim => matches!(status, 200 | 400 | 413),
            _ => matches!(status, 200 | 413),
        }
    }

    /// Returns the path and the body.
    pub(super) fn request(self) -> (Self, &'static str, String) {
        let (path, body) = self.write();
        (self, path, body)
    }

    fn write(self) -> (&'static str, String) {
        // Each byte is escaped, so that it has to be decoded.
        let escaped = || "\\u0061".repeat(LONG / 6);
        match self {
            Self::References => {
                let references = vec![json!({}); 2_000];
                let metadata = json!({ "name": "d", "namespace": "n", "ownerReferences": references });
                ("/validate", review(&json!({ "metadata": metadata })))
            }
            Self::Lists => {
                ("/validate", review(&template(&json!({ "containers": vec![json!({}); 500_000] }))))
            }
            Self::LongSelector => {
                ("/validate", review(&template(&json!({ "nodeSelector": { "a": "x".repeat(LONG) } }))))
            }
            Self::LongKeys => {
                let key = json!({ "key": "a".repeat(65_535), "operator": "Exists" });
                let terms = vec![json!({ "matchExpressions": [key] }); 40];
                ("/validate", review(&template(&json!({ "affinity": affinity(&terms) }))))
            }
            Self::FaultyTerms => {
                let term = json!({ "matchExpressions": [{ "key": "!", "operator": "Exists" }] });
                ("/validate", review(&template(&json!({ "affinity": affinity(&vec![term; 1_200]) }))))
            }
            Self::LongName => {
                let object = json!({ "metadata": { "name": "LONG", "namespace": "n" } });
                ("/validate", review(&object).replace("LONG", &escaped()))
            }
            Self::Repeated => {
                let mut pod = forged_pod(UID, "1");
                let amounts: Map<_, _> =
                    (0..20_000).map(|name| (format!("example.com/r{name}"), json!("-1"))).collect();
                pod["spec"]["containers"][0]["resources"]["requests"] = amounts.into();
                asked(&pod, &vec!["node-1".to_owned(); 50_000])
            }
            Self::Terms => {
                let mut pod = forged_pod(UID, "1");
                let term = json!({ "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }] });
                pod["spec"]["affinity"] = affinity(&vec![term; 20_000]);
                asked(&pod, &names(5_000))
            }
            Self::LongNode => {
                let (path, body) = asked(&forged_pod(UID, "1"), &["LONG".to_owned()]);
                (path, body.replace("LONG", &escaped()))
            }
            Self::Preemption => {
                let body = json!({ "Pod": { "metadata": { "uid": UID } }, "NodeNameToMetaVictims": {} });
                ("/scheduler/preempt", body.to_string())
            }
            Self::LongVictim => {
                let victims = json!({ "node-1": { "Pods": [{ "UID": "LONG" }] } });
                let body = json!({ "Pod": { "metadata": { "uid": UID } }, "NodeNameToMetaVictims": victims });
                ("/scheduler/preempt", body.to_string().replace("LONG", &escaped()))
            }
            Self::NewPods => asked(&forged_pod(UID, "100m"), &names(500)),
            Self::Rubbish => (Door::Filter.path(), format!("{{\"Pod\":{}", "[".repeat(100_000))),
        }
    }
}

fn asked(pod: &Value, nodes: &[String]) -> (&'static str, String) {
    (Door::Filter.path(), Door::Filter.bodies(pod, nodes).swap_remove(0))
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|node| format!("node-{node}")).collect()
}

fn affinity(terms: &[Value]) -> Value {
    let required = json!({ "nodeSelectorTerms": terms });
    json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } })
}

fn template(spec: &Value) -> Value {
    json!({ "metadata": { "name": "d", "namespace": "n" }, "spec": { "template": { "spec": spec } } })
}

fn review(object: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "CREATE", "kind": { "group": "apps", "version": "v1", "kind": "DaemonSet" },
            "resource": { "group": "apps", "version": "v1", "resource": "daemonsets" }, "object": object,
        },
    })
    .to_string()
}
