//! The wall clock jumps while the real binary runs: timeouts are not affected, certificates are renewed, and no connection is
//! lost.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::{serves, until};
use crate::support::{Client, Server, bound_daemon_pod, tls_config, warden};

const DAY: i64 = 24 * 60 * 60;
const EXPIRES: &str = "daemonset_warden_certificate_expiration_timestamp_seconds{certificate=\"serving\"}";

/// A clock shifted by that many seconds, as the server's.
#[derive(Debug)]
struct Shifted(i64);

impl TimeProvider for Shifted {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now(self.0).unsigned_abs())))
    }
}

fn now(shift: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + shift
}

/// Starts the server with a clock that a file shifts, and returns a function that shifts it.
fn start(directory: &Path) -> (Server, impl Fn(i64)) {
    let (library, file) = (directory.join("clock.so"), directory.join("shift"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/offline/faults/clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(built.unwrap().success(), "a C compiler is needed to build this program too");
    let shift = {
        let file = file.clone();
        move |seconds: i64| {
            let new = file.with_extension("new");
            fs::write(&new, seconds.to_string()).unwrap();
            fs::rename(new, &file).unwrap();
        }
    };
    shift(0);
    let certs = directory.join("certs");
    let certs = certs.to_str().unwrap();
    let mut command = warden(&["serve", "--secure-port", "0", "--metrics-bind-address", "127.0.0.1:0"]);
    command.args(["--cert-dir", certs]).env("LD_PRELOAD", library).env("CLOCK_SHIFT", file);
    (Server::spawn(Path::new(certs), command), shift)
}

/// Connects a client whose clock is `shift` seconds ahead.
async fn client(server: &Server, shift: i64) -> std::io::Result<Client> {
    let mut config = tls_config(&server.ca(), None, &[b"http/1.1"]);
    config.time_provider = Arc::new(Shifted(shift));
    Client::with(server.address, config).await
}

#[tokio::test]
async fn when_the_clock_jumps_certificates_follow_and_connections_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (server, shift) = start(directory.path());
    let ca = fs::read(server.ca()).unwrap();
    serves(&server).await;
    let mut patient = server.client().await;
    assert_eq!(patient.get("/livez").await.status, StatusCode::OK);
    // A month ahead, after the renewal, after the expiration, a year back, before the CA, and right again.
    for shifted in [30, 70, 400, -365, -20_000, 0].map(|days| days * DAY) {
        shift(shifted);
        until(&format!("a certificate for {} days from now", shifted / DAY), async || {
            let left = server.metric(EXPIRES).await as i64 - now(shifted);
            (30 * DAY..=90 * DAY).contains(&left)
        })
        .await;
        // The clients' clocks are wrong by the same time; with another clock they would refuse the certificate.
        let mut client = client(&server, shifted).await.unwrap();
        assert_eq!(client.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
        // The connection was idle only for the real time of the test.
        assert_eq!(patient.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
        assert_eq!(fs::read(server.ca()).unwrap(), ca, "the CA stays, because clients have a copy");
    }
    for reason in ["idle", "header_time", "write_time", "handshake_time"] {
        let cut = format!("daemonset_warden_connections_cut_total{{reason=\"{reason}\"}}");
        assert_eq!(server.metric(&cut).await, 0.0, "{reason}");
    }
    assert_eq!(server.metric("daemonset_warden_certificate_reload_failures_total").await, 0.0);
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("took a new certificate into use") && !log.contains("panicked"), "{log}");
    assert!(log.lines().count() < 50, "{log}");
}
