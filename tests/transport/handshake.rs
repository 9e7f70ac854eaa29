//! Ways in: sockets, passwords, TLS, and what is said when there is none.

use cdc::connect::{Connection, Side, Wanted};
use cdc::conninfo::{Conninfo, Host, Secret, SslMode, TargetSessionAttrs, TlsVersion};
use cdc::error::{Class, Error};
use cdc::source::replication::Replication;

use super::place::{APPLICATION, certificates, client, cluster, on_socket, on_tcp, replication};
use crate::support::value;

/// Connects both ways, and says whether TLS was used.
async fn both(conninfo: &Conninfo) -> Result<bool, Error> {
    let ordinary = Connection::open(Side::Source, conninfo, APPLICATION, Wanted::Any).await?;
    let ssl = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let ordinary = value(&ordinary, ssl).await;
    let mut replication = Replication::connect(conninfo, APPLICATION).await?;
    let rows = replication.simple_query(ssl).await?;
    assert_eq!(rows[0][0].as_deref(), Some(ordinary.as_str()));
    replication.finish().await;
    Ok(ordinary == "true")
}

fn with_root(file: &str, ssl_mode: SslMode) -> Conninfo {
    Conninfo {
        ssl_root_cert: Some(certificates().path(file)),
        ..on_tcp("scram", ssl_mode)
    }
}

#[tokio::test]
async fn trust_is_enough_on_unix_socket_and_tcp() {
    assert!(!both(&on_socket(cluster())).await.unwrap());
    assert!(!both(&on_tcp("trusted", SslMode::Disable)).await.unwrap());
    // As with libpq, sslmode does not count on a Unix socket.
    let demanding = Conninfo {
        ssl_mode: SslMode::Require,
        ..on_socket(cluster())
    };
    assert!(!both(&demanding).await.unwrap());
}

#[tokio::test]
async fn scram_password_is_taken_with_and_without_tls() {
    assert!(!both(&on_tcp("scram", SslMode::Disable)).await.unwrap());
    assert!(both(&on_tcp("scram", SslMode::Prefer)).await.unwrap());
    assert!(both(&on_tcp("scram", SslMode::Require)).await.unwrap());
    assert!(!both(&on_tcp("scram", SslMode::Allow)).await.unwrap());
}

#[tokio::test]
async fn wrong_and_missing_password_are_told_without_the_password() {
    let wrong = Conninfo {
        password: Some(Secret::new("wrong-password")),
        ..on_tcp("scram", SslMode::Prefer)
    };
    let missing = Conninfo {
        password: None,
        ..on_tcp("scram", SslMode::Prefer)
    };
    for (conninfo, expected) in [
        (&wrong, "password authentication failed for user \"scram\""),
        (&missing, "password missing"),
    ] {
        let ordinary = Connection::open(Side::Source, conninfo, APPLICATION, Wanted::Any)
            .await
            .unwrap_err();
        let replication = Replication::connect(conninfo, APPLICATION)
            .await
            .unwrap_err();
        for error in [ordinary, replication] {
            assert!(error.to_string().contains(expected), "{error:?}");
            assert!(
                error
                    .to_string()
                    .starts_with("could not connect to the source at \"localhost\" (127.0.0.1:"),
                "{error}"
            );
            assert!(
                !format!("{error:?}").contains("wrong-password"),
                "{error:?}"
            );
            assert_eq!(error.class(), Class::Configuration);
        }
    }
}

#[tokio::test]
async fn tls_verifies_what_sslmode_asks_for() {
    for mode in [
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
        SslMode::VerifyFull,
    ] {
        assert!(both(&with_root("ca.crt", mode)).await.unwrap(), "{mode:?}");
    }
    // The certificate is made for localhost alone.
    let other_host = |mode| {
        let mut conninfo = with_root("ca.crt", mode);
        conninfo.hosts[0].host = "127.0.0.1".to_owned();
        conninfo
    };
    assert!(both(&other_host(SslMode::VerifyCa)).await.unwrap());
    for (conninfo, what) in [
        (other_host(SslMode::VerifyFull), "not valid for name"),
        (with_root("other.crt", SslMode::VerifyFull), "UnknownIssuer"),
        (with_root("other.crt", SslMode::VerifyCa), "UnknownIssuer"),
        // With a root certificate `require` is verify-ca, as with libpq.
        (with_root("other.crt", SslMode::Require), "UnknownIssuer"),
    ] {
        let error = both(&conninfo).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("cannot verify the server's certificate"),
            "{error}"
        );
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(error.class(), Class::Configuration);
    }
    // A certificate that the user has named vouches for itself.
    assert!(
        both(&with_root("server.crt", SslMode::VerifyFull))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let mut conninfo = on_tcp("certified", SslMode::Require);
    let error = both(&conninfo).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("28000"), "{error:?}");
    conninfo.ssl_cert = Some(certificates().path("client.crt"));
    conninfo.ssl_key = Some(certificates().path("client.key"));
    assert!(both(&conninfo).await.unwrap());
    // The certificate of version 1, which OpenSSL makes by default, is good enough for the server.
    conninfo.ssl_cert = Some(certificates().path("client1.crt"));
    assert!(both(&conninfo).await.unwrap());
    conninfo.ssl_key = Some(certificates().path("server.key"));
    conninfo.ssl_cert = Some(certificates().path("client.crt"));
    let error = both(&conninfo).await.unwrap_err();
    assert!(
        error.to_string().starts_with("the client's key "),
        "{error}"
    );
}

