//! `scheduler-config`: the KubeSchedulerConfiguration that makes kube-scheduler call this extender.
//!
//! The configuration is written as text, because operators who copy it need the comments. Certificates are embedded, not named:
//! kube-scheduler mostly runs as a static pod, in which every file that it reads needs a mount.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::http::Uri;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::cli::SchedulerConfigArgs;

pub(super) fn run(args: &SchedulerConfigArgs) -> anyhow::Result<()> {
    let text = render(args)?;
    std::io::stdout().write_all(text.as_bytes()).context("failed to write to stdout")
}

/// Returns the configuration as text. Reads the files of the flags.
///
/// # Errors
/// Fails if the scheduler cannot use a URL, if a file cannot be read or does not hold what its flag asks for, or if the client's
/// certificate and key do not match.
pub fn render(args: &SchedulerConfigArgs) -> anyhow::Result<String> {
    let hosts = args.url.iter().map(|url| host(url)).collect::<anyhow::Result<Vec<_>>>()?;
    let ca = read(&args.ca_file)?;
    let cas = certificates(&args.ca_file, &ca)?.len();
    // clap requires both or neither.
    let client = match (&args.client_cert_file, &args.client_key_file) {
        (Some(certificate), Some(key)) => Some(client_pair(certificate, key)?),
        _ => None,
    };
    let mut text = String::from(
        "# For `kube-scheduler --config=FILE`, which then calls daemonset-warden for every pod. Read once, when it starts.\n",
    );
    if client.is_some() {
        text += "# Contains a private key: make it readable for the scheduler's user only.\n";
    }
    if hosts.iter().any(|host| host.parse::<IpAddr>().is_err()) {
        text += "# The URL has a DNS name. kube-scheduler runs in the host's network, often without cluster DNS: use an address\n\
                 # then.\n";
    }
    text += "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    text += "# The flag --kubeconfig is ignored beside --config.\nclientConnection:\n";
    let _ = writeln!(text, "  kubeconfig: {}", quoted(&args.scheduler_kubeconfig.display().to_string()));
    text += "# The default, set because some distributions pass it by flag: one of several schedulers is active.\n\
             leaderElection:\n  leaderElect: true\nextenders:\n";
    let ca = CaBundle { pem: ca, count: cas };
    for url in &args.url {
        text += &entry(url, &ca, client.as_ref());
    }
    Ok(text)
}

/// The CAs by which the scheduler verifies this server, and their number.
struct CaBundle {
    pem: Vec<u8>,
    count: usize,
}

/// Returns the entry of `extenders` for one URL. `client` is the scheduler's certificate and key, in PEM.
fn entry(url: &str, ca: &CaBundle, client: Option<&(Vec<u8>, Vec<u8>)>) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "  - urlPrefix: {}", quoted(url.trim_end_matches('/')));
    text += "    filterVerb: filter\n    preemptVerb: preempt\n    enableHTTPS: true\n    tlsConfig:\n";
    let _ = writeln!(
        text,
        "      # {}. Without a CA, kube-scheduler would accept any certificate.",
        if ca.count == 1 {
            "The CA of daemonset-warden's certificate".to_owned()
        } else {
            format!("{} CAs", ca.count)
        }
    );
    let _ = writeln!(text, "      caData: {}", STANDARD.encode(&ca.pem));
    if let Some((certificate, key)) = client {
        text += "      # The scheduler's client certificate, which daemonset-warden requires (--client-ca-file).\n";
        let _ = writeln!(text, "      certData: {}", STANDARD.encode(certificate));
        let _ = writeln!(text, "      keyData: {}", STANDARD.encode(key));
    }
    text += "    # The time until a call counts as failed. A response takes less than a millisecond.\n    httpTimeout: 300ms\n";
    text += "    # Names of nodes instead of whole nodes: small calls, and scores stay right (kubernetes#141781).\n    nodeCacheCapable: true\n";
    text += "    # With daemonset-warden down, pods are scheduled without it.\n    ignorable: true\n";
    text
}

