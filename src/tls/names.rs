//! The DNS names and IP addresses that a certificate is for: its subject alternative names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::SanType;

use crate::scheduling::names::dns_1123_subdomain_faults;

/// The DNS names and IP addresses of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames(BTreeSet<String>);

impl CertificateNames {
    /// Creates the set from an operator's list, in lower case and without empty entries. Entries are not checked: call
    /// [`CertificateNames::faults`] before a certificate is made.
    pub fn parse(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect())
    }

    /// Returns the entries that are neither a DNS name, with or without `*.` before it, nor an IP address; empty if all are good.
    pub fn faults(&self) -> Vec<&str> {
        let good = |name: &str| {
            name.parse::<IpAddr>().is_ok()
                || dns_1123_subdomain_faults(name.trim_start_matches("*.")).is_empty()
        };
        self.0.iter().map(String::as_str).filter(|name| !good(name)).collect()
    }

    /// Returns true if every name of `others` is in this set.
    pub fn contains_all(&self, others: &Self) -> bool {
        others.0.is_subset(&self.0)
    }

    /// Returns the names of this set and of `others`.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        Self(self.0.union(&others.0).cloned().collect())
    }

    /// Returns the names as subject alternative names, without those that are not ASCII.
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
