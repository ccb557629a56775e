//! Whole, well-formed bodies that take far more memory or time than their length says.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::attacks::{Target, each};
use crate::support::review;

const POD: &str = r#"{"group":"","version":"v1","kind":"Pod"}"#;
const DAEMON_SET: &str = r#"{"group":"apps","version":"v1","kind":"DaemonSet"}"#;

/// The path and the body of a request.
pub(super) type Heavy = (&'static str, String);

/// Returns a list of `item`, `bytes` long.
fn list(item: &str, bytes: usize) -> String {
    format!("[{}{item}]", format!("{item},").repeat(bytes / (item.len() + 1)))
}

fn object(key: &str, value: &str) -> String {
    format!(r#"{{"{key}":{value}}}"#)
}

fn pod_spec(daemon_set: bool, spec: &str) -> String {
    let spec = object("spec", spec);
    if daemon_set { object("spec", &object("template", &spec)) } else { spec }
}

/// Returns reviews of objects that are mostly one list of small items: each takes 40 to 600 times its text.
pub(super) fn lists(bytes: usize) -> Vec<Heavy> {
    let empty = list("{}", bytes);
    let terms = object("nodeSelectorTerms", &empty);
    let affinity = object("nodeAffinity", &object("requiredDuringSchedulingIgnoredDuringExecution", &terms));
    let container = list(r#"{"resources":{"requests":{"":0},"limits":{"":0}}}"#, bytes);
    let mut bodies = Vec::new();
    for (path, kind, is_daemon_set) in [("/validate", DAEMON_SET, true), ("/mutate", POD, false)] {
        let objects = [
            object("metadata", &object("ownerReferences", &empty)),
            object("metadata", &object("managedFields", &empty)),
            object("metadata", &object("finalizers", &list("\"\"", bytes))),
            pod_spec(is_daemon_set, &object("tolerations", &empty)),
            pod_spec(is_daemon_set, &object("containers", &empty)),
            pod_spec(is_daemon_set, &object("containers", &container)),
            pod_spec(is_daemon_set, &object("affinity", &affinity)),
            object("spec", &object("updateStrategy", &object("a", &list(r#"{"":0}"#, bytes)))),
        ];
        bodies.extend(objects.map(|object| (path, review("CREATE", kind, &object, "null"))));
    }
    // An update whose specs differ: they are compared.
    let specs = [r#"{"":0}"#, r#"{"":1}"#].map(|item| object("spec", &object("a", &list(item, bytes / 2))));
    bodies.push(("/validate", review("UPDATE", DAEMON_SET, &specs[0], &specs[1])));
    bodies
}

/// Returns reviews with thousands of faults, each of which could show the whole list.
pub(super) fn faults(bytes: usize) -> Vec<Heavy> {
    let references = list(r#"{"controller":true}"#, bytes);
    let labels: String = (0..bytes / 12).map(|number| format!(r#""!{number}":"!","#)).collect();
    let labels = format!(r#"{{{labels}"a":""}}"#);
    let key = "a".repeat(bytes);
    let objects = [
        object("metadata", &object("ownerReferences", &references)),
        object(
            "metadata",
            &format!(r#"{{"ownerReferences":{references},"finalizers":{}}}"#, list("\"!\"", bytes / 8)),
        ),
        object("metadata", &object("labels", &labels)),
        object("metadata", &object("annotations", &labels)),
        object("metadata", &object("name", &format!("\"{key}\""))),
        pod_spec(true, &object("tolerations", &list("{}", bytes))),
        // A string where an object is expected, of characters that are escaped.
        object("spec", &format!("\"{}\"", "\x7f".repeat(bytes))),
        object("metadata", &object("generation", &format!("\"{}\"", "\x7f".repeat(bytes)))),
    ];
    objects.map(|object| ("/validate", review("CREATE", DAEMON_SET, &object, "null"))).into()
}

fn daemon_pod(target: &str, spec: &str) -> String {
    let owner =
        r#"{"apiVersion":"apps/v1","kind":"DaemonSet","name":"agent","uid":"agent","controller":true}"#;
    format!(
        r#"{{"metadata":{{"name":"a","namespace":"default","uid":"heavy","labels":{{"app":"agent"}},"ownerReferences":[{owner}]}},"spec":{{"nodeName":"{target}"{spec}}}}}"#
    )
}

/// Returns calls of the scheduler that name one node `count` times, or that have a pod with `count` small parts.
pub(super) fn calls(count: usize, node: &str) -> Vec<Heavy> {
    let names = format!("[{}\"{node}\"]", format!("\"{node}\",").repeat(count - 1));
    let numbered = |item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let resources = |amount: &str| {
        let requests = numbered(&|number| format!(r#""x.io/{number}":"{amount}""#));
        format!(r#","containers":[{{"resources":{{"requests":{{{requests}}}}}}}]"#)
    };
    let statuses = numbered(&|number| format!(r#"{{"name":"c{number}","resources":{{}}}}"#));
    let containers = numbered(&|number| format!(r#"{{"name":"c{number}"}}"#));
    let sidecars = numbered(&|number| {
        format!(r#"{{"restartPolicy":"Always","resources":{{"requests":{{"x.io/{number}":1}}}}}}"#)
    });
    let ports = numbered(&|number| {
        format!(r#"{{"hostPort":{},"hostIP":"10.0.{}.1"}}"#, 1 + number % 60_000, number % 250)
    });
    let requirement = r#"{"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}"#;
    let terms = numbered(&|_| requirement.to_owned());
    let affinity = format!(
        r#","affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{terms}]}}}}}}"#
    );
    let ordinary = |spec: &str| {
        format!(
            r#"{{"metadata":{{"name":"p","namespace":"default","uid":"heavy"}},"spec":{{"priority":0{spec}}}}}"#
        )
    };
    let pods = [
        ordinary(&resources("1")),
        ordinary(&resources("-1")),
        ordinary(&format!(r#","initContainers":[{sidecars}]"#)),
        ordinary(&format!(r#","containers":[{{"ports":[{ports}]}}]"#)),
        format!(
            r#"{{"metadata":{{"uid":"heavy"}},"spec":{{"containers":[{containers}]}},"status":{{"containerStatuses":[{statuses}]}}}}"#
        ),
        daemon_pod(node, &affinity),
    ];
    let whole = format!(r#"{{"metadata":{{"name":"{node}","labels":{{"a":"c"}}}}}}"#);
    let items = format!("[{}{whole}]", format!("{whole},").repeat(count / 4));
    let mut bodies = Vec::new();
    for pod in &pods {
        bodies.push(("/scheduler/filter", format!(r#"{{"Pod":{pod},"NodeNames":{names}}}"#)));
        bodies.push(("/scheduler/filter", format!(r#"{{"Pod":{pod},"NodeNames":["{node}"]}}"#)));
        bodies.push(("/scheduler/filter", format!(r#"{{"Pod":{pod},"Nodes":{{"items":{items}}}}}"#)));
    }
    let victims = format!("[{}{{\"UID\":\"v\"}}]", r#"{"UID":"v"},"#.repeat(count - 1));
    bodies.push((
        "/scheduler/preempt",
        format!(r#"{{"Pod":{},"NodeNameToMetaVictims":{{"{node}":{{"Pods":{victims}}}}}}}"#, pods[0]),
    ));
    let candidates = numbered(&|number| format!(r#""n{number}":null"#));
    bodies.push((
        "/scheduler/preempt",
        format!(r#"{{"Pod":{},"NodeNameToMetaVictims":{{{candidates}}}}}"#, pods[0]),
    ));
    bodies
}

/// Clients that send these bodies in turn and read the answers.
pub(super) fn send(target: &Target, count: usize, bodies: Vec<Heavy>) -> JoinSet<()> {
    let requests: Arc<Vec<String>> = Arc::new(
        bodies
            .into_iter()
            .map(|(path, body)| {
                format!(
                    "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
            })
            .collect(),
    );
    each(target, count, move |number, target: Target| {
        let requests = requests.clone();
        async move {
            for turn in 0..requests.len() {
                let mut stream = target.stream(&target.http1()).await?;
                let request = &requests[(number + turn) % requests.len()];
                // The server may have answered before it has read all.
                let _ = stream.write_all(request.as_bytes()).await;
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
            }
            Ok(())
        }
    })
}
