//! Input that does not come in requests: the apiserver's objects, Secrets, certificates, and files and flags of operators.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use daemonset_warden::api::daemonset::DaemonSet;
use daemonset_warden::api::decode_budget::DecodeBudget;
use daemonset_warden::api::node::Node;
use daemonset_warden::api::pod::Pod;
use daemonset_warden::api::policy_objects::{
    LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass,
};
use daemonset_warden::cache::Cache;
use daemonset_warden::cli::SchedulerConfigArgs;
use daemonset_warden::command::scheduler_config::render;
use daemonset_warden::explain::create_failures::CreateFailures;
use daemonset_warden::explain::{RowFilter, explain};
use daemonset_warden::policy::Policy;
use daemonset_warden::reservation::View;
use daemonset_warden::reservation::prepared_filter::{PreparedFilter, answer_verdicts};
use daemonset_warden::telemetry::metrics::Metrics;
use daemonset_warden::tls::names::CertificateNames;
use daemonset_warden::tls::rotation_plan::decide;
use daemonset_warden::tls::secret::SecretName;
use daemonset_warden::tls::secret_content::SecretContent;
use daemonset_warden::tls::{CertificateSource, Tls};
use daemonset_warden::watch::client;
use daemonset_warden::watch::kinds::WatchedKind;
use daemonset_warden::watch::trimmed_object::TrimmedObject;
use kube::api::{ObjectList, WatchEvent};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::Value;

use super::{fuzz, lines, view};
use crate::support::crypto;

const OBJECTS: &str = include_str!("../../data/fuzz/objects.jsonl");
const KUBECONFIG: &str = include_str!("../../data/fuzz/kubeconfig.yaml");
const NOW: i64 = 1_800_000_000;

#[test]
fn objects_of_watches() {
    let mut view = view();
    let body = br#"{"Pod":{"metadata":{"name":"p","namespace":"shop","uid":"u"},"spec":{"containers":[{"name":"c"}]}},"NodeNames":["n1","n2"]}"#;
    let args = daemonset_warden::api::extender_v1::ExtenderArgs::parse(body).unwrap();
    fuzz("watches", &lines(OBJECTS), |input| {
        let cache = &mut view.cache;
        // As each watched kind: an object of another kind is one more input that is nearly right.
        passes::<Node>(input, "", "Node", cache);
        passes::<Pod>(input, "", "Pod", cache);
        passes::<DaemonSet>(input, "apps", "DaemonSet", cache);
        passes::<Namespace>(input, "", "Namespace", cache);
        passes::<PriorityClass>(input, "scheduling.k8s.io", "PriorityClass", cache);
        passes::<RuntimeClass>(input, "node.k8s.io", "RuntimeClass", cache);
        passes::<LimitRange>(input, "", "LimitRange", cache);
        passes::<ResourceQuota>(input, "", "ResourceQuota", cache);
        view.observe(Instant::now());
        let locked = RefCell::new(&mut view);
        let lock = || RefMut::map(locked.borrow_mut(), |view| &mut **view);
        let prepared = PreparedFilter::new(&Policy::default(), &args, &DecodeBudget::default());
        let (verdicts, _) = prepared.judge_with_cache(lock, Instant::now());
        let result = answer_verdicts(&args, verdicts);
        assert!(serde_json::from_slice::<Value>(&result.body.to_vec(body)).is_ok());
        let View { cache, reservation } = &mut view;
        reservation.take_writes();
        // Starts again with a new view, so that one faulty object does not affect all later inputs.
        if cache.nodes().count() > 50 || cache.pods().count() > 50 {
            view = super::view();
        }
    });
    assert!(
        explain(&view.cache, &CreateFailures::default(), &RowFilter::default())
            .all(|row| serde_json::to_string(&row).is_ok())
    );
}

