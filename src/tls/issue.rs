//! Keys and certificates: what a Secret's bytes say, and what a plan makes of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names::CertificateNames;
use super::rotation_plan::{
    CA_LIFETIME, CLOCK_SKEW, CaStep, LEAF_LIFETIME, Leaf, LeafStep, Plan, SecretState,
};
use super::validity::Validity;

/// Keys of the Secret. Those of a `kubernetes.io/tls` Secret where they mean the same, so that tools know them.
pub const CA_CERTIFICATES: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const NEXT_CA_KEY: &str = "next-ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Former CAs that are still trusted. More than two are never of use: one is rolled over every nine years.
const MAX_CAS: usize = 4;

/// The bytes of the Secret, by key. Keys that are not ours survive.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// What a Secret's bytes say. Whatever cannot be read is as good as missing.
pub struct SecretContent {
    data: SecretData,
    /// Every CA certificate, in the Secret's order.
    cas: Vec<CertificateDer<'static>>,
    ca: Option<SigningCa>,
    next: Option<SigningCa>,
}

/// A CA with its key. Its certificate's bytes are parsed where they are needed: the parser borrows them.
struct SigningCa {
    certificate: CertificateDer<'static>,
    validity: Validity,
    key_pem: String,
}

impl SecretContent {
    /// Reads what is there.
    pub fn read(data: SecretData) -> Self {
        let cas = certificates(data.get(CA_CERTIFICATES));
        let with_key = |name: &str| {
            let key_pem = String::from_utf8(data.get(name)?.clone()).ok()?;
            let key = KeyPair::from_pem(&key_pem).ok()?;
            // It has signed itself; one that cannot verify that would not verify what it signs either, and would sign for ever.
            let is_whole = |ca: &X509Certificate<'_>| ca.is_ca() && ca.verify_signature(None).is_ok();
            let certificate = cas.iter().find(|certificate| {
                parse(certificate).is_some_and(|parsed| is_key_of(&key, &parsed) && is_whole(&parsed))
            })?;
            let validity = validity(&parse(certificate)?);
            Some(SigningCa { certificate: certificate.clone(), validity, key_pem })
        };
        let (ca, next) = (with_key(CA_KEY), with_key(NEXT_CA_KEY));
        Self { ca, next, cas, data }
    }

    /// What matters for a plan.
    pub fn facts(&self) -> SecretState {
        SecretState {
            ca: self.ca.as_ref().map(|ca| ca.validity),
            next: self.next.as_ref().map(|ca| ca.validity),
            leaf: self.leaf(),
            is_empty: self.data.is_empty(),
        }
    }

    fn leaf(&self) -> Option<Leaf> {
        let chain = certificates(self.data.get(CERTIFICATE));
        let certificate = parse(chain.first()?)?;
        let key = self.data.get(KEY).and_then(|key| std::str::from_utf8(key).ok());
        let ca = self.ca.as_ref().and_then(|ca| parse(&ca.certificate));
        Some(Leaf {
            validity: validity(&certificate),
            is_signed_by_ca: ca.is_some_and(|ca| certificate.verify_signature(Some(ca.public_key())).is_ok()),
            has_key: key
                .and_then(|pem| KeyPair::from_pem(pem).ok())
                .is_some_and(|key| is_key_of(&key, &certificate)),
            names: alternative_names(&certificate),
        })
    }

    /// What clients should trust, in PEM.
    pub fn bundle(&self) -> Vec<u8> {
        self.data.get(CA_CERTIFICATES).cloned().unwrap_or_default()
    }

    /// The certificate and its key, in PEM, as they are served.
    pub fn pair(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((self.data.get(CERTIFICATE)?.clone(), self.data.get(KEY)?.clone()))
    }

    /// From when to when the CA that signs is good.
    pub fn ca_validity(&self) -> Option<Validity> {
        self.ca.as_ref().map(|ca| ca.validity)
    }

