//! What went wrong with TLS, and what to do about it.

use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::error::Error;

/// An error of the handshake.
pub(super) fn of_handshake(error: io::Error) -> Error {
    if is_about_our_certificate(&error) {
        return not_taken(error);
    }
    let hint = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(why)) => advice(why),
        // The host's name can be in no certificate.
        _ if error.kind() == io::ErrorKind::InvalidInput => NAME,
        _ => {
            return Error::transient("could not agree on TLS with the server").with_source(error);
        }
    };
    Error::configuration("cannot verify the server's certificate")
        .with_source(error)
        .with_hint(hint)
}

const NAME: &str = "verify-full needs the host's name in the certificate's subjectAltName: connect by a name that \
    is there, or give the server another certificate.";

fn advice(why: &CertificateError) -> &'static str {
    let text = why.to_string();
    if text.contains("CaUsedAsEndEntity") {
        return "It is marked as an authority, as `openssl req -x509` does: put this very certificate into the file of \
                sslrootcert, and use no sslcrl; or give the server one that an authority has signed.";
    }
    if text.contains("UnsupportedCertVersion") {
        return "Only certificates of X.509 version 3 are understood: give `openssl x509 -req` an -extfile.";
    }
    match why {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => NAME,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "Give the server a new certificate. If it is valid, check this machine's clock."
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "Check the clocks of this machine and of the one that made the certificate."
        }
        CertificateError::Revoked => {
            "Its authority has revoked it (sslcrl): give the server a new certificate."
        }
        CertificateError::UnknownIssuer => {
            "Put the certificate of the authority that signed it into the file of sslrootcert. If you have not changed \
             it, make sure that it is your server."
        }
        _ => "Check sslrootcert, sslcrl and the server's certificate.",
    }
}

/// Whether the server ended TLS because of the client's certificate.
pub(super) fn is_about_our_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired
        ))
    )
}

/// The server does not take the client's certificate.
pub(super) fn not_taken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::configuration("the server does not take the client's certificate")
        .with_source(error)
        .with_hint(
            "Its authority must be in the server's ssl_ca_file, and it must be valid and not revoked. Without one, \
             set sslcertmode=disable.",
        )
}
