//! The folder of this run: logs, certificates, etcd's data. Removed when the process ends, unless a test failed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use super::tools::{say, tools};

struct Run {
    folder: PathBuf,
    /// A child guard without a command, which removes the folder after the end of this process: `static`s are never dropped,
    /// and a killed process drops nothing.
    _janitor: Child,
    janitor_input: Mutex<ChildStdin>,
}

static RUN: LazyLock<Run> = LazyLock::new(|| {
    let folder =
        tempfile::Builder::new().prefix("daemonset-warden-").tempdir().expect("a temporary folder").keep();
    let mut janitor = Command::new(tools().child_guard())
        .arg("-remove")
        .arg(&folder)
        .stdin(Stdio::piped())
        .spawn()
        .expect("failed to start the child guard");
    let janitor_input = Mutex::new(janitor.stdin.take().expect("stdin is piped"));
    keep_on_panic();
    Run { folder, _janitor: janitor, janitor_input }
});

/// Creates a folder inside the run's folder; `name` says what it is for.
pub(crate) fn folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = RUN.folder.join(format!("{count:02}-{name}"));
    std::fs::create_dir(&folder).unwrap_or_else(|e| panic!("failed to make {}: {e}", folder.display()));
    folder
}

/// Every failed test is a panic, and every panic of this process means a failed test.
fn keep_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        keep(&RUN.folder);
    }));
}

fn keep(folder: &Path) {
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| {
        if let Ok(mut janitor) = RUN.janitor_input.lock() {
            let _ = janitor.write_all(b"keep\n");
        }
        say(&format!("a test failed; logs are kept in {}", folder.display()));
    });
}
