//! The servers of the load benchmark, and h2load (Debian: nghttp2-client) over TLS, with HTTP/1.1 and one thread.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{Stat, mib};

/// Sends a body `calls` times on `connections` connections, one request at a time on each. Returns the calls a second.
pub(crate) fn load(url: &str, body: &Path, connections: usize, calls: usize) -> f64 {
    let output = h2load(url, body, connections, calls, &[]);
    let rate = output
        .lines()
        .find_map(|line| line.strip_prefix("finished in ")?.split(", ").nth(1)?.strip_suffix(" req/s"));
    rate.and_then(|rate| rate.parse().ok()).expect("h2load says a rate")
}

/// Sends the same load, and returns the 99th percentile in milliseconds. The log of all times slows h2load down a little.
pub(crate) fn p99(url: &str, body: &Path, connections: usize, calls: usize) -> f64 {
    let log = body.with_extension("log");
    h2load(url, body, connections, calls, &[&format!("--log-file={}", log.display())]);
    let lines = std::fs::read_to_string(&log).expect("a log");
    // h2load appends to an existing log.
    std::fs::remove_file(&log).expect("it is ours");
    let times = lines.lines().filter_map(|line| line.split('\t').nth(2)?.parse::<u64>().ok());
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() * 99 / 100] as f64 / 1000.0
}

fn h2load(url: &str, body: &Path, connections: usize, calls: usize, options: &[&str]) -> String {
    let output = Command::new("h2load")
        .args(["--h1", "-t1", &format!("-c{connections}"), &format!("-n{calls}"), "-d"])
        .arg(body)
        .args(["-H", "content-type: application/json", url])
        .args(options)
        .output()
        .expect("h2load runs: install nghttp2-client");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("{calls} succeeded")), "not every call succeeded:\n{text}");
    text
}

/// A server under load. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    /// Starts a standalone warden, which writes its certificate to `folder`.
    pub(crate) fn warden(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daemonset-warden"));
        command.args([
            "serve",
            "--secure-port=0",
            "--metrics-bind-address=127.0.0.1:0",
            "--v=0",
            "--cert-dir",
        ]);
        let mut child = command.arg(folder).stdout(Stdio::piped()).spawn().expect("the warden starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let url = line.split_whitespace().nth(2).expect("listening on URL").to_owned();
        Self { child, url }
    }

    /// Starts the Go peer (benches/peer) with the certificate in `folder`: `tls.crt` and `tls.key`.
    pub(crate) fn peer(folder: &Path) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let child = Command::new(build_peer())
            .args([format!("-port={port}"), format!("-cert-dir={}", folder.display())])
            .spawn()
            .expect("the peer starts");
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "the peer does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, url: format!("https://127.0.0.1:{port}") }
    }

    /// Returns its CPU time so far.
    pub(crate) fn cpu(&self) -> Duration {
        Stat::of(&self.child.id().to_string()).expect("it runs").cpu
    }

    /// Returns its resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        mib(self.child.id(), "VmRSS")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the peer. Go's cache makes further builds short.
fn build_peer() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peer");
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peer");
    let status = Command::new("go").current_dir(source).args(["build", "-o"]).arg(&binary).arg(".").status();
    assert!(status.expect("Go is installed").success(), "the Go peer does not build");
    binary
}
