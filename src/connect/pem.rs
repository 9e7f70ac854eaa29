//! Files in PEM format: certificates, and where libpq looks for them by default.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, Result};

/// The certificates of a file, which holds one at least.
///
/// # Errors
/// Configuration: the file cannot be read.
pub(super) fn certificates(file: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = || Error::configuration(format!("cannot read {what} \"{}\"", file.display()));
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| {
            wrong()
                .with_source(error)
                .with_hint("Give a file in PEM format that this process may read.")
        })?;
    if found.is_empty() {
        return Err(wrong().with_detail("There is no certificate in it."));
    }
    Ok(found)
}

/// libpq's file of this name in ~/.postgresql, if it is there.
pub(super) fn default_file(name: &str) -> Option<PathBuf> {
    let file = std::env::home_dir()?.join(".postgresql").join(name);
    file.exists().then_some(file)
}
