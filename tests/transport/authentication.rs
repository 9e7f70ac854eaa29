//! What a server may ask for before a password goes out: `require_auth`, passwords in clear text,
//! and channel binding, for every connection that `cdc` opens.

use cdc::conninfo::{ChannelBinding, Conninfo, Host, RequireAuth, Secret, SslMode};
use cdc::error::Class;

use super::place::{
    PASSWORD, certificates, cluster, everywhere, on_socket, on_tcp, replication, server_with,
};
use crate::support::{Cdc, labels_pair};

fn requiring(list: &str, conninfo: Conninfo) -> Conninfo {
    Conninfo {
        require_auth: Some(RequireAuth::parse(list).unwrap()),
        ..conninfo
    }
}

/// `tls`, `plain`, or the error, which is one of configuration.
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

#[tokio::test]
async fn only_what_require_auth_allows_is_answered() {
    for (role, list, expected) in [
        ("scram", "scram-sha-256", "tls"),
        ("scram", "md5,scram-sha-256", "tls"),
        ("scram", "!password,!md5,!none", "tls"),
        (
            "scram",
            "md5",
            "the server asks for scram-sha-256, which require_auth=md5 does not allow",
        ),
        (
            "scram",
            "!scram-sha-256",
            "the server asks for scram-sha-256, which require_auth=!scram-sha-256",
        ),
        (
            "scram",
            "none",
            "the server asks for scram-sha-256, which require_auth=none",
        ),
        ("md5", "md5", "tls"),
        (
            "md5",
            "scram-sha-256",
            "the server asks for md5, which require_auth=scram-sha-256 does not allow",
        ),
        ("clear", "password", "tls"),
        (
            "clear",
            "scram-sha-256,md5",
            "asks for the password in clear text, which require_auth=scram-sha-256,md5",
        ),
        ("trusted", "none", "tls"),
        (
            "trusted",
            "scram-sha-256",
            "asks for no authentication, which require_auth=scram-sha-256",
        ),
        (
            "trusted",
            "!none",
            "asks for no authentication, which require_auth=!none",
        ),
        ("trusted", "!md5", "tls"),
    ] {
        let found = outcome(&requiring(list, on_tcp(role, SslMode::Require))).await;
        assert!(found.contains(expected), "{role} {list}: {found}");
    }
}

/// The stream's first bytes come through when the judge is gone.
#[tokio::test]
async fn a_judged_replication_connection_streams() {
    let conninfo = requiring("scram-sha-256", on_tcp("scram", SslMode::Require));
    let mut replication = replication(&conninfo).await;
    for _ in 0..3 {
        replication.identify_system().await.unwrap();
    }
    replication.finish().await;
}

#[tokio::test]
async fn a_password_in_clear_text_needs_tls_or_a_unix_socket() {
    let on_unix_socket = Conninfo {
        user: "clear".to_owned(),
        password: Some(Secret::new(PASSWORD)),
        ..on_socket(cluster())
    };
    let refused = "the server asks for the password in clear text, and the connection has no TLS";
    for (conninfo, expected) in [
        (on_tcp("clear", SslMode::Require), "tls"),
        (on_tcp("clear", SslMode::Prefer), "tls"),
        // Plain comes first, and then TLS, which protects the password.
        (on_tcp("clear", SslMode::Allow), "tls"),
        (on_tcp("clear", SslMode::Disable), refused),
        (
            requiring("!md5", on_tcp("clear", SslMode::Disable)),
            refused,
        ),
        (
            requiring("password", on_tcp("clear", SslMode::Disable)),
            "plain",
        ),
        (on_unix_socket, "plain"),
    ] {
        let found = outcome(&conninfo).await;
        assert!(found.contains(expected), "{found}");
    }
    // A hash is no password.
    assert_eq!(outcome(&on_tcp("md5", SslMode::Disable)).await, "plain");
}

#[tokio::test]
async fn channel_binding_that_is_demanded_is_there_or_nothing_is_sent() {
    let bound = |conninfo| Conninfo {
        channel_binding: ChannelBinding::Require,
        ..conninfo
    };
    let no_scram = "channel_binding=require needs scram-sha-256, and the server asks for";
    for (conninfo, expected) in [
        (on_tcp("scram", SslMode::Require), "tls"),
        (on_tcp("scram", SslMode::Prefer), "tls"),
        (on_tcp("scram", SslMode::Allow), "tls"),
        (
            on_tcp("scram", SslMode::Disable),
            "channel_binding=require needs TLS, and the connection has none",
        ),
        (on_tcp("md5", SslMode::Require), no_scram),
        (on_tcp("clear", SslMode::Require), no_scram),
        (on_tcp("trusted", SslMode::Require), no_scram),
        (
            on_socket(cluster()),
            "channel_binding=require needs TLS, and the connection has none",
        ),
    ] {
        let found = outcome(&bound(conninfo)).await;
        assert!(found.contains(expected), "{found}");
    }
    let never = Conninfo {
        channel_binding: ChannelBinding::Disable,
        ..on_tcp("scram", SslMode::Require)
    };
    assert_eq!(outcome(&never).await, "tls");
}

#[tokio::test]
async fn a_certificate_that_nothing_can_be_bound_to_is_named() {
    let (_cluster, conninfo) = server_with("ed25519", "ed25519.crt", "ed25519.key");
    let conninfo = Conninfo {
        ssl_root_cert: Some(certificates().path("ed25519.crt")),
        ..conninfo
    };
    assert_eq!(outcome(&conninfo).await, "tls");
    let bound = Conninfo {
        channel_binding: ChannelBinding::Require,
        ..conninfo
    };
    let found = outcome(&bound).await;
    assert!(
        found.contains("channel_binding=require needs SCRAM-SHA-256-PLUS, and the server's certificate is signed"),
        "{found}"
    );
}

#[tokio::test]
async fn random_order_takes_any_server_that_will_do() {
    let mut conninfo = on_tcp("scram", SslMode::Require);
    conninfo.load_balance_hosts = cdc::conninfo::LoadBalanceHosts::Random;
    for port in [1, 2, 3] {
        conninfo.hosts.push(Host {
            host: "127.0.0.1".to_owned(),
            address: None,
            port,
        });
    }
    for _ in 0..5 {
        assert_eq!(outcome(&conninfo).await, "tls");
    }
}

/// The demands hold for whatever command connects, to either side.
#[tokio::test]
async fn every_command_demands_the_same() {
    let (pair, ..) = labels_pair().await;
    let url = format!(
        "postgresql://clear:geheim@127.0.0.1:{}/postgres?sslmode=disable",
        cluster().port()
    );
    for side in ["source", "target"] {
        let mut pair = pair.clone();
        match side {
            "source" => pair.source_url = url.clone(),
            _ => pair.target_url = url.clone(),
        }
        for command in ["run", "check", "status", "verify", "setup"] {
            let output = Cdc::output(&pair, &[command]);
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(
                said.contains("asks for the password in clear text"),
                "{command} {side}: {said}"
            );
            assert!(!said.contains("geheim"), "{command} {side}: {said}");
            assert_ne!(output.status.code(), Some(0), "{command} {side}: {said}");
        }
    }
}
