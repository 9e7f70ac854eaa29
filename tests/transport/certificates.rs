//! Certificates of servers and clients, for every connection that `cdc` opens: what is taken, and
//! what is said of the rest.

use cdc::conninfo::{Conninfo, Secret, SslCertMode, SslMode, TlsVersion};
use cdc::error::Class;

use super::place::{certificates, everywhere, on_tcp, server_with};

/// `tls`, or the error, which is one of configuration.
async fn outcome(conninfo: &Conninfo) -> String {
    match everywhere(conninfo).await {
        Ok(true) => "tls".to_owned(),
        Ok(false) => "plain".to_owned(),
        Err(error) => {
            assert_eq!(error.class(), Class::Configuration, "{error:?}");
            format!("{error:?}")
        }
    }
}

fn file(name: &str) -> Option<String> {
    Some(certificates().path(name))
}

#[tokio::test]
async fn a_servers_certificate_is_verified_on_both_sides() {
    let with = |root: &str, change: fn(&mut Conninfo)| {
        let mut conninfo = Conninfo {
            ssl_root_cert: file(root),
            ..on_tcp("scram", SslMode::VerifyFull)
        };
        change(&mut conninfo);
        conninfo
    };
    let cannot = "cannot verify the server's certificate: ";
    for (conninfo, expected) in [
        (with("ca.crt", |_| ()), vec!["tls"]),
        (
            with("other.crt", |_| ()),
            vec![cannot, "UnknownIssuer", "into the file of sslrootcert"],
        ),
        (
            with("ca.crt", |conninfo| {
                conninfo.hosts[0].host = "elsewhere".to_owned()
            }),
            vec![
                cannot,
                "not valid for name \"elsewhere\"",
                "(hint: verify-full needs the host's name",
            ],
        ),
        (
            with("ca.crt", |conninfo| conninfo.ssl_crl = file("revoked.crl")),
            vec![cannot, "Revoked", "(hint: Its authority has revoked it"],
        ),
        (
            with("ca.crt", |conninfo| conninfo.ssl_crl = file("empty.crl")),
            vec!["tls"],
        ),
    ] {
        let found = outcome(&conninfo).await;
        for text in expected {
            assert!(found.contains(text), "{found}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_not_taken() {
    for (name, certificate, root) in [
        ("expired", "expired.crt", "ca.crt"),
        ("expired-itself", "expired_itself.crt", "expired_itself.crt"),
    ] {
        let (_cluster, conninfo) = server_with(name, certificate, "server.key");
        let conninfo = Conninfo {
            ssl_root_cert: file(root),
            ..conninfo
        };
        let found = outcome(&conninfo).await;
        assert!(
            found.contains("cannot verify the server's certificate: ")
                && found.contains("expired")
                && found.contains("(hint: Give the server a new certificate."),
            "{name}: {found}"
        );
    }
}

#[tokio::test]
async fn a_server_may_be_its_own_authority() {
    let (_cluster, conninfo) = server_with("itself", "itself.crt", "server.key");
    let with_root = |root: &str, ssl_mode| Conninfo {
        ssl_root_cert: file(root),
        ssl_mode,
        ..conninfo.clone()
    };
    for (root, ssl_mode, expected) in [
        ("itself.crt", SslMode::VerifyFull, "tls"),
        ("itself.crt", SslMode::VerifyCa, "tls"),
        (
            "ca.crt",
            SslMode::VerifyCa,
            "put this very certificate into the file of sslrootcert",
        ),
    ] {
        let found = outcome(&with_root(root, ssl_mode)).await;
        assert!(found.contains(expected), "{root}: {found}");
    }
    let elsewhere = {
        let mut conninfo = with_root("itself.crt", SslMode::VerifyFull);
        conninfo.hosts[0].host = "elsewhere".to_owned();
        conninfo
    };
    let found = outcome(&elsewhere).await;
    assert!(found.contains("not valid for name"), "{found}");
}

fn certified(certificate: &str, key: &str, password: Option<&str>) -> Conninfo {
    Conninfo {
        ssl_cert: file(certificate),
        ssl_key: file(key),
        ssl_password: password.map(Secret::new),
        ssl_root_cert: file("ca.crt"),
        ..on_tcp("certified", SslMode::VerifyFull)
    }
}

#[tokio::test]
async fn a_client_certificate_opens_the_door_and_a_wrong_one_says_why() {
    for (conninfo, expected) in [
        (certified("client.crt", "client.key", None), "tls"),
        (
            certified("client.crt", "encrypted.key", Some("hunter2")),
            "tls",
        ),
        (
            certified("client.crt", "encrypted.key", Some("hunter3")),
            "encrypted.key\": its password is wrong (hint: Correct sslpassword.)",
        ),
        (
            certified("client.crt", "encrypted.key", None),
            "encrypted.key\": its password is missing (hint: Give it in sslpassword.)",
        ),
        (
            certified("client.crt", "old.key", Some("hunter2")),
            "(hint: Convert it: openssl pkcs8 -topk8",
        ),
        (
            certified("client.crt", "server.key", None),
            "server.key\" is not the key of the certificate",
        ),
        (
            certified("client.crt", "open.key", None),
            "open.key\" may be read by others",
        ),
        (
            certified("nowhere.crt", "client.key", None),
            "cannot read client certificate file",
        ),
    ] {
        let found = outcome(&conninfo).await;
        assert!(found.contains(expected), "{found}");
        assert!(!found.contains("hunter"), "{found}");
    }
}

/// Up to TLS 1.2 the server says so while TLS is agreed upon, later after that.
#[tokio::test]
async fn a_client_certificate_of_another_authority_is_not_taken() {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let conninfo = Conninfo {
            most_tls: version,
            ..certified("foreign.crt", "client.key", None)
        };
        let found = outcome(&conninfo).await;
        assert!(
            found.contains("the server does not take the client's certificate: ")
                && found.contains("UnknownCA")
                && found.contains("(hint: Its authority must be in the server's ssl_ca_file"),
            "{version:?}: {found}"
        );
    }
}

#[tokio::test]
async fn sslcertmode_decides_about_the_client_certificate() {
    let with_mode = |conninfo: Conninfo, mode| Conninfo {
        ssl_cert_mode: mode,
        ..conninfo
    };
    let shown = || certified("client.crt", "client.key", None);
    let none = || on_tcp("scram", SslMode::Require);
    for (conninfo, expected) in [
        (with_mode(shown(), SslCertMode::Allow), "tls"),
        (with_mode(shown(), SslCertMode::Require), "tls"),
        (
            with_mode(shown(), SslCertMode::Disable),
            "connection requires a valid client certificate",
        ),
        // It is not even read.
        (
            with_mode(
                Conninfo {
                    ssl_cert: file("nowhere.crt"),
                    ..none()
                },
                SslCertMode::Disable,
            ),
            "tls",
        ),
        (
            with_mode(none(), SslCertMode::Require),
            "sslcertmode=require is not met: the server asked for a client certificate, and there is none",
        ),
        (
            with_mode(on_tcp("scram", SslMode::Disable), SslCertMode::Require),
            "sslcertmode=require is not met: the connection has no TLS",
        ),
    ] {
        let found = outcome(&conninfo).await;
        assert!(found.contains(expected), "{found}");
    }
    // This server has no ssl_ca_file.
    let (_cluster, conninfo) = server_with("unasked", "server.crt", "server.key");
    let mut conninfo = with_mode(conninfo, SslCertMode::Require);
    conninfo.ssl_root_cert = file("ca.crt");
    conninfo.ssl_cert = file("client.crt");
    conninfo.ssl_key = file("client.key");
    let found = outcome(&conninfo).await;
    assert!(
        found.contains("sslcertmode=require is not met: the server did not ask"),
        "{found}"
    );
    assert_eq!(
        outcome(&with_mode(conninfo, SslCertMode::Allow)).await,
        "tls"
    );
}
