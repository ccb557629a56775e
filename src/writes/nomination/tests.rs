//! Nominations written to a small apiserver with given answers.

use std::sync::Mutex;

use axum::http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// The received requests, as method, path and body.
type Seen = Arc<Mutex<Vec<(String, String, Value)>>>;
/// The results, in short.
type Results = Arc<Mutex<Vec<String>>>;

fn nomination(name: &str) -> Nomination {
    Nomination {
        namespace: "kube-system".into(),
        name: name.into(),
        uid: "uid".into(),
        resource_version: "7".into(),
        node: Some("n1".into()),
    }
}

/// Answers patches with `status`, and access reviews with `permitted` in turn, the last one again and again. Returns the requests,
/// the results and the metrics.
async fn run_with(
    status: u16,
    permitted: &[bool],
    names: &[&str],
) -> (Vec<(String, String, Value)>, Vec<String>, Metrics) {
    let (seen, results): (Seen, Results) = Default::default();
    let turns = Arc::new(Mutex::new(permitted.to_vec()));
    let server = {
        let seen = seen.clone();
        tower::service_fn(move |request: Request<Body>| {
            let (seen, turns) = (seen.clone(), turns.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = if head.uri.path().contains("selfsubjectaccessreviews") {
                    let mut turns = turns.lock().expect("no panic");
                    let allowed = if turns.len() > 1 { turns.remove(0) } else { turns[0] };
                    (201, json!({ "spec": {}, "status": { "allowed": allowed } }))
                } else if status == 200 {
                    (200, json!({ "metadata": { "name": "p", "resourceVersion": "8" } }))
                } else {
                    (
                        status,
                        json!({ "kind": "Status", "status": "Failure", "code": status, "message": "no", "reason": "" }),
                    )
                };
                let mut seen = seen.lock().expect("no panic");
                seen.push((head.method.to_string(), head.uri.path().to_owned(), body));
                let answer =
                    Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(answer.expect("an answer"))
            }
        })
    };
    let metrics = Arc::new(Metrics::default());
    let on_result: NominationCallback = {
        let results = results.clone();
        Box::new(move |result| {
            let short = match result {
                NominationResult::Permitted(is_permitted) => format!("permitted {is_permitted}"),
                NominationResult::Done(nomination, outcome) => format!("{} {outcome:?}", nomination.name),
            };
            results.lock().expect("no panic").push(short);
        })
    };
    let (sender, writes) = mpsc::channel(16);
    for name in names {
        sender.send(nomination(name)).await.expect("room");
    }
    drop(sender);
    let client = Client::new(server, "default");
    // It ends by itself, except without the permission: then it waits for a minute once all are answered.
    let all_are_answered = async {
        let waits = |results: &[String]| {
            let answered = results.iter().filter(|result| !result.starts_with("permitted")).count();
            answered == names.len() && results.iter().any(|result| result == "permitted false")
        };
        while !waits(&results.lock().expect("no panic")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = run(client, writes, on_result, metrics.clone()) => {}
        () = all_are_answered => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("still running: {results:?}"),
    }
    let seen = std::mem::take(&mut *seen.lock().expect("no panic"));
    let results = std::mem::take(&mut *results.lock().expect("no panic"));
    (seen, results, Arc::into_inner(metrics).expect("it has ended"))
}

fn count(metrics: &Metrics, outcome: &str) -> bool {
    let line =
        format!("daemonset_warden_cluster_writes_total{{kind=\"nomination\",outcome=\"{outcome}\"}} 1");
    String::from_utf8(metrics.text()).expect("text").contains(&line)
}

#[tokio::test]
async fn a_patch_names_the_pods_uid_and_version() {
    let (seen, results, metrics) = run_with(200, &[true], &["p"]).await;
    let (method, path, body) = &seen[1];
    assert_eq!((method.as_str(), path.as_str()), ("PATCH", "/api/v1/namespaces/kube-system/pods/p/status"));
    let expected = json!({
        "metadata": { "uid": "uid", "resourceVersion": "7" },
        "status": { "nominatedNodeName": "n1" },
    });
    assert_eq!(*body, expected);
    assert_eq!(results, ["permitted true", "p Written { resource_version: \"8\" }"]);
    assert!(count(&metrics, "done"));
    let cleared = Nomination { node: None, ..nomination("p") };
    assert_eq!(cleared.patch()["status"], json!({ "nominatedNodeName": null }));
}

#[tokio::test]
async fn each_status_has_its_outcome() {
    for (status, outcome, counted) in [
        (404, "Outdated", "outdated"),
        (409, "Outdated", "outdated"),
        (400, "Refused", "failed"),
        (422, "Refused", "failed"),
        (500, "Unknown", "failed"),
    ] {
        let (_, results, metrics) = run_with(status, &[true], &["p"]).await;
        assert_eq!(results, ["permitted true".to_owned(), format!("p {outcome}")], "{status}");
        assert!(count(&metrics, counted), "{status}");
    }
}

/// Eight patches run when the first 403 comes: each gets a result, and so do the nominations that are left in the queue.
#[tokio::test]
async fn one_that_is_forbidden_takes_no_other_with_it() {
    let names: Vec<String> = (0..12).map(|number| format!("p{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_, results, _) = run_with(403, &[true], &names).await;
    let refused = results.iter().filter(|result| result.ends_with("Refused")).count();
    assert_eq!(refused, 12, "a policy refuses each, and the right is there: {results:?}");

    let (seen, results, metrics) = run_with(403, &[true, false], &names).await;
    let patches = seen.iter().filter(|(method, ..)| method == "PATCH").count();
    assert!(patches < 12, "{patches}");
    let answered = results.iter().filter(|result| !result.starts_with("permitted")).count();
    assert_eq!(answered, 12, "what is not written any more is answered as well: {results:?}");
    assert_eq!(
        results.iter().find(|result| *result == "permitted false").map(String::as_str),
        Some("permitted false")
    );
    assert_eq!(metrics.cluster.nomination_permitted.get(), 0);
}

#[tokio::test]
async fn without_the_permission_nothing_is_patched() {
    let (seen, results, metrics) = run_with(200, &[false], &["p"]).await;
    assert!(seen.iter().all(|(method, ..)| method == "POST"), "{seen:?}");
    assert_eq!(results, ["permitted false", "p Unknown"]);
    assert_eq!(metrics.cluster.nomination_permitted.get(), 0);
}
