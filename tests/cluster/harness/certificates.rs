//! Certificates for servers on 127.0.0.1, each from a CA of its own.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// PEM texts.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Certificate {
    pub(crate) fn issue() -> Self {
        let mut authority = CertificateParams::new(Vec::<String>::new()).expect("no names to refuse");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key pair");
        let ca = authority.self_signed(&authority_key).expect("a CA").pem();
        let issuer = Issuer::new(authority, authority_key);

        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let key = KeyPair::generate().expect("a key pair");
        let leaf = CertificateParams::new(names).expect("valid names");
        let certificate = leaf.signed_by(&key, &issuer).expect("a certificate").pem();
        Self { ca, certificate, key: key.serialize_pem() }
    }

    /// Writes `tls.crt` and `tls.key`.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::write(folder.join("tls.crt"), &self.certificate).expect("the certificate can be written");
        std::fs::write(folder.join("tls.key"), &self.key).expect("the key can be written");
    }
}
