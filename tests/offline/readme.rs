//! The README's curl examples, and the responses that it shows.

use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use daemonset_warden::policy::Policy;
use daemonset_warden::server::http::limits::Limits;
use daemonset_warden::server::{AppState, router};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

#[tokio::test]
async fn the_answers_are_those_of_the_readme() {
    let readme = include_str!("../../README.md");
    let examples: Vec<&str> = readme.split("```sh\ncurl ").skip(1).collect();
    assert_eq!(examples.len(), 3, "a denial, a patch and a filter answer");
    for example in examples {
        let (command, rest) = example.split_once("\n```\n```json\n").expect("an answer after each command");
        let (expected, _) = rest.split_once("\n```").expect("an end");
        let path =
            command.split("127.0.0.1:8443").nth(1).and_then(|rest| rest.split(' ').next()).expect("a URL");
        let body = command.split('\'').nth(1).expect("a body").to_owned();
        let answer = post(path, body).await;
        let expected: Value =
            serde_json::from_str(expected).unwrap_or_else(|error| panic!("{error}: {expected}"));
        assert_eq!(in_the_clear(answer), expected, "{path}");
    }
}

async fn post(path: &str, body: String) -> Value {
    let state = AppState::new(Policy::default(), Limits::default(), false);
    let request = Request::post(path).body(Body::from(body)).unwrap();
    let response = router(state).oneshot(request).await.unwrap();
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// Returns the decoded patch of a response that has one, else the response.
fn in_the_clear(answer: Value) -> Value {
    match answer["response"]["patch"].as_str() {
        Some(patch) => serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap(),
        None => answer,
    }
}
