//! `scheduler-config`, by the real binary: its output is compared with golden files, and it refuses arguments that cannot work.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::support::{golden, run, warden};

fn data(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/scheduler-config");
    folder.join(name).to_str().unwrap().to_owned()
}

/// A certificate and its key, made for each run: the repository contains no key.
struct Client {
    _folder: tempfile::TempDir,
    certificate: String,
    key: String,
}

impl Client {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["scheduler".to_owned()]).unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let certificate = write("client.crt", made.cert.pem());
        let key = write("client.key", made.signing_key.serialize_pem());
        Self { _folder: folder, certificate, key }
    }

    /// Replaces the content of the files by words.
    fn masked(&self, text: &str) -> String {
        let encoded = |path: &str| STANDARD.encode(std::fs::read(path).unwrap());
        text.replace(&encoded(&self.certificate), "CERTIFICATE").replace(&encoded(&self.key), "KEY")
    }
}

fn config(args: &[&str]) -> (Option<i32>, String, String) {
    run(&[&["scheduler-config"], args].concat())
}

#[test]
fn prints_what_it_printed() {
    let made = Client::new();
    let (ca, certificate, key) = (data("ca.crt"), &made.certificate, &made.key);
    let address: &[&str] = &["--url", "https://10.96.0.50/scheduler", "--ca-file", &ca];
    let client: &[&str] = &[
        "--url=https://warden.example:8443/scheduler/",
        "--ca-file",
        &ca,
        "--client-cert-file",
        certificate,
        "--client-key-file",
        key,
        "--scheduler-kubeconfig=/etc/rancher/k3s/scheduler.kubeconfig",
    ];
    for (name, args) in [("address", address), ("client-certificate", client)] {
        let (code, text, errors) = config(args);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        golden(&format!("tests/data/scheduler-config/{name}.golden"), &made.masked(&text));
        let parsed: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let extender = &parsed["extenders"][0];
        // Fields that must not get lost in an update of the golden file.
        assert_eq!(extender["enableHTTPS"], true);
        assert_eq!(extender["ignorable"], true);
        assert_eq!(extender["nodeCacheCapable"], true);
        assert!(extender["tlsConfig"]["caData"].as_str().is_some_and(|ca| !ca.is_empty()));
    }
}

/// With two URLs the scheduler calls both.
#[test]
fn prints_an_entry_a_url() {
    let ca = data("ca.crt");
    let urls = ["https://127.0.0.1:10643/scheduler", "https://10.96.0.50/scheduler"];
    let (code, text, errors) = config(&["--url", urls[0], "--url", urls[1], "--ca-file", &ca]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let parsed: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let entries = parsed["extenders"].as_array().unwrap();
    assert_eq!(entries.iter().map(|entry| &entry["urlPrefix"]).collect::<Vec<_>>(), urls);
    let (_, one, _) = config(&["--url", urls[1], "--ca-file", &ca]);
    let one: serde_json::Value = serde_saphyr::from_str(&one).unwrap();
    assert_eq!(entries[1], one["extenders"][0]);
}

#[test]
fn takes_the_ca_from_standard_input() {
    let url = "--url=https://10.96.0.50/scheduler";
    let (_, expected, _) = config(&[url, "--ca-file", &data("ca.crt")]);
    let piped = |bytes: Vec<u8>| {
        let mut command = warden(&["scheduler-config", url, "--ca-file=-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(piped(std::fs::read(data("ca.crt")).unwrap()), (Some(0), expected));
    assert_eq!(piped(b"nothing".to_vec()), (Some(2), String::new()));
}

#[test]
fn rejects_what_the_scheduler_could_not_use() {
    let made = Client::new();
    let (ca, certificate, key) = (data("ca.crt"), &made.certificate, &made.key);
    let url = "--url=https://10.96.0.50/scheduler";
    for (args, says) in [
        (&["--url=http://10.96.0.50/scheduler", "--ca-file", &ca] as &[&str], "must start with https://"),
        (&[url], "--ca-file"),
        (&[url, "--ca-file", "/nowhere"], "failed to read /nowhere"),
        (&[url, "--ca-file", key], "holds no certificate"),
        (&[url, "--ca-file", &ca, "--client-cert-file", certificate], "--client-key-file"),
        (
            &[url, "--ca-file", &ca, "--client-cert-file", &ca, "--client-key-file", key],
            "cannot be used together",
        ),
        (
            &[url, "--ca-file", &ca, "--client-cert-file", certificate, "--client-key-file", &ca],
            "no private key",
        ),
    ] {
        let (code, text, errors) = config(args);
        assert_eq!((code, text.as_str()), (Some(2), ""), "{args:?}");
        assert!(errors.contains(says), "{args:?}: {errors}");
    }
}
