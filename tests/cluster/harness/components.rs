//! The flags of each component, for a cluster on the loopback interface.

use std::path::{Path, PathBuf};

use super::process::{Component, free_port};
use super::tools::tools;

/// The folder and the ports that the components of one control plane share.
pub(crate) struct Layout {
    pub(crate) folder: PathBuf,
    pub(crate) etcd_port: u16,
    pub(crate) etcd_peer_port: u16,
    pub(crate) apiserver_port: u16,
    /// Added to the flags that every test uses.
    pub(crate) apiserver_flags: &'static [&'static str],
    /// The calls a second that kube-controller-manager may make, and the calls at once.
    pub(crate) controller_rate: (u32, u32),
}

impl Layout {
    pub(crate) fn new(folder: PathBuf) -> Self {
        let [etcd_port, etcd_peer_port, apiserver_port] = std::array::from_fn(|_| free_port());
        Self {
            folder,
            etcd_port,
            etcd_peer_port,
            apiserver_port,
            apiserver_flags: &[],
            controller_rate: (2000, 4000),
        }
    }

    /// The kubeconfig of the cluster's administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The token file of the apiserver: one line for each user.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.join("tokens.csv")
    }

    /// The private key that signs the tokens of service accounts.
    pub(crate) fn service_account_key(&self) -> PathBuf {
        self.folder.join("service-account.key")
    }

    /// The public key that checks the tokens of service accounts.
    pub(crate) fn service_account_public_key(&self) -> PathBuf {
        self.folder.join("service-account.pub")
    }

    /// The certificate that the apiserver makes for itself: leaf first, then its CA.
    pub(crate) fn apiserver_certificate(&self) -> PathBuf {
        self.folder.join("apiserver").join("apiserver.crt")
    }

    /// The apiserver's audit log: one JSON object a line, for the requests that the audit policy selects.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// The audit policy; without this file the apiserver writes no audit log.
    pub(crate) fn audit_policy(&self) -> PathBuf {
        self.folder.join("audit-policy.json")
    }

    pub(crate) fn etcd(&self) -> Component {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer_port);
        let data = self.folder.join("etcd");
        let mut etcd = self.component(
            "etcd",
            &[
                &format!("--listen-client-urls={client}"),
                &format!("--advertise-client-urls={client}"),
                &format!("--listen-peer-urls={peer}"),
                &format!("--initial-advertise-peer-urls={peer}"),
                &format!("--initial-cluster=default={peer}"),
                &format!("--data-dir={}", data.display()),
                // The data is deleted when the process ends, so etcd need not wait for the disk.
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        );
        etcd.discard = Some(data);
        etcd
    }

    pub(crate) fn apiserver(&self) -> Component {
        let mut apiserver = self.component(
            "kube-apiserver",
            &[
                &format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
                &format!("--secure-port={}", self.apiserver_port),
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                &format!("--cert-dir={}", self.folder.join("apiserver").display()),
                &format!("--token-auth-file={}", self.tokens().display()),
                "--authorization-mode=Node,RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-key-file={}", self.service_account_public_key().display()),
                &format!("--service-account-signing-key-file={}", self.service_account_key().display()),
                // Loopback addresses, so that the tests can listen on a ClusterIP without a network namespace: the
                // apiserver calls a webhook behind a Service by its ClusterIP, which kube-proxy would serve.
                "--service-cluster-ip-range=127.96.0.0/16",
                "--endpoint-reconciler-type=none",
                // Some of the DaemonSets in tests/data/manifests are privileged.
                "--allow-privileged=true",
                // The tests measure the scheduler and the warden, not the apiserver's fairness.
                "--max-requests-inflight=0",
                "--max-mutating-requests-inflight=0",
                "--enable-priority-and-fairness=false",
                "--profiling=false",
            ],
        );
        apiserver.args.extend(self.apiserver_flags.iter().map(|&flag| flag.to_owned()));
        // Only for the tests that need it: it costs the apiserver a little time with every request.
        if self.audit_policy().exists() {
            apiserver.args.push(format!("--audit-policy-file={}", self.audit_policy().display()));
            apiserver.args.push(format!("--audit-log-path={}", self.audit_log().display()));
        }
        apiserver
    }

    pub(crate) fn controller_manager(&self) -> Component {
        self.component(
            "kube-controller-manager",
            &[
                &format!("--kubeconfig={}", self.kubeconfig().display()),
                "--leader-elect=false",
                &format!("--secure-port={}", free_port()),
                "--bind-address=127.0.0.1",
                &format!("--cert-dir={}", self.folder.join("controller-manager").display()),
                &format!("--service-account-private-key-file={}", self.service_account_key().display()),
                // The DaemonSet controller calls as its own user, as in a real cluster: the webhook checks the user.
                "--use-service-account-credentials=true",
                &format!("--kube-api-qps={}", self.controller_rate.0),
                &format!("--kube-api-burst={}", self.controller_rate.1),
                "--profiling=false",
            ],
        )
    }

    pub(crate) fn scheduler(&self, name: &str, port: u16, config: &Path) -> Component {
        self.component(
            name,
            &[
                &format!("--config={}", config.display()),
                &format!("--secure-port={port}"),
                "--bind-address=127.0.0.1",
                &format!("--cert-dir={}", self.folder.join(name).display()),
                "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics",
                // Without these kube-scheduler waits for a kubeconfig for delegated authentication and authorization.
                &format!("--authentication-kubeconfig={}", self.kubeconfig().display()),
                &format!("--authorization-kubeconfig={}", self.kubeconfig().display()),
            ],
        )
    }

    pub(crate) fn kwok(&self, port: u16, stages: &Path) -> Component {
        self.component(
            "kwok",
            &[
                &format!("--config={}", stages.display()),
                &format!("--kubeconfig={}", self.kubeconfig().display()),
                "--manage-all-nodes=true",
                "--node-lease-duration-seconds=40",
                &format!("--server-address=127.0.0.1:{port}"),
            ],
        )
    }

    fn component(&self, name: &str, args: &[&str]) -> Component {
        let program = if name.starts_with("kube-scheduler") { "kube-scheduler" } else { name };
        Component {
            name: name.to_owned(),
            program: tools().program(program),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            environment: Vec::new(),
            folder: self.folder.clone(),
            discard: None,
        }
    }
}
