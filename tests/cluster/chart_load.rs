//! A rolling restart, new certificates and an outage of the release under load: callers notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::json;

use super::chart::plane;
use crate::harness::{RELEASE, Release, daemon_pod, daemon_set, eventually, eventually_within, say};

/// True for the full load: `FULL_LOAD=1 cargo test --test cluster chart_load -- --nocapture`, on a machine that does nothing
/// else. In a run of all tests the load is smaller, because they share two cores.
fn full_load() -> bool {
    std::env::var_os("FULL_LOAD").is_some()
}

/// Returns the admission calls a second, half of them for each webhook.
fn rate() -> u64 {
    if full_load() { 200 } else { 40 }
}

/// Returns the least number of calls during a test.
fn calls() -> u64 {
    if full_load() { 10_000 } else { 1_000 }
}

/// Makes the apiserver fail a request whose webhook call is lost, so that the test sees it.
const FAIL: [&str; 2] = ["--set", "validatingWebhook.failurePolicy=Fail,mutatingWebhook.failurePolicy=Fail"];

/// Sends requests to the apiserver at a fixed rate, for each of which it calls a webhook.
struct Load {
    goes_on: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    started: Instant,
    asking: tokio::task::JoinHandle<Vec<String>>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let (goes_on, done) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let asking = tokio::spawn(ask(client.clone(), goes_on.clone(), done.clone()));
        Self { goes_on, done, started: Instant::now(), asking }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until there were enough calls, stops the load and returns the number of calls. Panics if one failed.
    async fn end(self, during: &str) -> u64 {
        while self.done() < calls() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.goes_on.store(false, Ordering::Relaxed);
        let failures = self.asking.await.unwrap();
        let (done, rate) = (self.done.load(Ordering::Relaxed), self.started.elapsed().as_secs_f32());
        say(&format!(
            "{during}: {} of {done} calls failed, {:.0} calls a second",
            failures.len(),
            done as f32 / rate
        ));
        assert!(
            failures.is_empty(),
            "{} of {done}: {:?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
        done
    }
}

async fn ask(client: Client, goes_on: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Vec<String> {
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), "default");
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let mut requests = tokio::task::JoinSet::new();
    let mut failures = Vec::new();
    let mut beat = tokio::time::interval(Duration::from_micros(1_000_000 / rate()));
    for number in 0_u64.. {
        if !goes_on.load(Ordering::Relaxed) {
            break;
        }
        beat.tick().await;
        let (daemon_sets, pods, done) = (daemon_sets.clone(), pods.clone(), done.clone());
        requests.spawn(async move {
            let dry_run = PostParams { dry_run: true, ..PostParams::default() };
            let name = format!("load-{number}");
            let result = if number % 2 == 0 {
                daemon_sets.create(&dry_run, &daemon_set(&name)).await.map(drop).map_err(|e| e.to_string())
            } else {
                match pods.create(&dry_run, &daemon_pod(&name, "node")).await {
                    Ok(pod) if pod.spec.as_ref().is_some_and(|spec| spec.affinity.is_some()) => Ok(()),
                    Ok(pod) => Err(format!("not mutated: {pod:?}")),
                    Err(e) => Err(e.to_string()),
                }
            };
            done.fetch_add(1, Ordering::Relaxed);
            result.err()
        });
        while let Some(ended) = requests.try_join_next() {
            failures.extend(ended.unwrap());
        }
    }
    failures.extend(requests.join_all().await.into_iter().flatten());
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_no_call() {
    let mut release = Release::on(plane("chart-restart").await).await;
    release.install(&FAIL).await;
    let mut replicas = release.start_replicas().await;
    release.in_force().await;
    let load = Load::start(&release.client);
    // As with maxSurge 1 and maxUnavailable 0: the new replica starts first. Repeated until there were enough calls.
    let mut replaced = 0;
    while replaced < 2 || load.done() < calls() {
        replicas.push(release.start_replica().await);
        let old = replicas.remove(0);
        assert!(old.pre_stop > Duration::from_secs(2), "the chart sleeps before SIGTERM: {:?}", old.pre_stop);
        release.stop_replica(old).await;
        replaced += 1;
    }
    load.end(&format!("{replaced} replicas replaced")).await;
    let answered = release.answered("validate").await + release.answered("mutate").await;
    assert!(answered >= calls() as f64, "{answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_lose_no_call() {
    let mut release = Release::on(plane("chart-rotation").await).await;
    release.install(&FAIL).await;
    let replicas = release.start_replicas().await;
    release.in_force().await;
    let load = Load::start(&release.client);

    // Another certificate of the same CA, requested as docs/operate.md says.
    let first = key(&release, "tls.crt").await;
    let remove = json!([{ "op": "remove", "path": "/data/tls.crt" }]).to_string();
    patch_secret(&release, "--type=json", &remove).await;
    let second = changed(&release, "tls.crt", &first).await;
    say(&format!("a new certificate is in the Secret after {} calls", load.done()));

    // The same CA, near its end, and its successor, in the bundle for two days: the state after nine and a half years.
    let ca_key = key(&release, "ca.key").await;
    let ca = key(&release, "ca.crt").await;
    let old = certificate_authority(&ca_key, Some(&ca), -9 * 365, 100);
    let next_key = KeyPair::generate().unwrap().serialize_pem();
    let next = certificate_authority(&next_key, None, -2, 3650);
    let data = json!({ "data": {
        "ca.crt": STANDARD.encode(format!("{old}{next}")), "next-ca.key": STANDARD.encode(&next_key),
    } });
    patch_secret(&release, "--type=merge", &data.to_string()).await;
    changed(&release, "tls.crt", &second).await;
    assert_eq!(key(&release, "ca.key").await, next_key, "the successor signs");
    // The replica waits 5 s for the apiservers, and TLS checks the files every 2 s.
    let bundle = STANDARD.encode(key(&release, "ca.crt").await);
    eventually("both configurations have the bundle", async || {
        for kind in ["validating", "mutating"] {
            if release.ca_bundle(kind).await != bundle {
                return Err(kind.to_owned());
            }
        }
        Ok(())
    })
    .await;
    eventually_within(
        Duration::from_secs(30),
        "both replicas serve a certificate of the new CA",
        async || {
            for replica in &replicas {
                replica.serves_for(&next, &format!("{RELEASE}.{RELEASE}.svc")).await?;
            }
            Ok(())
        },
    )
    .await;
    say(&format!("the new CA's certificate is served after {} calls", load.done()));
    load.end("two new certificates and a new CA").await;
}

async fn key(release: &Release, key: &str) -> String {
    let data = release.secret().await.data.unwrap_or_default();
    data.get(key).map(|value| String::from_utf8(value.0.clone()).unwrap()).unwrap_or_default()
}

/// Waits until the Secret has another value for the key `name`, and returns it.
async fn changed(release: &Release, name: &str, from: &str) -> String {
    eventually(&format!("{name} is another"), async || {
        let now = key(release, name).await;
        if !now.is_empty() && now != from { Ok(now) } else { Err("it is not".to_owned()) }
    })
    .await
}

async fn patch_secret(release: &Release, kind: &str, patch: &str) {
    release.kubectl.succeed(&["patch", "secret", &format!("{RELEASE}-tls"), kind, "-p", patch]).await;
}

/// Returns a CA certificate for that key, with the common name of the certificate `like` if given. `from` and `to` are days
/// from now.
fn certificate_authority(key_pem: &str, like: Option<&str>, from: i64, to: i64) -> String {
    let key = KeyPair::from_pem(key_pem).unwrap();
    let mut params = match like {
        Some(pem) => {
            let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
            let parsed = pem.parse_x509().unwrap();
            let name = parsed.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
            named(&name)
        }
        None => named("daemonset-warden CA next"),
    };
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = time::OffsetDateTime::now_utc() + time::Duration::days(from);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(to);
    params.self_signed(&key).unwrap().pem()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_both_replicas_down_the_cluster_goes_on() {
    let mut release = Release::on(plane("chart-outage").await).await;
    release.install(&[]).await;
    let mut replicas = release.start_replicas().await;
    release.in_force().await;
    replicas.iter_mut().for_each(crate::harness::Replica::kill);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let pods: Api<Pod> = Api::namespaced(release.client.clone(), "default");
    let daemon_sets: Api<DaemonSet> = Api::namespaced(release.client.clone(), "default");
    let started = Instant::now();
    for number in 0..20 {
        let name = format!("outage-{number}");
        daemon_sets.create(&dry_run, &daemon_set(&name)).await.unwrap();
        let pod = pods.create(&dry_run, &daemon_pod(&name, "node")).await.unwrap();
        assert!(pod.spec.unwrap().affinity.is_none(), "as its controller wrote it");
    }
    let each = started.elapsed() / 40;
    say(&format!("with both replicas down: {each:?} a request"));
    assert!(each < Duration::from_secs(1), "a port that is closed costs no timeout: {each:?}");
    assert_eq!(release.failed_open().await, 40.0, "the apiserver counts it");

    // New replicas start, and the webhooks answer without further steps.
    for replica in replicas {
        release.endpoints().remove(replica.https());
    }
    let _replicas = release.start_replicas().await;
    eventually("the webhook answers again", async || {
        let pod = pods.create(&dry_run, &daemon_pod("back", "node")).await.map_err(|e| e.to_string())?;
        if pod.spec.unwrap().affinity.is_some() { Ok(()) } else { Err("not mutated".to_owned()) }
    })
    .await;
}
