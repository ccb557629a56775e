//! Faults that users and wrong clocks cause in a release. The replicas repair them, or report them by a metric and a log line,
//! and no replica exits.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, Issuer, KeyPair};
use serde_json::{Value, json};

use super::chart::plane;
use crate::harness::{Certificate, RELEASE, Release, Replica, eventually, eventually_within, say};

const WRITES: &str = "daemonset_warden_tls_secret_writes_total";
const FAILURES: &str = "daemonset_warden_certificate_reload_failures_total";
const MISSING: &str = "daemonset_warden_webhook_configuration_missing";
const EXPIRES: &str = "daemonset_warden_certificate_expiration_timestamp_seconds";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoilt_secret_and_a_deleted_configuration_are_put_right() {
    let mut release = Release::on(plane("chart-faults").await).await;
    release.install(&[]).await;
    let mut replica = release.start_replica().await;
    release.in_force().await;
    let ca = value(&release, "ca.crt").await;
    let of_ca =
        Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&value(&release, "ca.key").await).unwrap()).unwrap();

    let expired = leaf(&of_ca, -90, -1);
    let early = leaf(&of_ca, 30, 120);
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for (fault, data, logged) in [
        (
            "the key of another pair",
            vec![("tls.key", KeyPair::generate().unwrap().serialize_pem())],
            "key is missing or of another",
        ),
        (
            "an expired pair",
            vec![("tls.crt", expired.0), ("tls.key", expired.1)],
            "the certificate has expired",
        ),
        (
            "a pair of a clock that is ahead",
            vec![("tls.crt", early.0), ("tls.key", early.1)],
            "is not valid yet",
        ),
        (
            "garbage",
            ["ca.crt", "ca.key", "tls.crt", "tls.key"].map(|key| (key, garbage.to_owned())).into(),
            "missing or spoilt",
        ),
    ] {
        let before = replica.metric(WRITES, &[]).await;
        put(&release, &format!("{RELEASE}-tls"), &data).await;
        eventually_within(Duration::from_secs(20), &format!("{fault} is put right"), async || {
            let writes = replica.metric(WRITES, &[]).await - before;
            if writes == 1.0 { Ok(()) } else { Err(format!("{writes} writes")) }
        })
        .await;
        assert!(replica.log().contains(logged), "{fault}: {}", replica.log());
        assert_eq!(value(&release, "ca.crt").await, ca, "{fault}: the CA stays, so that clients trust it");
        in_force_still(&release, fault).await;
    }
    replica.serves_for(&ca, &format!("{RELEASE}.{RELEASE}.svc")).await.unwrap();

    // Without its configuration the mutating webhook is not called, and the replica reports that. `helm upgrade` creates the
    // configuration again, without a CA bundle.
    release.kubectl.succeed(&["delete", "mutatingwebhookconfiguration", RELEASE]).await;
    eventually("the replica says that it is gone", async || {
        let missing = replica.metric(MISSING, &[("webhook", "mutate")]).await;
        if missing == 1.0 { Ok(()) } else { Err(format!("{missing}")) }
    })
    .await;
    assert!(replica.log().contains("the webhook configuration is gone"), "{}", replica.log());
    release.upgrade(&[]).await;
    in_force_still(&release, "a configuration that came back").await;
    eventually("the replica says that it is there", async || {
        let missing = replica.metric(MISSING, &[]).await;
        if missing == 0.0 { Ok(()) } else { Err(format!("{missing}")) }
    })
    .await;
    assert!(replica.runs() && replica.is_ready().await);
}