/// Returns the host in `url`. Fails if the scheduler cannot use the URL, or this server does not answer it: it must be https, end
/// in /scheduler, and have no user, query or fragment.
fn host(url: &str) -> anyhow::Result<String> {
    let wrong = |what: &str| format!("--url {url}: {what}");
    let uri: Uri = url.parse().with_context(|| wrong("not a URL"))?;
    if uri.scheme_str() != Some("https") {
        bail!(wrong("must start with https://, because certificates are how each side knows the other"));
    }
    if uri.query().is_some() || url.contains('#') || url.contains('@') {
        bail!(wrong("must have no user, query or fragment: the scheduler appends `/filter`"));
    }
    if uri.path().trim_end_matches('/') != "/scheduler" {
        bail!(wrong("must end in /scheduler, as in https://10.96.0.50/scheduler"));
    }
    let host = uri.host().filter(|host| !host.is_empty()).with_context(|| wrong("has no host"))?;
    Ok(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

/// Reads a file, or standard input for `-`: no tool in the image could copy a CA into it.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path != Path::new("-") {
        return fs::read(path).with_context(|| failed_to_read(path));
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_INPUT).read_to_end(&mut bytes).context("failed to read standard input")?;
    Ok(bytes)
}

/// The size limit of standard input, in bytes: a bundle of several hundred CAs.
const MAX_INPUT: u64 = 1 << 20;

fn certificates(path: &Path, pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|certificates: &Vec<_>| !certificates.is_empty())
        .with_context(|| format!("{} holds no certificate in PEM form", path.display()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .with_context(|| format!("{} holds a certificate that cannot be used", path.display()))?;
    }
    Ok(certificates)
}

/// Reads a certificate and its key, in PEM. Fails if they do not match: the scheduler would not start with them.
fn client_pair(certificate: &Path, key: &Path) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let certificate_pem = fs::read(certificate).with_context(|| failed_to_read(certificate))?;
    let key_pem = fs::read(key).with_context(|| failed_to_read(key))?;
    let chain = certificates(certificate, &certificate_pem)?;
    // The parser's error may quote its input, which is a secret.
    let parsed = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| anyhow::anyhow!("{} holds no private key in PEM form", key.display()))?;
    CertifiedKey::from_der(chain, parsed, &Arc::new(ring::default_provider())).with_context(|| {
        format!("{} and {} cannot be used together", certificate.display(), key.display())
    })?;
    Ok((certificate_pem, key_pem))
}

fn failed_to_read(path: &Path) -> String {
    format!("failed to read {}", path.display())
}

/// Returns the text as a quoted YAML scalar, escaped as in JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        format!("{:#}", host(url).unwrap_err())
    }

    #[test]
    fn accepts_addresses_names_and_a_slash_at_the_end() {
        assert_eq!(host("https://10.96.0.50/scheduler").unwrap(), "10.96.0.50");
        assert_eq!(host("https://[fd00::1]:443/scheduler/").unwrap(), "fd00::1");
        assert_eq!(host("https://warden.example:8443/scheduler").unwrap(), "warden.example");
    }

    #[test]
    fn rejects_urls_that_would_fail_in_the_scheduler() {
        assert!(refused("http://10.96.0.50/scheduler").contains("must start with https://"));
        assert!(refused("https://10.96.0.50").contains("must end in /scheduler"));
        assert!(refused("https://10.96.0.50/scheduler/filter").contains("must end in /scheduler"));
        assert!(refused("https://a:b@10.96.0.50/scheduler").contains("no user"));
        assert!(refused("https://10.96.0.50/scheduler?x=1").contains("no user, query"));
        assert!(refused("10.96.0.50").contains("must start with https://"));
        assert!(refused("https:// /scheduler").contains("not a URL"));
    }
}
