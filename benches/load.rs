//! `cargo bench --bench load [-- mutate validate names nodes]`: the real server end to end over TLS on 127.0.0.1, against a Go
//! peer (benches/peer) in the same run, in turn. Needs Go and h2load (Debian: nghttp2-client).
//!
//! Of the rates only the ratios mean something: machines differ, and the load generator shares the cores with the server. What
//! a call costs in CPU time, and what the server holds in memory, are what docs/operate.md gives for sizing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark ends where it fails"
)]

mod load {
    pub(super) mod requests;
}

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load::requests::{Request, requests};

/// How often each side is measured; the median counts.
const ROUNDS: usize = 3;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let warden = Server::warden(folder.path());
    let peer = Server::peer(folder.path());
    println!("Resident memory of the warden, idle: {:.1} MiB\n", warden.resident_mib());
    println!(
        "| request | connections | Go peer, 1/s | daemonset-warden, 1/s | ratio | at most | mean, peer | mean, warden | CPU a call, warden | CPU a call, h2load | resident, warden |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for request in requests()
        .into_iter()
        .filter(|request| asked.is_empty() || asked.iter().any(|name| name == request.name))
    {
        let body = folder.path().join(request.name);
        std::fs::write(&body, &request.body).expect("a body");
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        let mut generator = Duration::ZERO;
        let before = warden.cpu();
        for _ in 0..ROUNDS {
            theirs.push(peer.measure(&request, &body, request.peer_calls));
            let others = cpu_of_children();
            ours.push(warden.measure(&request, &body, request.warden_calls));
            generator += cpu_of_children() - others;
        }
        let a_call = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (ROUNDS * request.warden_calls) as f64;
        let (cpu, generator) = (a_call(warden.cpu() - before), a_call(generator));
        let (theirs, ours) = (median(theirs), median(ours));
        // With a server that takes no time at all, its one thread would still need so long for each call.
        let at_most = 1e6 / generator / theirs;
        println!(
            "| {} | {} | {theirs:.0} | {ours:.0} | {:.1} | {at_most:.1} | {:.2} ms | {:.2} ms | {cpu:.0} us | {generator:.0} us | {:.1} MiB |",
            request.what,
            request.connections,
            ours / theirs,
            request.mean_ms(theirs),
            request.mean_ms(ours),
            warden.resident_mib(),
        );
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// A server under load; killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn warden(folder: &Path) -> Self {
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

    /// Serves with the certificate that the warden has made in `folder`.
    fn peer(folder: &Path) -> Self {
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

    /// Calls a second.
    fn measure(&self, request: &Request, body: &Path, calls: usize) -> f64 {
        let output = Command::new("h2load")
            .args(["--h1", "-t1", &format!("-c{}", request.connections), &format!("-n{calls}"), "-d"])
            .arg(body)
            .args(["-H", "content-type: application/json", &format!("{}{}", self.url, request.path)])
            .output()
            .expect("h2load runs: install nghttp2-client");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("{calls} succeeded")), "not every call succeeded:\n{text}");
        let rate = text
            .lines()
            .find_map(|line| line.strip_prefix("finished in ")?.split(", ").nth(1)?.strip_suffix(" req/s"));
        rate.and_then(|rate| rate.parse().ok()).expect("h2load says a rate")
    }

    /// CPU time that it has taken.
    fn cpu(&self) -> Duration {
        cpu(&self.child.id().to_string(), 11)
    }

    fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0
    }
}

/// CPU time of the programs that this one has waited for.
fn cpu_of_children() -> Duration {
    cpu("self", 13)
}

/// Two fields of a process's `stat`, its own CPU time and the kernel's for it, in hundredths of a second: utime and stime from 11
/// on, cutime and cstime from 13.
fn cpu(process: &str, first: usize) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("after the name");
    let ticks =
        fields.split(' ').skip(first).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(10 * ticks)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the peer, or finds it built; Go's own cache makes the second time short.
fn build_peer() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peer");
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peer");
    let status = Command::new("go").current_dir(source).args(["build", "-o"]).arg(&binary).arg(".").status();
    assert!(status.expect("Go is installed").success(), "the Go peer does not build");
    binary
}
