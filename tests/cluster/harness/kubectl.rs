//! kubectl, for what people would see: its output is part of what a test asserts.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::tools::tools;

/// kubectl in one namespace, as one user.
#[derive(Clone)]
pub(crate) struct Kubectl {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) namespace: String,
}

/// How a run of kubectl ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Kubectl {
    /// Runs it, and gives all that it said.
    pub(crate) async fn run(&self, args: &[&str]) -> Outcome {
        self.run_with_input(args, "").await
    }

    /// Runs it with text on its standard input: `-f -`.
    pub(crate) async fn run_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let mut kubectl = Command::new(tools().program("kubectl"));
        kubectl
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--namespace")
            .arg(&self.namespace)
            .args(args)
            // Its cache of the API would outlive the cluster, and some port comes back one day.
            .arg("--cache-dir")
            .arg(self.kubeconfig.with_file_name("kubectl-cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            let mut child = kubectl.spawn().expect("failed to start kubectl");
            // It may end without reading: then the write fails, and its message says more than ours would.
            let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
            child.wait_with_output().expect("kubectl can be waited for")
        })
        .await
        .expect("no panic");
        Outcome {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it, and gives its standard output. Panics if it fails.
    pub(crate) async fn succeed(&self, args: &[&str]) -> String {
        let outcome = self.run(args).await;
        assert!(outcome.success, "kubectl {args:?} failed: {outcome:?}");
        outcome.stdout
    }

    /// `kubectl apply -f -`, whatever comes of it.
    pub(crate) async fn apply(&self, manifest: &str) -> Outcome {
        self.run_with_input(&["apply", "-f", "-"], manifest).await
    }
}
