//! A component as a process: under a child guard, with a log file, and restarted by starting it again.

use std::collections::hash_map::RandomState;
use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::tools::tools;

/// A command and the folder of its log. A test that restarts the component keeps this.
#[derive(Clone)]
pub(crate) struct Component {
    /// Also the name of the log file.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Added to the environment of this process.
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) folder: PathBuf,
    /// A folder that is removed when the process has ended, also after a failed test.
    pub(crate) discard: Option<PathBuf>,
}

/// A running component. Killed and waited for when dropped.
pub(crate) struct Process {
    name: String,
    guard: Child,
    input: Option<ChildStdin>,
    log: PathBuf,
}

impl Component {
    pub(crate) fn start(&self) -> Process {
        let log = self.folder.join(format!("{}.log", self.name));
        let pid_file = self.folder.join(format!("{}.pid", self.name));
        let _ = fs::remove_file(&pid_file);
        let output = OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let mut command = Command::new(tools().child_guard());
        command.arg("-pid-file").arg(&pid_file);
        if let Some(folder) = &self.discard {
            command.arg("-remove").arg(folder);
        }
        let mut guard = command
            .arg("--")
            .arg(&self.program)
            .args(&self.args)
            .envs(self.environment.iter().cloned())
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("a second handle of the log"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|e| panic!("failed to start {}: {e}", self.name));
        let input = guard.stdin.take();
        Process { name: self.name.clone(), guard, input, log }
    }
}

impl Process {
    /// Returns the process id of the component, not of its child guard.
    #[allow(dead_code, reason = "benchmarks use it")]
    pub(crate) fn id(&self) -> u32 {
        let text = fs::read_to_string(self.log.with_extension("pid")).expect("the child guard writes it");
        text.trim().parse().expect("a process id")
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&mut self) {
        self.send("TERM");
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.send("KILL");
        self.wait(Duration::from_secs(10));
    }

    /// Sends SIGSTOP: the process lives and answers nothing.
    pub(crate) fn freeze(&mut self) {
        self.send("STOP");
    }

    /// Sends SIGCONT.
    pub(crate) fn thaw(&mut self) {
        self.send("CONT");
    }

    fn send(&mut self, signal: &str) {
        if let Some(input) = &mut self.input {
            // A closed pipe means that the component has ended already.
            let _ = writeln!(input, "{signal}");
        }
    }

    /// Waits for the component's end. Panics after `at_most`.
    pub(crate) fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} still runs after {at_most:?}", self.name);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the exit status, or `None` while the component runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.try_wait().expect("the child guard can be waited for")
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `probe` returns true. Panics with the end of the log if the component ends first, or after `at_most`.
    pub(crate) fn ready(&mut self, at_most: Duration, mut probe: impl FnMut() -> bool) {
        let deadline = Instant::now() + at_most;
        while !probe() {
            if let Some(status) = self.ended() {
                panic!("{} ended with {status} before it was ready:\n{}", self.name, tail(&self.log));
            }
            assert!(
                Instant::now() < deadline,
                "{} was not ready after {at_most:?}:\n{}",
                self.name,
                tail(&self.log)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.guard.wait();
    }
}

/// Returns the last lines of a log, for a failure message.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    format!("{}\n({})", lines[lines.len().saturating_sub(15)..].join("\n"), log.display())
}

/// Returns a port on which no process listens, never the same one twice. It is below the range from which the kernel takes
/// ports for outgoing connections, so that no connection takes it before the component listens.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = u32::from(RandomState::new().build_hasher().finish() as u16);
    let _ = NEXT.compare_exchange(0, 1 + offset % 12_000, Ordering::Relaxed, Ordering::Relaxed);
    for _ in 0..1000 {
        let port = 20_000 + (NEXT.fetch_add(1, Ordering::Relaxed) % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000");
}

/// Returns 16 random hexadecimal digits, for tokens and names.
pub(crate) fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
