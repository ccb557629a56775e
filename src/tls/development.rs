//! A CA and a serving certificate of our own, for a start without any preparation.
//!
//! ```text
//! certs/ca.crt  what clients trust     certs/ca.key   signs the next certificate
//! certs/tls.crt what clients are shown certs/tls.key  its key
//! certs/.lock   held while any of them is read or written, so that two servers may share the folder
//! ```
//! Files are replaced by renaming, so nobody ever sees half of one. Files that we did not make are never touched.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, files};
use crate::tls::issue::unix_time;

/// What clients trust.
pub(super) const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
/// What clients are shown.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// Its key.
pub(super) const KEY: &str = "tls.key";
const LOCK: &str = ".lock";

/// By this subject we know our own CA again.
const CA_NAME: &str = "daemonset-warden development CA";
const LEAF_NAME: &str = "daemonset-warden";
/// Clients are configured with the CA by hand, so it stays.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * DAY);
/// Short, so that renewal is a thing that happens.
const LEAF_LIFETIME: Duration = Duration::from_secs(90 * DAY);
/// A third of its life, as cert-manager does.
const LEAF_RENEWAL: Duration = Duration::from_secs(30 * DAY);
/// A leaf must not outlive its CA.
const CA_RENEWAL: Duration = Duration::from_secs((90 + 30) * DAY);
/// Clocks of a cluster differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// Making both takes milliseconds; who holds the lock for longer hangs.
const LOCK_TIME: Duration = Duration::from_secs(5);
const DAY: u64 = 24 * 60 * 60;

/// A certificate and its key, as they stand in their files.
pub(super) struct PemKeyPair {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// The certificate and key in `directory`, made or renewed if need be.
pub(super) fn ensure(directory: &Path, address: IpAddr, now: SystemTime) -> Result<PemKeyPair, TlsError> {
    let names = names(address);
    // Most looks need no lock: what is good stays good. A pair torn by another server's renewal is not good.
    if let Some(pair) = usable(directory, &names, now)? {
        return Ok(pair);
    }
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Io { action, path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(io("make", directory))?;
    let _lock = lock(&directory.join(LOCK))?;
    if let Some(pair) = usable(directory, &names, now)? {
        return Ok(pair);
    }
    let issuer = match existing_ca(directory, now)? {
        Some(issuer) => issuer,
        None => new_ca(directory, now)?,
    };
    new_leaf(directory, &names, &issuer, now)
}

/// What the certificate must name: how people and clusters reach a server that they try out.
fn names(address: IpAddr) -> Vec<SanType> {
    let mut names = Vec::new();
    for name in [
        "localhost",
        "daemonset-warden",
        "daemonset-warden.daemonset-warden.svc",
        "daemonset-warden.kube-system.svc",
    ] {
        // ASCII always converts.
        names.extend(name.try_into().map(SanType::DnsName));
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_lowercase();
    if crate::scheduling::names::dns_1123_subdomain_faults(&host).is_empty() && host != "localhost" {
        names.extend(host.try_into().map(SanType::DnsName));
    }
    names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    names.push(SanType::IpAddress(Ipv6Addr::LOCALHOST.into()));
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(SanType::IpAddress(address));
    }
    names
}

/// The pair, if it is there and may be served for a while.
fn usable(directory: &Path, names: &[SanType], now: SystemTime) -> Result<Option<PemKeyPair>, TlsError> {
    let (certificate_path, key_path) = (directory.join(CERTIFICATE), directory.join(KEY));
    let Some(certificate) = read_if_there(&certificate_path)? else { return Ok(None) };
    let Some(ca) = read_if_there(&directory.join(CA_CERTIFICATE))? else { return Ok(None) };
    let leaf = files::chain(&certificate_path, &certificate).ok();
    let ca = files::chain(&directory.join(CA_CERTIFICATE), &ca).ok();
    let (Some(leaf), Some(ca)) = (leaf, ca) else {
        return Err(TlsError::NotOurs(certificate_path));
    };
    let (Ok((_, leaf)), Ok((_, ca))) =
        (X509Certificate::from_der(&leaf[0]), X509Certificate::from_der(&ca[0]))
    else {
        return Err(TlsError::NotOurs(certificate_path));
    };
    if !is_named(leaf.issuer(), CA_NAME) {
        return Err(TlsError::NotOurs(certificate_path));
    }
    let Some(key) = read_if_there(&key_path)? else { return Ok(None) };
    let signed = leaf.verify_signature(Some(ca.public_key())).is_ok();
    let named = leaf.subject_alternative_name().ok().flatten().is_some_and(|found| {
        names.iter().all(|name| found.value.general_names.iter().any(|general| is_same(general, name)))
    });
    let lasts = leaf.validity().not_after.timestamp() > unix_time(now + LEAF_RENEWAL)
        && leaf.validity().not_before.timestamp() <= unix_time(now);
    let matches = std::str::from_utf8(&key)
        .ok()
        .and_then(|pem| KeyPair::from_pem(pem).ok())
        .is_some_and(|key| key.public_key_raw() == &*leaf.public_key().subject_public_key.data);
    Ok((signed && named && lasts && matches).then_some(PemKeyPair { certificate, key }))
}

/// The CA in the folder, if it may sign.
fn existing_ca(directory: &Path, now: SystemTime) -> Result<Option<Issuer<'static, KeyPair>>, TlsError> {
    let path = directory.join(CA_CERTIFICATE);
    let Some(pem) = read_if_there(&path)? else {
        // A key without its certificate is nothing that we leave behind.
        let key = directory.join(CA_KEY);
        return if key.exists() { Err(TlsError::NotOurs(key)) } else { Ok(None) };
    };
    let Ok(chain) = files::chain(&path, &pem) else { return Err(TlsError::NotOurs(path)) };
    let Ok((_, ca)) = X509Certificate::from_der(&chain[0]) else { return Err(TlsError::NotOurs(path)) };
    if !is_named(ca.subject(), CA_NAME) {
        return Err(TlsError::NotOurs(path));
    }
    let Some(key) = read_if_there(&directory.join(CA_KEY))? else {
        tracing::warn!(
            "the development CA's key is gone, so there will be a new CA: clients need the new {CA_CERTIFICATE}"
        );
        return Ok(None);
    };
    // One that is not valid yet was made before our clock was set back, or will be right again: clients have it.
    let lasts = ca.validity().not_after.timestamp() > unix_time(now + CA_RENEWAL);
    let key = std::str::from_utf8(&key).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
    let key = key.filter(|key| key.public_key_raw() == &*ca.public_key().subject_public_key.data);
    match (lasts, key) {
        (true, Some(key)) => Issuer::from_ca_cert_der(&chain[0], key).map(Some).map_err(TlsError::Make),
        _ => {
            tracing::warn!(
                "the development CA is about to expire or lost its key, so there will be a new one: clients need the new {CA_CERTIFICATE}"
            );
            Ok(None)
        }
    }
}

fn new_ca(directory: &Path, now: SystemTime) -> Result<Issuer<'static, KeyPair>, TlsError> {
    let mut params = params(CA_NAME, now, CA_LIFETIME);
    // It signs serving certificates and nothing below them.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(TlsError::Make)?;
    let certificate = params.self_signed(&key).map_err(TlsError::Make)?;
    // In this order: a certificate whose key is missing is known to be ours, a key alone could be anybody's.
    write(&directory.join(CA_CERTIFICATE), certificate.pem().as_bytes(), 0o644)?;
    write(&directory.join(CA_KEY), key.serialize_pem().as_bytes(), 0o600)?;
    tracing::info!(ca = %directory.join(CA_CERTIFICATE).display(), "made a development CA");
    Ok(Issuer::new(params, key))
}

