//! Certificates for servers on 127.0.0.1 and for clients. Each comes from its own CA.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A certificate, its key and its CA, in PEM.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) ca: String,
    ca_key: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Certificate {
    pub(crate) fn issue() -> Self {
        Self::issue_for(&["127.0.0.1", "localhost"])
    }

    /// Issues a serving certificate for these DNS names.
    pub(crate) fn issue_for(names: &[&str]) -> Self {
        let mut authority = CertificateParams::new(Vec::<String>::new()).expect("no names to refuse");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key pair");
        let ca = authority.self_signed(&authority_key).expect("a CA").pem();
        let ca_key = authority_key.serialize_pem();
        let issuer = Issuer::new(authority, authority_key);

        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().expect("a key pair");
        let leaf = CertificateParams::new(names).expect("valid names");
        let certificate = leaf.signed_by(&key, &issuer).expect("a certificate").pem();
        Self { ca, ca_key, certificate, key: key.serialize_pem() }
    }

    /// Returns the CA, to sign further certificates.
    pub(crate) fn issuer(&self) -> Issuer<'static, KeyPair> {
        let key = KeyPair::from_pem(&self.ca_key).expect("our own key");
        Issuer::from_ca_cert_pem(&self.ca, key).expect("our own CA")
    }

    /// Writes `tls.crt` and `tls.key`.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::write(folder.join("tls.crt"), &self.certificate).expect("the certificate can be written");
        std::fs::write(folder.join("tls.key"), &self.key).expect("the key can be written");
    }
}
