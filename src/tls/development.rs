//! A development CA and a serving certificate in a folder, for a start without any preparation.
//!
//! ```text
//! certs/ca.crt  trusted by clients     certs/ca.key   signs the next certificate
//! certs/tls.crt shown to clients       certs/tls.key  its key
//! certs/.lock   held while any of them is written, so that two servers may share the folder
//! ```
//! Files are replaced by renaming, so no reader sees half of one. Files that daemonset-warden did not make are never touched.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::issue::{PemKeyPair, SigningCa};
use super::names::CertificateNames;
use super::rotation_plan::{LEAF_LIFETIME, LEAF_RENEWAL};
use super::{TlsError, files, x509};

/// The file of the CA's certificate, which clients trust.
pub(super) const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
/// The file of the serving certificate, which clients are shown.
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
const LOCK: &str = ".lock";

/// The subject of a development CA, by which this program knows its own.
const CA_NAME: &str = "daemonset-warden development CA";
/// The least number of seconds that a CA must have left; otherwise it is replaced. A serving certificate must not outlive its CA.
const CA_RENEWAL: i64 = LEAF_LIFETIME + LEAF_RENEWAL;
/// The longest wait for the folder's lock. Making both certificates takes milliseconds; a process that holds the lock for longer
/// hangs.
const LOCK_TIME: Duration = Duration::from_secs(5);

/// Returns the certificate and key in `directory`, made or renewed if need be. `now` is in Unix seconds. Blocks on files, and on
/// the folder's lock for up to [`LOCK_TIME`]. Fails if a file cannot be read or written, if the lock is not free in time, or if the
/// folder has another program's certificate or CA.
pub(super) fn ensure(directory: &Path, address: IpAddr, now: i64) -> Result<PemKeyPair, TlsError> {
    let names = names(address);
    // Most calls need no lock: a good pair stays good. A pair torn by another server's renewal is not good.
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
    let ca = match existing_ca(directory, now)? {
        Some(ca) => ca,
        None => new_ca(directory, now)?,
    };
    new_leaf(directory, &names, &ca, now)
}

/// Returns the names by which people and clusters reach a server that they try out, with `address` if it is a particular one.
fn names(address: IpAddr) -> CertificateNames {
    let mut names = vec![
        "localhost".to_owned(),
        "daemonset-warden".to_owned(),
        "daemonset-warden.daemonset-warden.svc".to_owned(),
        "daemonset-warden.kube-system.svc".to_owned(),
        Ipv4Addr::LOCALHOST.to_string(),
        Ipv6Addr::LOCALHOST.to_string(),
    ];
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_lowercase();
    if crate::scheduling::names::dns_1123_subdomain_faults(&host).is_empty() {
        names.push(host);
    }
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    CertificateNames::parse(&names)
}

/// Returns the pair in the folder. Returns `None` if a file is missing, or if the pair is to be renewed: it has [`LEAF_RENEWAL`] or
/// less left, is not valid yet, lacks a name, or was not made by the folder's CA. Fails if a file cannot be read, or the
/// certificate is not ours.
fn usable(directory: &Path, names: &CertificateNames, now: i64) -> Result<Option<PemKeyPair>, TlsError> {
    let (path, ca_path) = (directory.join(CERTIFICATE), directory.join(CA_CERTIFICATE));
    let Some(certificate) = read_if_there(&path)? else { return Ok(None) };
    let Some(ca) = read_if_there(&ca_path)? else { return Ok(None) };
    let (chain, ca) = (x509::certificates(&certificate), x509::certificates(&ca));
    let is_ours = chain.first().and_then(x509::parse).is_some_and(|leaf| is_named(leaf.issuer(), CA_NAME))
        && ca.first().and_then(x509::parse).is_some();
    if !is_ours {
        return Err(TlsError::NotOurs(path));
    }
    let Some(key) = read_if_there(&directory.join(KEY))? else { return Ok(None) };
    let is_usable = x509::leaf(&chain, Some(&key), ca.first()).is_some_and(|leaf| {
        let lasts = leaf.validity.not_before <= now && leaf.validity.left(now) > LEAF_RENEWAL;
        leaf.is_signed_by_ca && leaf.has_key && lasts && leaf.names.contains_all(names)
    });
    Ok(is_usable.then_some(PemKeyPair { certificate, key }))
}