/// Decodes a watch event and a list that contain `input`, and applies the objects to the cache.
fn passes<T: WatchedKind>(input: &[u8], group: &str, kind: &str, cache: &mut Cache) {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    let event = [br#"{"type":"MODIFIED","object":"#, input, b"}"].concat();
    let event = serde_json::from_slice::<WatchEvent<TrimmedObject<T>>>(&event);
    let list = [br#"{"metadata":{"resourceVersion":"9"},"items":["#, input, b"]}"].concat();
    let list = serde_json::from_slice::<ObjectList<TrimmedObject<T>>>(&list);
    // The input may contain several items.
    if let (Ok(WatchEvent::Modified(one)), Ok(list)) = (&event, &list) {
        assert_eq!(list.items.last().map(|trimmed| trimmed.object.is_ok()), Some(one.object.is_ok()));
    }
    for trimmed in list.into_iter().flat_map(|list| list.items) {
        match trimmed.object {
            Ok(object) => {
                let key = object.key();
                let again = object.clone();
                object.apply(cache, &kind);
                T::known(cache, &kind);
                T::remove(&key, cache);
                again.apply(cache, &kind);
            }
            Err(unreadable) => assert!(!unreadable.error.is_empty()),
        }
    }
}

#[test]
fn secrets_with_certificates() {
    let names = CertificateNames::parse(&["a.b.svc".to_owned(), "10.96.0.50".to_owned()]);
    let made = |data| {
        let content = SecretContent::read(data);
        let plan = decide(&content.state(), None, &names, NOW);
        content.apply_plan(&plan, NOW).unwrap()
    };
    let good = made(BTreeMap::new()).data().clone();
    // One input is a whole Secret, joined with bytes 0 and 1, which no PEM contains, and split again there.
    let joined = |data: &BTreeMap<String, Vec<u8>>| {
        data.iter().map(|(key, bytes)| [key.as_bytes(), b"\0", bytes].concat()).collect::<Vec<_>>().join(&1)
    };
    let seed = joined(&good);
    fuzz("secrets", &[&seed], |input| {
        let entry = |entry: &[u8]| {
            let at = entry.iter().position(|byte| *byte == 0)?;
            Some((String::from_utf8(entry[..at].to_vec()).ok()?, entry[at + 1..].to_vec()))
        };
        let after = made(input.split(|byte| *byte == 1).filter_map(entry).collect());
        // One or two steps must repair the Secret.
        let after = made(after.data().clone());
        assert!(!decide(&after.state(), None, &names, NOW).writes(), "{:?}", after.state());
        assert!(after.pair().is_some() && after.is_trusted_by(&after.bundle()));
    });
}

#[test]
fn certificate_files() {
    crypto();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let development = CertificateSource::Development { directory: directory.path().to_owned(), address };
    Tls::load(development, None, Arc::default()).unwrap();
    let file = |name: &str| fs::read(path(name)).unwrap();
    let (certificate, key, ca) = (file("tls.crt"), file("tls.key"), file("ca.crt"));
    let source = |certificate: &str, key: &str| CertificateSource::Files {
        certificate: path(certificate),
        key: path(key),
    };
    fuzz("certificates", &[&certificate, &key, &ca], |input| {
        fs::write(path("fuzzed"), input).unwrap();
        for (source, client_ca) in [
            (source("fuzzed", "tls.key"), None),
            (source("tls.crt", "fuzzed"), None),
            (source("tls.crt", "tls.key"), Some(path("fuzzed"))),
        ] {
            if let Err(error) = Tls::load(source, client_ca, Arc::new(Metrics::default())) {
                let text = daemonset_warden::telemetry::logs::chain(&error);
                assert!(!text.contains("PRIVATE KEY"), "a key in a log: {text}");
            }
        }
    });
}

#[test]
fn kubeconfigs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    fuzz("kubeconfig", &[KUBECONFIG.as_bytes()], |input| {
        fs::write(&file, input).unwrap();
        match runtime.block_on(client::config(Some(&file))) {
            Ok(config) => assert!(config.is_some()),
            Err(error) => assert!(error.to_string().contains("kubeconfig")),
        }
    });
}

#[test]
fn flags() {
    let ca = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/scheduler-config/ca.crt");
    let seeds: [&[u8]; 4] = [
        b"https://10.96.0.50/scheduler",
        b"https://[fd00::1]:443/scheduler/",
        b"https://warden.example:8443/scheduler",
        b"kube-system/daemonset-warden-tls",
    ];
    fuzz("flags", &seeds, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let args = SchedulerConfigArgs {
            url: vec![text.to_owned()],
            ca_file: ca.clone(),
            client_cert_file: None,
            client_key_file: None,
            scheduler_kubeconfig: text.into(),
        };
        if let Ok(rendered) = render(&args) {
            let config: Value = serde_saphyr::from_str(&rendered).unwrap();
            assert_eq!(config["extenders"][0]["urlPrefix"], text.trim_end_matches('/'));
            assert_eq!(config["clientConnection"]["kubeconfig"], text);
        }
        if let Ok(SecretName { namespace, name }) = text.parse() {
            assert_eq!(format!("{namespace}/{name}"), text);
        }
        let names: Vec<String> = text.split(',').map(str::to_owned).collect();
        let names = CertificateNames::parse(&names);
        // A certificate must be possible for every accepted list of names.
        if names.faults().is_empty() {
            let plan = decide(&SecretContent::read(BTreeMap::new()).state(), None, &names, NOW);
            SecretContent::read(BTreeMap::new()).apply_plan(&plan, NOW).unwrap();
        }
    });
}
