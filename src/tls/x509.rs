//! Reads certificates and keys, mostly those that this program made. Bytes that cannot be parsed count as missing.

use std::net::IpAddr;

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names::CertificateNames;
use super::rotation_plan::Leaf;
use super::validity::Validity;

/// Returns the certificates in `pem`, in order. Returns an empty list if any of them is malformed.
pub(super) fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap_or_default()
}

pub(super) fn to_pem(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let encode = |der: &CertificateDer<'_>| pem::encode_config(&pem::Pem::new("CERTIFICATE", &**der), config);
    certificates.iter().map(encode).collect::<String>().into_bytes()
}

pub(super) fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

pub(super) fn validity(certificate: &X509Certificate<'_>) -> Validity {
    Validity {
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    }
}

/// Reads a private key in PEM form. Returns `None` if it cannot be parsed.
pub(super) fn key(pem: &[u8]) -> Option<KeyPair> {
    KeyPair::from_pem(std::str::from_utf8(pem).ok()?).ok()
}

pub(super) fn is_key_of(key: &KeyPair, certificate: &X509Certificate<'_>) -> bool {
    key.public_key_raw() == &*certificate.public_key().subject_public_key.data
}

/// Returns the facts about the serving certificate, which is the first of `chain`: `key_pem` is its private key, `ca` the CA that
/// should have signed it. Returns `None` if the chain is empty, or its first certificate cannot be parsed.
pub(super) fn leaf(
    chain: &[CertificateDer<'_>],
    key_pem: Option<&Vec<u8>>,
    ca: Option<&CertificateDer<'_>>,
) -> Option<Leaf> {
    let certificate = parse(chain.first()?)?;
    let ca = ca.and_then(parse);
    Some(Leaf {
        validity: validity(&certificate),
        is_signed_by_ca: ca.is_some_and(|ca| certificate.verify_signature(Some(ca.public_key())).is_ok()),
        has_key: key_pem.and_then(|pem| key(pem)).is_some_and(|key| is_key_of(&key, &certificate)),
        names: alternative_names(&certificate),
    })
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