#[tokio::test]
async fn allow_and_prefer_try_the_other_way() {
    assert!(both(&on_tcp("tls_only", SslMode::Allow)).await.unwrap());
    assert!(!both(&on_tcp("plain_only", SslMode::Prefer)).await.unwrap());
    for conninfo in [
        on_tcp("tls_only", SslMode::Disable),
        on_tcp("plain_only", SslMode::Require),
        on_tcp("nobody", SslMode::Prefer),
    ] {
        let error = both(&conninfo).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("28000"), "{error:?}");
        assert_eq!(error.class(), Class::Configuration);
    }
    let no_database = Conninfo {
        database: "nowhere".to_owned(),
        ..on_socket(cluster())
    };
    let error = both(&no_database).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("database \"nowhere\" does not exist"),
        "{error}"
    );
}

#[tokio::test]
async fn a_role_without_replication_can_only_read() {
    let conninfo = Conninfo {
        user: "reader".to_owned(),
        ..on_socket(cluster())
    };
    client(&conninfo).await;
    let error = both(&conninfo).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42501"), "{error:?}");
    assert_eq!(error.class(), Class::Configuration);
}

#[tokio::test]
async fn session_settings_do_not_depend_on_the_role() {
    let conninfo = Conninfo {
        options: Some("-c wal_sender_timeout=7s -c DateStyle=German".to_owned()),
        ..on_tcp("trusted", SslMode::Disable)
    };
    let ordinary = client(&conninfo).await;
    let mut replication = replication(&conninfo).await;
    for (name, expected) in [
        ("DateStyle", "ISO, DMY"),
        ("IntervalStyle", "postgres"),
        ("extra_float_digits", "3"),
        ("TimeZone", "UTC"),
        ("bytea_output", "hex"),
        ("lc_monetary", "C"),
        ("search_path", ""),
        ("client_encoding", "UTF8"),
        ("row_security", "off"),
        ("default_transaction_isolation", "read committed"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("wal_sender_timeout", "7s"),
        ("application_name", APPLICATION),
    ] {
        let sql = format!("SHOW {name}");
        let found = replication.simple_query(&sql).await.unwrap();
        assert_eq!(
            found[0][0].as_deref().map(|text| text.trim_matches('"')),
            Some(expected),
            "{name}"
        );
        assert_eq!(
            value(&ordinary, &sql).await.trim_matches('"'),
            expected,
            "{name}"
        );
    }
    for (since, name) in [
        (140_000, "idle_session_timeout"),
        (170_000, "transaction_timeout"),
    ] {
        if replication.server_version() >= since {
            assert_eq!(
                value(&ordinary, &format!("SHOW {name}")).await,
                "0",
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn servers_are_tried_in_order() {
    let dead = Host {
        host: "127.0.0.1".to_owned(),
        address: None,
        port: 1,
    };
    let mut conninfo = on_socket(cluster());
    conninfo.hosts.insert(0, dead.clone());
    assert!(!both(&conninfo).await.unwrap());
    let mut nobody = dead.clone();
    nobody.port = 2;
    conninfo.hosts = vec![nobody, dead];
    let error = both(&conninfo).await.unwrap_err();
    assert!(error.is_transient());
    assert!(
        error
            .to_string()
            .starts_with("could not connect to the source at 127.0.0.1:1: Connection refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_primary_is_no_read_only_server() {
    let wants = |attrs| Conninfo {
        target_session_attrs: attrs,
        ..on_socket(cluster())
    };
    both(&wants(TargetSessionAttrs::ReadWrite)).await.unwrap();
    both(&wants(TargetSessionAttrs::PreferStandby))
        .await
        .unwrap();
    let error = both(&wants(TargetSessionAttrs::ReadOnly))
        .await
        .unwrap_err();
    assert!(error.is_transient());
    assert!(
        error.to_string().ends_with("the server accepts writes"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_that_was_revoked_is_not_accepted() {
    let with_list = |list: &str| Conninfo {
        ssl_crl: Some(certificates().path(list)),
        ..with_root("ca.crt", SslMode::VerifyFull)
    };
    assert!(both(&with_list("empty.crl")).await.unwrap());
    for (list, expected) in [
        ("revoked.crl", "Revoked"),
        ("expired.crl", "certificate revocation list expired"),
        ("missing.crl", "cannot read certificate revocation list"),
    ] {
        let error = both(&with_list(list)).await.unwrap_err();
        assert_eq!(error.class(), Class::Configuration, "{error:?}");
        assert!(error.to_string().contains(expected), "{list}: {error}");
    }
    // The name is verified beside the list, where it is asked for.
    let elsewhere = |ssl_mode| {
        let mut conninfo = with_list("empty.crl");
        conninfo.ssl_mode = ssl_mode;
        conninfo.hosts[0].host = "127.0.0.1".to_owned();
        conninfo
    };
    assert!(both(&elsewhere(SslMode::VerifyCa)).await.unwrap());
    assert!(both(&elsewhere(SslMode::VerifyFull)).await.is_err());
}

#[tokio::test]
async fn versions_of_tls_are_the_ones_that_are_asked_for() {
    let version = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for (only, expected) in [(TlsVersion::V1_2, "TLSv1.2"), (TlsVersion::V1_3, "TLSv1.3")] {
        let conninfo = Conninfo {
            least_tls: only,
            most_tls: only,
            ..with_root("ca.crt", SslMode::VerifyFull)
        };
        assert_eq!(value(&*client(&conninfo).await, version).await, expected);
    }
}
