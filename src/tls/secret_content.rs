//! The content of the Secret of `--tls-secret`: its bytes parsed, and a plan applied to them.

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;

use super::issue::{PemKeyPair, SigningCa};
use super::rotation_plan::{CaStep, LeafStep, Plan, SecretState};
use super::validity::Validity;
use super::x509;

/// Keys of the Secret. Those of a `kubernetes.io/tls` Secret where they mean the same, so that tools know them.
const CA_CERTIFICATES: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const NEXT_CA_KEY: &str = "next-ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The most CAs in the bundle: the one that signs, its successor, and two former ones. More are never of use, because a CA is
/// rolled over every nine years.
const MAX_CAS: usize = 4;

/// The bytes of the Secret, by key. Keys that this program does not use survive.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// The CAs and the serving certificate of a Secret. Bytes that cannot be parsed count as missing.
pub struct SecretContent {
    data: SecretData,
    /// Every CA certificate, in the Secret's order.
    cas: Vec<CertificateDer<'static>>,
    ca: Option<SigningCa>,
    next: Option<SigningCa>,
}

impl SecretContent {
    /// Parses the bytes of a Secret, and finds the CAs whose keys are in it.
    pub fn read(data: SecretData) -> Self {
        let cas = data.get(CA_CERTIFICATES).map(|pem| x509::certificates(pem)).unwrap_or_default();
        let with_key = |name: &str| SigningCa::find(&cas, data.get(name)?);
        let (ca, next) = (with_key(CA_KEY), with_key(NEXT_CA_KEY));
        Self { ca, next, cas, data }
    }

    /// Returns the facts from which [`super::rotation_plan::decide`] makes a plan.
    pub fn state(&self) -> SecretState {
        let chain = self.data.get(CERTIFICATE).map(|pem| x509::certificates(pem)).unwrap_or_default();
        let ca = self.ca.as_ref().map(|ca| &ca.certificate);
        SecretState {
            ca: self.ca.as_ref().map(|ca| ca.validity),
            next: self.next.as_ref().map(|ca| ca.validity),
            leaf: x509::leaf(&chain, self.data.get(KEY), ca),
            is_empty: self.data.is_empty(),
        }
    }

    /// Returns the CAs that clients should trust, in PEM form, as the Secret has them; empty if it has none.
    pub fn bundle(&self) -> Vec<u8> {
        self.data.get(CA_CERTIFICATES).cloned().unwrap_or_default()
    }

    /// Returns the serving certificate and its key, unparsed. Returns `None` if either is missing.
    pub fn pair(&self) -> Option<PemKeyPair> {
        Some(PemKeyPair {
            certificate: self.data.get(CERTIFICATE)?.clone(),
            key: self.data.get(KEY)?.clone(),
        })
    }

    /// Returns the validity of the CA that signs; `None` if there is no such CA with its key.
    pub(super) fn ca_validity(&self) -> Option<Validity> {
        self.ca.as_ref().map(|ca| ca.validity)
    }

    /// Returns true if `bundle`, in PEM form, has the CA that signs: clients with it trust the serving certificate. Returns false
    /// if there is no such CA.
    pub fn is_trusted_by(&self, bundle: &[u8]) -> bool {
        use rustls_pki_types::pem::PemObject;
        self.ca.as_ref().is_some_and(|ca| {
            CertificateDer::pem_slice_iter(bundle).flatten().any(|trusted| trusted == ca.certificate)
        })
    }

    /// Returns the bytes to write into the Secret.
    pub fn data(&self) -> &SecretData {
        &self.data
    }

