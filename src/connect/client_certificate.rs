//! The certificate that the client shows, and what becomes of it in a handshake.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};

use super::client_key::{private_key, unreadable};
use super::demands::ClientCertificate;
use super::pem::{certificates, default_file};
use crate::conninfo::{Conninfo, SslCertMode};
use crate::error::{Error, Result};

/// The certificate and the key that the connection string names, or libpq's default ones.
///
/// # Errors
/// Configuration: one of the files cannot be read, they do not belong together, or the key's
/// password is wrong.
pub(super) fn client_certificate(
    conninfo: &Conninfo,
    provider: &CryptoProvider,
) -> Result<Option<CertifiedKey>> {
    if conninfo.ssl_cert_mode == SslCertMode::Disable {
        return Ok(None);
    }
    let given = |value: &Option<String>, default| match value {
        Some(file) => Some(PathBuf::from(file)),
        None => default_file(default),
    };
    let Some(file) = given(&conninfo.ssl_cert, "postgresql.crt") else {
        return Ok(None);
    };
    let chain = certificates(&file, "client certificate file")?;
    let Some(key_file) = given(&conninfo.ssl_key, "postgresql.key") else {
        return Err(Error::configuration(format!(
            "a key is missing for the client certificate \"{}\"",
            file.display()
        ))
        .with_hint("Give the file of the key in sslkey."));
    };
    let key = private_key(&key_file, conninfo.ssl_password.as_ref())?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| unreadable(&key_file).with_source(error))?;
    let certificate = CertifiedKey::new(chain, key);
    // Not `with_client_auth_cert`: it refuses certificates of X.509 version 1, which the server may
    // take.
    match certificate.keys_match() {
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(Error::configuration(format!(
                "the client's key \"{}\" is not the key of the certificate \"{}\"",
                key_file.display(),
                file.display()
            ))
            .with_hint("Give two files that belong together in sslcert and sslkey."))
        }
        _ => Ok(Some(certificate)),
    }
}

/// Shows the certificate, and notes whether the server asked for it.
#[derive(Debug)]
pub(super) struct Watched {
    certificate: Arc<dyn ResolvesClientCert>,
    outcome: Arc<Outcome>,
}

/// What became of the client's certificate in one handshake.
#[derive(Debug, Default)]
pub(crate) struct Outcome(AtomicU8);

const MISSING: u8 = 1;
const SHOWN: u8 = 2;

impl Outcome {
    pub(super) fn get(&self) -> ClientCertificate {
        match self.0.load(Ordering::Relaxed) {
            MISSING => ClientCertificate::Missing,
            SHOWN => ClientCertificate::Shown,
            _ => ClientCertificate::NotAsked,
        }
    }
}

impl Watched {
    /// The same certificate for one connection, and what becomes of it.
    pub(super) fn new(certificate: Arc<dyn ResolvesClientCert>) -> (Arc<Self>, Arc<Outcome>) {
        let outcome = Arc::new(Outcome::default());
        let watched = Self {
            certificate,
            outcome: Arc::clone(&outcome),
        };
        (Arc::new(watched), outcome)
    }
}

impl ResolvesClientCert for Watched {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let found = self
            .certificate
            .resolve(root_hint_subjects, sigschemes)
            // Otherwise rustls shows none.
            .filter(|found| found.key.choose_scheme(sigschemes).is_some());
        let outcome = if found.is_some() { SHOWN } else { MISSING };
        self.outcome.0.store(outcome, Ordering::Relaxed);
        found
    }

    fn has_certs(&self) -> bool {
        self.certificate.has_certs()
    }
}
