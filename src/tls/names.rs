//! Subject alternative names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::SanType;

use crate::scheduling::names::dns_1123_subdomain_faults;

/// The DNS names and IP addresses of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames(BTreeSet<String>);

impl CertificateNames {
    /// Reads an operator's list. No certificate can be made for an entry that is neither a name nor an address: check
    /// [`CertificateNames::faults`] first.
    pub fn parse(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect())
    }

    /// Returns those that cannot be in a certificate.
    pub fn faults(&self) -> Vec<&str> {
        let good = |name: &str| {
            name.parse::<IpAddr>().is_ok()
                || dns_1123_subdomain_faults(name.trim_start_matches("*.")).is_empty()
        };
        self.0.iter().map(String::as_str).filter(|name| !good(name)).collect()
    }

    /// Returns true if each of `others` is among these.
    pub fn contains_all(&self, others: &Self) -> bool {
        others.0.is_subset(&self.0)
    }

    /// Returns these and `others`.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        Self(self.0.union(&others.0).cloned().collect())
    }

    /// Returns these as subject alternative names.
    pub(crate) fn alternatives(&self) -> Vec<SanType> {
        let alternative = |name: &String| match name.parse::<IpAddr>() {
            Ok(address) => Some(SanType::IpAddress(address)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName).ok(),
        };
        self.0.iter().filter_map(alternative).collect()
    }
}

impl FromIterator<String> for CertificateNames {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}
