//! TLS as libpq does it: what is trusted, and what each sslmode verifies.
//!
//! | sslmode | without a root certificate | with one (sslrootcert or ~/.postgresql/root.crt) |
//! |---|---|---|
//! | allow, prefer, require | nothing is verified | chain |
//! | verify-ca | error | chain |
//! | verify-full | chain, to the system's authorities, and host name | chain and host name |
//!
//! `sslrootcert=system` takes the system's authorities and demands verify-full, as libpq does.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use super::client_certificate::client_certificate;
use super::pem::{certificates, default_file};
use crate::conninfo::{Conninfo, SslMode, TlsVersion};
use crate::error::{Error, Result};

/// The value of sslrootcert that means the system's authorities.
const SYSTEM: &str = "system";

/// The TLS side of every connection to this server.
///
/// # Errors
/// Configuration: a certificate or key that is missing or cannot be read, or an sslmode that does
/// not go with it.
pub(crate) fn client_config(conninfo: &Conninfo) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let trust = trust(conninfo)?;
    let verifier = Verifier {
        revocation: revocation(conninfo, &trust, &provider)?,
        trust,
        check_name: conninfo.ssl_mode == SslMode::VerifyFull,
        algorithms: provider.signature_verification_algorithms,
    };
    let config = with_provider(Arc::clone(&provider), conninfo)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(match client_certificate(conninfo, &provider)? {
        None => config.with_no_client_auth(),
        Some(certificate) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)))
        }
    })
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn with_provider(provider: Arc<CryptoProvider>, conninfo: &Conninfo) -> Result<Builder> {
    let spoken = |version| conninfo.least_tls <= version && version <= conninfo.most_tls;
    let versions: Vec<&SupportedProtocolVersion> =
        [(TlsVersion::V1_2, &TLS12), (TlsVersion::V1_3, &TLS13)]
            .into_iter()
            .filter_map(|(version, supported)| spoken(version).then_some(supported))
            .collect();
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| Error::configuration("cannot set up TLS").with_source(error))
}

/// Whom a server's certificate must come from.
#[derive(Debug)]
enum Trust {
    Anybody,
    Authorities {
        roots: RootCertStore,
        /// The certificates themselves: a server may show one of them (the manual's self-signed
        /// certificate).
        certificates: Vec<CertificateDer<'static>>,
    },
}

fn trust(conninfo: &Conninfo) -> Result<Trust> {
    match conninfo.ssl_root_cert.as_deref() {
        Some(SYSTEM) if conninfo.ssl_mode != SslMode::VerifyFull => Err(Error::configuration(
            "sslrootcert=system demands sslmode=verify-full",
        )
        .with_hint("Set sslmode to verify-full, or sslrootcert to a file.")),
        Some(SYSTEM) => system_authorities(),
        Some(file) => authorities(Path::new(file)),
        None => match default_file("root.crt") {
            Some(file) => authorities(&file),
            None if conninfo.ssl_mode == SslMode::VerifyFull => system_authorities(),
            None if conninfo.ssl_mode == SslMode::VerifyCa => Err(Error::configuration(
                "root certificate file \"~/.postgresql/root.crt\" does not exist",
            )
            .with_hint(
                "Give the file in sslrootcert, use sslrootcert=system, or take another sslmode.",
            )),
            None => Ok(Trust::Anybody),
        },
    }
}

fn system_authorities() -> Result<Trust> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::configuration(
            "cannot find the system's trusted certificates (sslrootcert=system)",
        )
        .with_hint("Install the package ca-certificates, or give a file in sslrootcert."));
    }
    Ok(Trust::Authorities {
        roots,
        certificates: Vec::new(),
    })
}

fn authorities(file: &Path) -> Result<Trust> {
    let certificates = certificates(file, "root certificate file")?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    Ok(Trust::Authorities {
        roots,
        certificates,
    })
}

/// Verifies with the list of revoked certificates, where there is one and chains are verified.
fn revocation(
    conninfo: &Conninfo,
    trust: &Trust,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>> {
    let (Some(file), Trust::Authorities { roots, .. }) = (&conninfo.ssl_crl, trust) else {
        return Ok(None);
    };
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::configuration(format!(
            "cannot read certificate revocation list \"{file}\""
        ))
        .with_source(error)
        .with_hint(
            "Give a file in PEM format that this process may read. Only lists of version 2 are \
                 understood: with openssl, set crl_extensions.",
        )
    };
    let lists = CertificateRevocationListDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(error.into()))?;
    let roots = Arc::new(roots.clone());
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .with_crls(lists)
        .enforce_revocation_expiration()
        .build()
        .map(Some)
        .map_err(|error| wrong(error.into()))
}

/// The name is verified by itself, since not every sslmode asks for it.
fn not_revoked(verified: Result<ServerCertVerified, rustls::Error>) -> Result<(), rustls::Error> {
    match verified {
        Err(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Ok(()),
        verified => verified.map(|_| ()),
    }
}

/// Of a certificate that vouches for itself only the time counts, which is verified before its
/// issuer.
fn in_time(verified: Result<(), rustls::Error>) -> Result<(), rustls::Error> {
    match verified {
        Err(
            error @ rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ),
        ) => Err(error),
        _ => Ok(()),
    }
}

/// Verifies what the sslmode asks for. That the server has the certificate's key is always
/// verified.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    /// Verifies chains beside a list of revoked certificates.
    revocation: Option<Arc<WebPkiServerVerifier>>,
    check_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trust::Authorities {
            roots,
            certificates,
        } = &self.trust
        else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        // A certificate that the user has put into the root file needs no other to vouch for it,
        // until it expires. webpki would refuse it if it is marked as an authority, as `openssl req
        // -x509` does.
        if let Some(revocation) = &self.revocation {
            not_revoked(revocation.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                &[],
                now,
            ))?;
        } else {
            let algorithms = self.algorithms.all;
            let verified = verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            );
            if certificates.contains(end_entity) {
                in_time(verified)?;
            } else {
                verified?;
            }
        }
        if self.check_name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conninfo(ssl_mode: SslMode, root: Option<&str>) -> Conninfo {
        Conninfo {
            ssl_mode,
            ssl_root_cert: root.map(str::to_owned),
            ..Conninfo::default()
        }
    }

    #[test]
    fn system_authorities_demand_verify_full() {
        for mode in [SslMode::Prefer, SslMode::Require, SslMode::VerifyCa] {
            let error = client_config(&conninfo(mode, Some(SYSTEM))).unwrap_err();
            assert_eq!(
                error.message(),
                "sslrootcert=system demands sslmode=verify-full"
            );
        }
    }

    #[test]
    fn a_root_file_that_is_missing_or_empty_is_an_error() {
        let missing =
            client_config(&conninfo(SslMode::Require, Some("/nowhere/root.crt"))).unwrap_err();
        assert_eq!(
            missing.message(),
            "cannot read root certificate file \"/nowhere/root.crt\""
        );
        let empty = client_config(&conninfo(SslMode::VerifyCa, Some("/dev/null"))).unwrap_err();
        assert_eq!(empty.detail(), Some("There is no certificate in it."));
        assert_eq!(empty.class(), crate::error::Class::Configuration);
    }
}