/// With `tls.source: secret`, the user creates the Secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_pair_of_ones_own_is_waited_for_and_never_taken_into_use() {
    let mut release = Release::on(plane("chart-own-secret").await).await;
    release.kubectl.succeed(&["create", "namespace", RELEASE]).await;
    let good = Certificate::issue_for(&[&format!("{RELEASE}.{RELEASE}.svc")]);
    let other = KeyPair::generate().unwrap().serialize_pem();
    put(&release, "mine", &[("tls.crt", good.certificate.clone()), ("tls.key", other)]).await;
    let ca = std::env::temp_dir().join(format!("daemonset-warden-{}-ca.crt", std::process::id()));
    std::fs::write(&ca, &good.ca).unwrap();
    let bundle = format!("tls.secret.caBundle={}", ca.display());
    release.install(&["--set=tls.source=secret,tls.secret.name=mine", "--set-file", &bundle]).await;
    std::fs::remove_file(&ca).unwrap();

    let mut replica = release.start_unready_replica().await;
    let failures = failures(&replica, 0.0, "a pair that is none").await;
    assert!(!replica.is_ready().await && replica.runs(), "it waits: {}", replica.log());
    assert!(replica.log().contains("cannot be used together"), "{}", replica.log());
    put(&release, "mine", &[("tls.key", good.key.clone())]).await;
    replica.remount(&release).await;
    replica.ready().await;
    release.endpoints().add(replica.https());
    release.in_force().await;
    say(&format!("ready with a good pair after {failures} looks at a bad one"));

    let expires = replica.metric(EXPIRES, &[("certificate", "serving")]).await;
    let expired = leaf(&good.issuer(), -90, -1);
    let garbage = ("-----BEGIN CERTIFICATE-----\nAAAA".to_owned(), good.key.clone());
    for (fault, (certificate, key), logged) in
        [("an expired pair", expired, "has expired already"), ("garbage", garbage, "holds no certificate")]
    {
        let before = replica.metric(FAILURES, &[]).await;
        put(&release, "mine", &[("tls.crt", certificate), ("tls.key", key)]).await;
        replica.remount(&release).await;
        self::failures(&replica, before, fault).await;
        assert!(replica.log().contains(logged), "{fault}: {}", replica.log());
        assert_eq!(
            replica.metric(EXPIRES, &[("certificate", "serving")]).await,
            expires,
            "{fault}: the good one stays"
        );
        in_force_still(&release, fault).await;
    }
    assert!(replica.runs() && replica.is_ready().await);
    assert_eq!(release.failed_open().await, 0.0);
}

/// Waits until more reloads have failed than `before`, and returns the number.
async fn failures(replica: &Replica, before: f64, fault: &str) -> f64 {
    eventually(&format!("{fault} is counted"), async || {
        let now = replica.metric_if_any(FAILURES).await.ok_or("no metrics yet")?;
        if now > before { Ok(now) } else { Err(format!("{now} failures")) }
    })
    .await
}

/// Waits until the apiserver has called both webhooks again, and both have answered.
async fn in_force_still(release: &Release, fault: &str) {
    let answered = async || (release.answered("validate").await, release.answered("mutate").await);
    let before = answered().await;
    eventually(&format!("both webhooks are asked after {fault}"), async || {
        release.probe().await;
        let now = answered().await;
        if now.0 > before.0 && now.1 > before.1 { Ok(()) } else { Err(format!("{before:?}, {now:?}")) }
    })
    .await;
}

async fn value(release: &Release, key: &str) -> String {
    let data = release.secret().await.data.unwrap_or_default();
    String::from_utf8(data[key].0.clone()).unwrap()
}

async fn put(release: &Release, secret: &str, data: &[(&str, String)]) {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, text)| ((*key).to_owned(), json!(STANDARD.encode(text)))).collect();
    let object =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": secret }, "data": data });
    let outcome = release
        .kubectl
        .run_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &object.to_string())
        .await;
    assert!(outcome.success, "{outcome:?}");
}

/// Returns a certificate of that CA for the release's Service, and its key. `from` and `to` are days from now.
fn leaf(of: &Issuer<'_, KeyPair>, from: i64, to: i64) -> (String, String) {
    let names = vec![format!("{RELEASE}.{RELEASE}.svc"), format!("{RELEASE}.{RELEASE}"), RELEASE.to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = time::OffsetDateTime::now_utc() + time::Duration::days(from);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(to);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, of).unwrap().pem(), key.serialize_pem())
}
