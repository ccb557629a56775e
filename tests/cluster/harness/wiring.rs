//! A kube-scheduler configured as docs/install.md says: by `scheduler-config`, with the CA from the Secret.

use std::path::Path;
use std::process::Command;

use super::certificates::Certificate;
use super::release::Release;
use super::run;
use super::scheduler::Scheduler;

impl Release {
    /// Starts a scheduler that calls the extender at that URL, with a client certificate if one is given.
    pub(crate) async fn scheduler(&self, name: &str, url: &str, client: Option<&Certificate>) -> Scheduler {
        let data = self.secret().await.data.unwrap_or_default();
        let folder = run::folder("scheduler-config");
        let file = |name: &str| folder.join(name).display().to_string();
        std::fs::write(folder.join("ca.crt"), &data["ca.crt"].0).expect("the CA can be written");
        let mut args = vec![
            "scheduler-config".to_owned(),
            format!("--url={url}"),
            format!("--ca-file={}", file("ca.crt")),
            format!("--scheduler-kubeconfig={}", self.plane.kubeconfig().display()),
        ];
        if let Some(client) = client {
            client.write(&folder);
            args.push(format!("--client-cert-file={}", file("tls.crt")));
            args.push(format!("--client-key-file={}", file("tls.key")));
        }
        let mut printed = print(&args);
        // The configuration is used as printed, except for the scheduler's name.
        if name != "default-scheduler" {
            printed += &format!("profiles: [{{schedulerName: {name}}}]\n");
        }
        let (plane, name) = (self.plane.clone(), name.to_owned());
        let started = tokio::task::spawn_blocking(move || plane.scheduler_as_printed(&name, &printed));
        started.await.expect("a scheduler")
    }
}

fn print(args: &[String]) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_daemonset-warden"));
    let output = Command::new(program).args(args).output().expect("the program starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