/// Returns the CA in the folder. Returns `None` if there is none, or it may not sign: it is about to expire, or its key is gone.
/// Fails if a file cannot be read, if the CA is not ours, or if there is a key without a CA.
fn existing_ca(directory: &Path, now: i64) -> Result<Option<SigningCa>, TlsError> {
    let (path, key_path) = (directory.join(CA_CERTIFICATE), directory.join(CA_KEY));
    let Some(pem) = read_if_there(&path)? else {
        // We never leave a key behind without its certificate.
        return if key_path.exists() { Err(TlsError::NotOurs(key_path)) } else { Ok(None) };
    };
    let mut certificates = x509::certificates(&pem);
    certificates.truncate(1);
    let is_ours =
        certificates.first().and_then(x509::parse).is_some_and(|ca| is_named(ca.subject(), CA_NAME));
    if !is_ours {
        return Err(TlsError::NotOurs(path));
    }
    let Some(key) = read_if_there(&key_path)? else {
        tracing::warn!(
            "the development CA's key is gone, so there will be a new CA: clients need the new {CA_CERTIFICATE}"
        );
        return Ok(None);
    };
    // A CA that is not valid yet was made before our clock was set back, or will be right again: clients have it.
    let ca = SigningCa::find(&certificates, &key).filter(|ca| ca.validity.left(now) > CA_RENEWAL);
    if ca.is_none() {
        tracing::warn!(
            "the development CA is about to expire or lost its key, so there will be a new one: clients need the new {CA_CERTIFICATE}"
        );
    }
    Ok(ca)
}

fn new_ca(directory: &Path, now: i64) -> Result<SigningCa, TlsError> {
    let ca = SigningCa::make(CA_NAME, now).map_err(TlsError::Make)?;
    let path = directory.join(CA_CERTIFICATE);
    // In this order: a certificate whose key is missing is known to be ours, a key alone could be of any origin.
    write(&path, &x509::to_pem(std::slice::from_ref(&ca.certificate)), 0o644)?;
    write(&directory.join(CA_KEY), ca.key_pem.as_bytes(), 0o600)?;
    tracing::info!(ca = %path.display(), "made a development CA");
    Ok(ca)
}

fn new_leaf(
    directory: &Path,
    names: &CertificateNames,
    ca: &SigningCa,
    now: i64,
) -> Result<PemKeyPair, TlsError> {
    let pair = ca.sign(names, now).map_err(TlsError::Make)?;
    let path = directory.join(CERTIFICATE);
    write(&directory.join(KEY), &pair.key, 0o600)?;
    write(&path, &pair.certificate, 0o644)?;
    tracing::info!(certificate = %path.display(), "made a serving certificate");
    Ok(pair)
}

/// Replaces a file in one step. Its permissions are set before it has any content.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let io = |source| TlsError::Io { action: "write", path: path.to_owned(), source };
    // Only the process with the lock writes, so one name is enough, and a file that a crash left behind is replaced.
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
        // Half a file is of no use; if it stays, the next attempt removes it.
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(io)
}

/// Takes the folder's lock and returns the file that holds it. Fails if the lock is not free within [`LOCK_TIME`]. The kernel takes
/// the lock back from a process that dies.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::validity::{DAY, local_time};

    #[test]
    fn whatever_the_clock_says_there_is_a_pair_that_is_valid_then() {
        let directory = tempfile::tempdir().unwrap();
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let now = local_time();
        let ca = || fs::read(directory.path().join(CA_CERTIFICATE)).unwrap();
        let ensured = |now| {
            let pair = ensure(directory.path(), address, now).unwrap();
            let chain = x509::certificates(&pair.certificate);
            let validity = x509::validity(&x509::parse(&chain[0]).unwrap());
            assert!(validity.not_before <= now);
            assert!(validity.not_after > now);
            (pair.certificate, ca())
        };
        let first = ensured(now);
        assert_eq!(ensured(now + 59 * DAY), first);
        // Forward: another leaf of the same CA. And back again: that one is not valid yet.
        let later = ensured(now + 70 * DAY);
        assert!(later.0 != first.0 && later.1 == first.1);
        let again = ensured(now);
        assert!(again.0 != later.0 && again.1 == first.1);
        // Before the clock was set: clients have that CA, and will keep it. Long after its end there is another.
        let original = ca();
        assert_eq!(ensured(0).1, original);
        let other = ensured(now + 20 * 365 * DAY).1;
        assert_ne!(other, original);
        assert_eq!(ensured(now).1, other);
    }
}