    /// Returns the content that the plan leads to; `now` is in Unix seconds. Does not carry out [`CaStep::Restore`]: the caller has
    /// the content that was last served, and writes that back.
    ///
    /// # Errors
    /// Fails if a key or a certificate cannot be made, such as when the system gives no random bytes.
    pub fn apply_plan(&self, plan: &Plan, now: i64) -> Result<Self, rcgen::Error> {
        let mut data = self.data.clone();
        let signer = match plan.ca {
            CaStep::Promote => self.next.clone(),
            CaStep::Make => Some(make_ca(now)?),
            CaStep::Keep | CaStep::Restore => self.ca.clone(),
        };
        let mut next = match plan.ca {
            CaStep::Keep => self.next.clone(),
            // The time, which may be wrong, puts it out of use: it is kept until it is valid again.
            CaStep::Make => self.ca.clone(),
            CaStep::Promote | CaStep::Restore => None,
        };
        if plan.make_next {
            next = Some(make_ca(now)?);
        }
        // The CA that signs comes first. Former ones stay trusted until they expire, because replicas and schedulers hear of a change
        // at different times.
        let mut cas: Vec<_> = signer.iter().chain(&next).map(|ca| ca.certificate.clone()).collect();
        for former in &self.cas {
            let lasts = x509::parse(former)
                .is_some_and(|parsed| parsed.is_ca() && !x509::validity(&parsed).is_over(now));
            if lasts && !cas.contains(former) && cas.len() < MAX_CAS {
                cas.push(former.clone());
            }
        }
        data.insert(CA_CERTIFICATES.to_owned(), x509::to_pem(&cas));
        if let Some(signer) = &signer {
            data.insert(CA_KEY.to_owned(), signer.key_pem.clone().into_bytes());
            if let LeafStep::Sign(names) = &plan.leaf {
                let pair = signer.sign(names, now)?;
                data.insert(CERTIFICATE.to_owned(), pair.certificate);
                data.insert(KEY.to_owned(), pair.key);
            }
        }
        match next {
            Some(next) => data.insert(NEXT_CA_KEY.to_owned(), next.key_pem.into_bytes()),
            None => data.remove(NEXT_CA_KEY),
        };
        Ok(Self::read(data))
    }
}