    /// Whether somebody who trusts `bundle` trusts the certificate that is served.
    pub fn is_trusted_by(&self, bundle: &[u8]) -> bool {
        self.ca.as_ref().is_some_and(|ca| {
            CertificateDer::pem_slice_iter(bundle).flatten().any(|trusted| trusted == ca.certificate)
        })
    }

    /// All bytes, for the Secret.
    pub fn data(&self) -> &SecretData {
        &self.data
    }

    /// Does what the plan says, but for [`CaStep::Restore`], which needs what is held.
    ///
    /// # Errors
    /// When a key or a certificate cannot be made: there is no randomness, or a name is none.
    pub fn follow(&self, plan: &Plan, now: i64) -> Result<Self, rcgen::Error> {
        let mut data = self.data.clone();
        let mut cas: Vec<_> = Vec::new();
        let mut signer = match plan.ca {
            CaStep::Promote => self.next.as_ref().map(SigningCa::copy),
            CaStep::Make => None,
            CaStep::Keep | CaStep::Restore => self.ca.as_ref().map(SigningCa::copy),
        };
        if plan.ca == CaStep::Make {
            signer = Some(new_ca(now)?);
        }
        let mut next = match plan.ca {
            CaStep::Keep => self.next.as_ref().map(SigningCa::copy),
            // Out of use by the time that it is, which may be wrong: it is kept for when its time comes.
            CaStep::Make => self.ca.as_ref().map(SigningCa::copy),
            CaStep::Promote | CaStep::Restore => None,
        };
        if plan.make_next {
            next = Some(new_ca(now)?);
        }
        // The one that signs comes first; those that signed before it stay trusted until they expire, because replicas
        // and schedulers hear of a change at different times.
        cas.extend(signer.iter().chain(&next).map(|ca| ca.certificate.clone()));
        for former in &self.cas {
            let lasts =
                parse(former).is_some_and(|parsed| parsed.is_ca() && validity(&parsed).not_after > now);
            if lasts && !cas.contains(former) && cas.len() < MAX_CAS {
                cas.push(former.clone());
            }
        }
        data.insert(CA_CERTIFICATES.to_owned(), pem(&cas));
        if let Some(signer) = &signer {
            data.insert(CA_KEY.to_owned(), signer.key_pem.clone().into_bytes());
            if let LeafStep::Sign(names) = &plan.leaf {
                let (certificate, key) = sign(signer, names, now)?;
                data.insert(CERTIFICATE.to_owned(), certificate);
                data.insert(KEY.to_owned(), key);
            }
        }
        match next {
            Some(next) => data.insert(NEXT_CA_KEY.to_owned(), next.key_pem.into_bytes()),
            None => data.remove(NEXT_CA_KEY),
        };
        Ok(Self::read(data))
    }
}

impl SigningCa {
    fn copy(&self) -> Self {
        Self { certificate: self.certificate.clone(), validity: self.validity, key_pem: self.key_pem.clone() }
    }
}

/// A pair that nobody trusts, to listen with until the Secret is there: a closed port would look like a dead process.
///
/// # Errors
/// When there is no randomness.
pub fn provisional(names: &CertificateNames, now: i64) -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    sign(&new_ca(now)?, names, now)
}

fn new_ca(now: i64) -> Result<SigningCa, rcgen::Error> {
    // The date tells one CA from the next, for people and for verifiers that look for an issuer by name.
    let mut params = params(&format!("daemonset-warden CA {now}"), now, now + CA_LIFETIME);
    // It signs serving certificates and nothing below them.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.der().clone();
    let validity = Validity { not_before: now - CLOCK_SKEW, not_after: now + CA_LIFETIME };
    Ok(SigningCa { certificate, validity, key_pem: key.serialize_pem() })
}

fn sign(ca: &SigningCa, names: &CertificateNames, now: i64) -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    // A certificate must not outlive its CA.
    let mut params = params("daemonset-warden", now, (now + LEAF_LIFETIME).min(ca.validity.not_after));
    params.subject_alt_names = names.alternatives();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let issuer = Issuer::from_ca_cert_der(&ca.certificate, KeyPair::from_pem(&ca.key_pem)?)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok((certificate.pem().into_bytes(), key.serialize_pem().into_bytes()))
}

