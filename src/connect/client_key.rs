//! The key of the client's certificate: plain, or encrypted by PKCS#8 (`sslpassword`).

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pkcs8::der::SecretDocument;
use pkcs8::{EncryptedPrivateKeyInfoRef, pkcs5};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::conninfo::Secret;
use crate::error::{Error, Result};

const BEGIN_ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END_ENCRYPTED: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// In the header of a key that is encrypted in OpenSSL's old way.
const OLD_ENCRYPTION: &str = "Proc-Type: 4,ENCRYPTED";

/// The key cannot be read, whatever the reason.
pub(super) fn unreadable(key_file: &Path) -> Error {
    Error::configuration(format!(
        "cannot read the client's key \"{}\"",
        key_file.display()
    ))
    .with_hint("Give a key in PEM format that this process may read.")
}

/// Reads the key of a client certificate.
///
/// # Errors
/// Configuration: the file cannot be read, others may read it too, or the password is wrong.
pub(super) fn private_key(
    key_file: &Path,
    password: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>> {
    check_private(key_file)?;
    let text = std::fs::read(key_file).map_err(|error| unreadable(key_file).with_source(error))?;
    // Certificates may have any text around them.
    let text = String::from_utf8_lossy(&text);
    let undecrypted = |error: Error| {
        error.context(format!(
            "cannot decrypt the client's key \"{}\"",
            key_file.display()
        ))
    };
    if let Some(encrypted) = encrypted_key(&text) {
        return decrypted(encrypted, password).map_err(|failure| match failure {
            Failure::Password(error) => undecrypted(error),
            Failure::Form(error) => undecrypted(error).with_hint(conversion(key_file)),
        });
    }
    if text.contains(OLD_ENCRYPTION) {
        let error = Error::configuration("it is encrypted in OpenSSL's old way, not by PKCS#8");
        return Err(undecrypted(error).with_hint(conversion(key_file)));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| unreadable(key_file).with_source(error))
}

/// The line that gives the key another form.
fn conversion(key_file: &Path) -> String {
    format!(
        "Convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -in {} -out NEW_FILE",
        key_file.display()
    )
}

fn encrypted_key(text: &str) -> Option<&str> {
    let from = text.find(BEGIN_ENCRYPTED)?;
    let text = text.get(from..)?;
    let to = text.find(END_ENCRYPTED)?;
    text.get(..to.saturating_add(END_ENCRYPTED.len()))
}

/// Why a key is not decrypted.
enum Failure {
    Password(Error),
    /// Another encryption would help.
    Form(Error),
}

fn decrypted(pem: &str, password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, Failure> {
    let form = |error: pkcs8::Error| {
        let what = "it is encrypted in a way that cdc does not read";
        Failure::Form(Error::configuration(what).with_source(error))
    };
    let password = password.ok_or_else(|| {
        let missing = Error::configuration("its password is missing");
        Failure::Password(missing.with_hint("Give it in sslpassword."))
    })?;
    let (_, document) = SecretDocument::from_pem(pem).map_err(|error| form(error.into()))?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(form)?;
    match encrypted.decrypt(password.expose()) {
        Ok(key) => Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into()),
        Err(
            error @ pkcs8::Error::EncryptedPrivateKey(
                pkcs5::Error::UnsupportedAlgorithm { .. }
                | pkcs5::Error::NoPbes1CryptSupport
                | pkcs5::Error::AlgorithmParametersInvalid { .. },
            ),
        ) => Err(form(error)),
        // A wrong password gives bytes that are no key.
        Err(_) => {
            let wrong = Error::configuration("its password is wrong");
            Err(Failure::Password(wrong.with_hint("Correct sslpassword.")))
        }
    }
}

/// As libpq: a key that others may read is no secret. One that belongs to root may be read by its
/// group.
fn check_private(key_file: &Path) -> Result<()> {
    let Ok(metadata) = std::fs::metadata(key_file) else {
        // That it cannot be read is found next.
        return Ok(());
    };
    let open_to = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & open_to == 0 {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "the client's key \"{}\" may be read by others",
        key_file.display()
    ))
    .with_hint("Set its permissions to 0600, or to 0640 if it belongs to root."))
}

#[cfg(test)]
mod tests;
