//! kubectl: tests assert its output, because it is what users see.

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

/// The result of a run of kubectl or Helm.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Kubectl {
    /// Runs kubectl; a failure is in the result.
    pub(crate) async fn run(&self, args: &[&str]) -> Outcome {
        self.run_with_input(args, "").await
    }

    /// Runs kubectl with text on its standard input, for `-f -`.
    pub(crate) async fn run_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let mut kubectl = Command::new(tools().program("kubectl"));
        kubectl
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--namespace")
            .arg(&self.namespace)
            .args(args)
            // The default cache folder outlives the cluster, and a later cluster may use the same port.
            .arg("--cache-dir")
            .arg(self.kubeconfig.with_file_name("kubectl-cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            let mut child = kubectl.spawn().expect("failed to start kubectl");
            // kubectl may end without reading its input; its own message then says more than the error of the write.
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

    /// Runs kubectl and returns its standard output. Panics if kubectl fails.
    pub(crate) async fn succeed(&self, args: &[&str]) -> String {
        let outcome = self.run(args).await;
        assert!(outcome.success, "kubectl {args:?} failed: {outcome:?}");
        outcome.stdout
    }

    /// Runs `kubectl apply -f -`; a failure is in the result.
    pub(crate) async fn apply(&self, manifest: &str) -> Outcome {
        self.run_with_input(&["apply", "-f", "-"], manifest).await
    }
}