fn params(name: &str, now: i64, not_after: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = time(now - CLOCK_SKEW);
    params.not_after = time(not_after);
    params
}

/// A time as seconds since 1970. Before that is a clock that was not set: nothing has expired then.
pub fn unix_time(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

fn time(seconds: i64) -> time::OffsetDateTime {
    (UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs())).into()
}

/// The certificates in a PEM file; none if any of it is spoilt.
fn certificates(pem: Option<&Vec<u8>>) -> Vec<CertificateDer<'static>> {
    let Some(pem) = pem else { return Vec::new() };
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap_or_default()
}

fn pem(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    use base64::Engine;
    let mut text = String::new();
    for certificate in certificates {
        text += "-----BEGIN CERTIFICATE-----\n";
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        for start in (0..encoded.len()).step_by(64) {
            text += &encoded[start..encoded.len().min(start + 64)];
            text.push('\n');
        }
        text += "-----END CERTIFICATE-----\n";
    }
    text.into_bytes()
}

fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

fn validity(certificate: &X509Certificate<'_>) -> Validity {
    Validity {
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    }
}

fn is_key_of(key: &KeyPair, certificate: &X509Certificate<'_>) -> bool {
    key.public_key_raw() == &*certificate.public_key().subject_public_key.data
}

fn alternative_names(certificate: &X509Certificate<'_>) -> CertificateNames {
    let Some(names) = certificate.subject_alternative_name().ok().flatten() else {
        return CertificateNames::default();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|bytes| IpAddr::from(bytes).to_string());
            four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|bytes| IpAddr::from(bytes).to_string())).ok()
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::super::validity::DAY;
    use super::*;
    use crate::tls::rotation_plan::{CA_NOTICE, CA_SWITCH, decide};

    const NOW: i64 = 1_800_000_000;

    fn names() -> CertificateNames {
        CertificateNames::parse(&["a.b.svc".to_owned(), "10.96.0.50".to_owned(), "fd00::1".to_owned()])
    }

    /// Follows plans until there is nothing to do.
    fn settle(mut content: SecretContent, now: i64) -> SecretContent {
        for _ in 0..3 {
            let plan = decide(&content.facts(), None, &names(), now);
            if !plan.writes() {
                return content;
            }
            content = content.follow(&plan, now).unwrap();
        }
        panic!("never settles: {:?}", decide(&content.facts(), None, &names(), now));
    }

    /// Whether somebody who trusts `bundle` would connect, at `now`.
    fn verifies(bundle: &[u8], content: &SecretContent, now: i64) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(bundle) {
            roots.add(ca.unwrap()).unwrap();
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let leaf = certificates(content.data.get(CERTIFICATE)).remove(0);
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
        assert!(!decide(&again.facts(), None, &names(), NOW + DAY).writes());
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
            now += CA_NOTICE;
            content = settle(content, now);
            assert!(verifies(&second, &content, now), "{} days after the end", (now - end) / DAY);
        }
        assert_eq!(certificates(Some(&content.bundle())).len(), 1, "the first CA has expired, and is gone");
    }

    /// What a clock that is wrong for a while leaves behind: during it there is a CA that is good by that clock, and after it
    /// the one that schedulers were given.
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
        let mut ca = certificates(before.data.get(CA_CERTIFICATES)).remove(0).to_vec();
        // prime256v1, 1.2.840.10045.3.1.7
        let curve = ca.windows(8).position(|bytes| bytes == b"\x2a\x86\x48\xce\x3d\x03\x01\x07").unwrap();
        ca[curve + 4] ^= 0x10;
        let mut data = before.data.clone();
        data.insert(CA_CERTIFICATES.to_owned(), pem(&[ca.into()]));
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