/// Makes a CA. Its subject has the Unix time, so that people, and verifiers that look for an issuer by name, can tell CAs apart.
fn make_ca(now: i64) -> Result<SigningCa, rcgen::Error> {
    SigningCa::make(&format!("daemonset-warden CA {now}"), now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::tls::names::CertificateNames;
    use crate::tls::rotation_plan::{CA_LIFETIME, CA_PROPAGATION_TIME, CA_SWITCH, decide};
    use crate::tls::validity::DAY;

    const NOW: i64 = 1_800_000_000;

    fn names() -> CertificateNames {
        CertificateNames::parse(&["a.b.svc".to_owned(), "10.96.0.50".to_owned(), "fd00::1".to_owned()])
    }

    /// Follows plans until there is nothing to do.
    fn settle(mut content: SecretContent, now: i64) -> SecretContent {
        for _ in 0..3 {
            let plan = decide(&content.state(), None, &names(), now);
            if !plan.writes() {
                return content;
            }
            content = content.apply_plan(&plan, now).unwrap();
        }
        panic!("never settles: {:?}", decide(&content.state(), None, &names(), now));
    }

    /// Returns true if a client that trusts `bundle` would connect, at `now`.
    fn verifies(bundle: &[u8], content: &SecretContent, now: i64) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(bundle) {
            roots.add(ca.unwrap()).unwrap();
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let leaf = x509::certificates(&content.data[CERTIFICATE]).remove(0);
        ["a.b.svc", "10.96.0.50", "fd00::1"].into_iter().all(|name| {
            let name = ServerName::try_from(name).unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unsigned_abs()));
            verifier.verify_server_cert(&leaf, &[], &name, &[], now).is_ok()
        })
    }

    #[test]
    fn what_is_made_from_nothing_verifies_and_is_left_alone() {
        let content = settle(SecretContent::read(SecretData::new()), NOW);
        assert!(verifies(&content.bundle(), &content, NOW));
        let again = SecretContent::read(content.data.clone());
        assert!(!decide(&again.state(), None, &names(), NOW + DAY).writes());
    }

    #[test]
    fn a_roll_over_never_shows_clients_what_they_do_not_trust() {
        let mut now = NOW;
        let mut content = settle(SecretContent::read(SecretData::new()), now);
        let scheduler = content.bundle();
        // A scheduler with the first bundle is good until the switch, one with the second from the roll-over on.
        let end = NOW + CA_LIFETIME;
        let mut second = None;
        while now < end - CA_SWITCH {
            assert!(verifies(&scheduler, &content, now), "{} days before the end", (end - now) / DAY);
            now += 10 * DAY;
            content = settle(content, now);
            if second.is_none() && content.bundle() != scheduler {
                second = Some(content.bundle());
            }
        }
        let second = second.unwrap();
        while now < end + 400 * DAY {
            now += CA_PROPAGATION_TIME;
            content = settle(content, now);
            assert!(verifies(&second, &content, now), "{} days after the end", (now - end) / DAY);
        }
        assert_eq!(x509::certificates(&content.bundle()).len(), 1, "the first CA has expired, and is gone");
    }

    /// While the clock is wrong there is a CA that is good by it, and afterwards again the one that schedulers were given.
    #[test]
    fn a_clock_that_jumps_and_comes_back_costs_nobody_their_trust() {
        let year = 365 * DAY;
        for jump in [-56 * year, -2 * year, -40 * DAY, -2 * 60 * 60, 2 * 60 * 60, 40 * DAY, 20 * year] {
            let before = settle(SecretContent::read(SecretData::new()), NOW - 10 * DAY);
            let during = settle(SecretContent::read(before.data.clone()), NOW + jump);
            if jump.abs() > DAY {
                let ca = during.ca_validity().unwrap();
                assert!(ca.not_before <= NOW + jump && NOW + jump < ca.not_after, "{jump}: {ca:?}");
                assert!(verifies(&during.bundle(), &during, NOW + jump), "{jump}");
            }
            let after = settle(SecretContent::read(during.data), NOW + DAY);
            assert!(verifies(&before.bundle(), &after, NOW + DAY), "{jump}: a scheduler from before");
            assert_eq!(after.ca_validity(), before.ca_validity(), "{jump}");
            let later = settle(SecretContent::read(after.data.clone()), NOW + 2 * DAY);
            assert_eq!(later.data, after.data, "{jump}: and there is peace");
        }
    }

    #[test]
    fn a_lost_ca_key_means_a_new_ca_beside_the_old_one() {
        let before = settle(SecretContent::read(SecretData::new()), NOW);
        let mut data = before.data.clone();
        data.insert(CA_KEY.to_owned(), b"no key".to_vec());
        let after = settle(SecretContent::read(data), NOW);
        assert!(verifies(&after.bundle(), &before, NOW) && verifies(&after.bundle(), &after, NOW));
        assert!(!verifies(&before.bundle(), &after, NOW));
        assert!(!after.is_trusted_by(&before.bundle()));
    }

    #[test]
    fn a_ca_of_a_curve_that_there_is_not_does_not_sign_again_and_again() {
        let before = settle(SecretContent::read(SecretData::new()), NOW);
        let mut ca = x509::certificates(&before.data[CA_CERTIFICATES]).remove(0).to_vec();
        // prime256v1, 1.2.840.10045.3.1.7
        let curve = ca.windows(8).position(|bytes| bytes == b"\x2a\x86\x48\xce\x3d\x03\x01\x07").unwrap();
        ca[curve + 4] ^= 0x10;
        let mut data = before.data.clone();
        data.insert(CA_CERTIFICATES.to_owned(), x509::to_pem(&[ca.into()]));
        let after = settle(SecretContent::read(data), NOW);
        assert!(verifies(&after.bundle(), &after, NOW));
    }

    #[test]
    fn spoilt_bytes_are_as_good_as_missing_and_foreign_keys_survive() {
        let data = |key: &str, bytes: &[u8]| SecretData::from([(key.to_owned(), bytes.to_vec())]);
        for key in [CA_CERTIFICATES, CA_KEY, NEXT_CA_KEY, CERTIFICATE, KEY] {
            let content =
                settle(SecretContent::read(data(key, b"\xff-----BEGIN CERTIFICATE-----\nAAAA\n")), NOW);
            assert!(verifies(&content.bundle(), &content, NOW), "{key}");
        }
        let content = settle(SecretContent::read(data("theirs", b"x")), NOW);
        assert_eq!(content.data["theirs"], b"x");
    }
}