fn new_leaf(
    directory: &Path,
    names: &[SanType],
    issuer: &Issuer<'static, KeyPair>,
    now: SystemTime,
) -> Result<PemKeyPair, TlsError> {
    let mut params = params(LEAF_NAME, now, LEAF_LIFETIME);
    params.subject_alt_names = names.to_vec();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(TlsError::Make)?;
    let certificate = params.signed_by(&key, issuer).map_err(TlsError::Make)?.pem().into_bytes();
    let key = key.serialize_pem().into_bytes();
    write(&directory.join(KEY), &key, 0o600)?;
    write(&directory.join(CERTIFICATE), &certificate, 0o644)?;
    tracing::info!(certificate = %directory.join(CERTIFICATE).display(), "made a serving certificate");
    Ok(PemKeyPair { certificate, key })
}

fn params(name: &str, now: SystemTime, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + lifetime).into();
    params
}

/// Replaces a file in one step, with its permissions set before anything is in it.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let io = |source| TlsError::Io { action: "write", path: path.to_owned(), source };
    // Only the holder of the lock writes, so one name is enough, and what a crash left behind is replaced.
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let result = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // Half a file is of no use to anybody; if it stays, the next attempt removes it.
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(io)
}

/// Waits for the folder's lock, which the system takes back from a process that dies.
fn lock(path: &PathBuf) -> Result<File, TlsError> {
    let io = |source| TlsError::Io { action: "lock", path: path.clone(), source };
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
    let end = Instant::now() + LOCK_TIME;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Err(TlsError::Locked(path.clone())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    match files::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(TlsError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_named(name: &x509_parser::x509::X509Name<'_>, expected: &str) -> bool {
    name.iter_common_name().any(|found| found.as_str() == Ok(expected))
}

fn is_same(found: &GeneralName<'_>, name: &SanType) -> bool {
    match (found, name) {
        (GeneralName::DNSName(found), SanType::DnsName(name)) => *found == name.as_str(),
        (GeneralName::IPAddress(found), SanType::IpAddress(IpAddr::V4(name))) => *found == name.octets(),
        (GeneralName::IPAddress(found), SanType::IpAddress(IpAddr::V6(name))) => *found == name.octets(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn whatever_the_clock_says_there_is_a_pair_that_is_valid_then() {
        let directory = tempfile::tempdir().unwrap();
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let (now, day) = (SystemTime::now(), Duration::from_secs(DAY));
        let ca = || fs::read(directory.path().join(CA_CERTIFICATE)).unwrap();
        let ensured = |now| {
            let pair = ensure(directory.path(), address, now).unwrap();
            let chain = files::chain(Path::new(CERTIFICATE), &pair.certificate).unwrap();
            let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
            assert!(leaf.validity().not_before.timestamp() <= unix_time(now));
            assert!(leaf.validity().not_after.timestamp() > unix_time(now));
            (pair.certificate, ca())
        };
        let first = ensured(now);
        assert_eq!(ensured(now + 59 * day), first);
        // Forward: another leaf of the same CA. And back again: that one is not valid yet.
        let later = ensured(now + 70 * day);
        assert!(later.0 != first.0 && later.1 == first.1);
        let again = ensured(now);
        assert!(again.0 != later.0 && again.1 == first.1);
        // Before the clock was set: clients have that CA, and will keep it. Long after its end there is another.
        let original = ca();
        assert_eq!(ensured(UNIX_EPOCH).1, original);
        let other = ensured(now + 20 * 365 * day).1;
        assert_ne!(other, original);
        assert_eq!(ensured(now).1, other);
    }
}
