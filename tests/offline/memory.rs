//! The memory of the real binary after many requests of every kind: it stays below a limit, and does not grow.
//!
//! For the figures: `cargo test --release --test offline memory:: -- --nocapture`. Without `--release` there are a tenth as many
//! requests, and the debug binary is larger.

#[path = "../../benches/load/requests.rs"]
#[allow(dead_code, unreachable_pub)]
mod requests;

use std::sync::Arc;

use hyper::StatusCode;

use super::support::{Client, Server};

const COUNT: usize = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
const CLIENTS: usize = 8;
/// The limit after the first [`COUNT`] requests.
const RESIDENT_MIB: f64 = if cfg!(debug_assertions) { 60.0 } else { 40.0 };
/// The limit of the growth in the second [`COUNT`] requests; the allocator does not fill its memory evenly.
const GROWTH_MIB: f64 = 2.0;

/// Returns paths and bodies, each with its share of a thousand requests.
fn mix() -> Vec<(usize, &'static str, Vec<u8>, StatusCode)> {
    let body =
        |name: &str| requests::requests().into_iter().find(|request| request.name == name).unwrap().body;
    let preempt = include_str!("../data/fuzz/preempt.jsonl").lines().next().unwrap();
    vec![
        (450, "/mutate", body("mutate"), StatusCode::OK),
        (300, "/validate", body("validate"), StatusCode::OK),
        (148, "/scheduler/filter", body("names"), StatusCode::OK),
        (50, "/scheduler/preempt", preempt.into(), StatusCode::OK),
        (50, "/mutate", b"{\"no\": \"review\"}".to_vec(), StatusCode::BAD_REQUEST),
        (2, "/scheduler/filter", body("nodes"), StatusCode::OK),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--v=0"]);
    let mix = mix().into_iter().flat_map(|(times, path, body, expected)| {
        std::iter::repeat_n((path, Arc::<[u8]>::from(body), expected), times)
    });
    let mix: Arc<Vec<_>> = Arc::new(mix.collect());
    let mut resident = vec![server.resident_mib()];
    for _ in 0..2 {
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..CLIENTS {
            let (mix, address, ca) = (mix.clone(), server.address, server.ca());
            clients.spawn(async move {
                let mut client = None;
                for asked in 0..COUNT / CLIENTS {
                    // Each connection sends requests of every kind.
                    if asked % 1_000 == 0 {
                        client = Some(match number % 4 {
                            0 => Client::http2(address, &ca).await.unwrap(),
                            _ => Client::http1(address, &ca).await.unwrap(),
                        });
                    }
                    // 607 and 1,000 have no common divisor, so each request is sent, in a mixed order.
                    let (path, body, expected) = &mix[(asked * 607 + number * 125) % mix.len()];
                    let answer = client.as_mut().unwrap().post(path, body.to_vec()).await;
                    assert_eq!(answer.status, *expected, "{path}");
                }
            });
        }
        clients.join_all().await;
        resident.push(server.resident_mib());
    }
    let [start, first, second] = resident[..] else { unreachable!("two rounds") };
    println!(
        "resident: {start:.1} MiB at the start, {first:.1} after {COUNT} mixed requests, {second:.1} after {COUNT} more"
    );
    assert!(first < RESIDENT_MIB, "{first:.1} MiB");
    assert!(second < first + GROWTH_MIB, "{first:.1} MiB, then {second:.1}");
}
