//! Makes CAs and serving certificates, for both the shared Secret and the development folder. Times are in Unix seconds.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

use super::names::CertificateNames;
use super::rotation_plan::{CA_LIFETIME, CLOCK_SKEW, LEAF_LIFETIME};
use super::validity::{Validity, system_time};
use super::x509;

/// The subject of serving certificates.
const LEAF_NAME: &str = "daemonset-warden";

/// A certificate and its key, both in PEM form.
#[derive(Clone, PartialEq, Eq)]
pub struct PemKeyPair {
    /// The certificate, followed by its intermediate ones.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for PemKeyPair {
    /// Formats no field, so that the key is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemKeyPair").finish_non_exhaustive()
    }
}

/// A CA with its key. The certificate is kept as bytes, because the parser's result borrows them.
#[derive(Clone)]
pub(super) struct SigningCa {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) validity: Validity,
    pub(super) key_pem: String,
}

impl SigningCa {
    /// Makes a CA of subject `name` that is valid for [`CA_LIFETIME`] from `now`. Fails if the system gives no random bytes.
    pub(super) fn make(name: &str, now: i64) -> Result<Self, rcgen::Error> {
        let mut params = params(name, now, now + CA_LIFETIME);
        // It signs serving certificates and nothing below them.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.der().clone();
        let validity = Validity { not_before: now - CLOCK_SKEW, not_after: now + CA_LIFETIME };
        Ok(Self { certificate, validity, key_pem: key.serialize_pem() })
    }

    /// Returns the first self-signed CA in `certificates` that the private key `key_pem` belongs to. Returns `None` if the key
    /// cannot be read, or no such CA has it. Validity in time is not checked.
    pub(super) fn find(certificates: &[CertificateDer<'static>], key_pem: &[u8]) -> Option<Self> {
        let key = x509::key(key_pem)?;
        // A CA must verify its own signature. Otherwise it also fails to verify what it signs, and every check would issue a new
        // certificate.
        let is_whole = |ca: &X509Certificate<'_>| ca.is_ca() && ca.verify_signature(None).is_ok();
        let certificate = certificates.iter().find(|certificate| {
            x509::parse(certificate).is_some_and(|parsed| x509::is_key_of(&key, &parsed) && is_whole(&parsed))
        })?;
        Some(Self {
            certificate: certificate.clone(),
            validity: x509::validity(&x509::parse(certificate)?),
            key_pem: std::str::from_utf8(key_pem).ok()?.to_owned(),
        })
    }

    /// Makes a serving certificate that is valid for [`LEAF_LIFETIME`] from `now`, but not longer than the CA. Fails if the system
    /// gives no random bytes, or if the CA's certificate or key cannot be used.
    pub(super) fn sign(&self, names: &CertificateNames, now: i64) -> Result<PemKeyPair, rcgen::Error> {
        let mut params = params(LEAF_NAME, now, (now + LEAF_LIFETIME).min(self.validity.not_after));
        params.subject_alt_names = names.alternatives();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::from_ca_cert_der(&self.certificate, KeyPair::from_pem(&self.key_pem)?)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(PemKeyPair { certificate: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() })
    }
}

/// Makes a pair that no client trusts, to listen with until there is a better one: a closed port would look like a dead process.
/// Fails if the system gives no random bytes.
pub(super) fn provisional(names: &CertificateNames, now: i64) -> Result<PemKeyPair, rcgen::Error> {
    SigningCa::make("daemonset-warden provisional CA", now)?.sign(names, now)
}

fn params(name: &str, now: i64, not_after: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = system_time(now - CLOCK_SKEW).into();
    params.not_after = system_time(not_after).into();
    params
}
