//! What a server says, one message after the other, and what is said of it.

use super::*;

/// Bytes of the server's messages, after tag and length.
const OK: &[u8] = &[0, 0, 0, 0];
const CLEARTEXT: &[u8] = &[0, 0, 0, 3];
const MD5: &[u8] = &[0, 0, 0, 5, 1, 2, 3, 4];
const GSS: &[u8] = &[0, 0, 0, 7];
const SSPI: &[u8] = &[0, 0, 0, 9];
const SASL: &[u8] = b"\0\0\0\x0ASCRAM-SHA-256\0\0";
const SASL_PLUS: &[u8] = b"\0\0\0\x0ASCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
const OAUTH: &[u8] = b"\0\0\0\x0AOAUTHBEARER\0\0";
const CONTINUE: &[u8] = b"\0\0\0\x0Br=1,s=2,i=4096";
const FINAL: &[u8] = b"\0\0\0\x0Cv=1";

const TLS: Channel = Channel::Tls(ClientCertificate::NotAsked);

fn demands(text: &str) -> Demands {
    let environment = crate::conninfo::Environment::default();
    let conninfo = Conninfo::parse(&format!("user=ann {text}"), &environment).unwrap();
    Demands::of(&conninfo)
}

/// `in`, or the error of the last message; all but the last must be taken.
fn verdict(demanded: &str, channel: Channel, messages: &[&[u8]]) -> String {
    let mut judge = Judge::new(demands(demanded), channel);
    let (last, first) = messages.split_last().unwrap();
    for message in first {
        assert_eq!(judge.take(message).unwrap(), Next::More, "{demanded}");
    }
    match judge.take(last) {
        Ok(Next::Done) => "in".to_owned(),
        Ok(Next::More) => "more".to_owned(),
        Err(refused) => format!("{:?}", refused.error),
    }
}

#[test]
fn every_method_is_taken_where_nothing_is_demanded() {
    for channel in [Channel::Local, TLS] {
        for messages in [
            &[OK][..],
            &[MD5, OK],
            &[CLEARTEXT, OK],
            &[SASL, CONTINUE, FINAL, OK],
            &[SASL_PLUS, CONTINUE, FINAL, OK],
        ] {
            assert_eq!(verdict("", channel, messages), "in", "{messages:?}");
        }
    }
    assert_eq!(verdict("", Channel::Open, &[MD5, OK]), "in");
    assert_eq!(verdict("", Channel::Open, &[OK]), "in");
}

#[test]
fn only_what_require_auth_allows_is_answered() {
    for (list, request, expected) in [
        ("scram-sha-256", SASL, "more"),
        ("scram-sha-256", SASL_PLUS, "more"),
        (
            "scram-sha-256",
            MD5,
            "the server asks for md5, which require_auth=scram-sha-256 does not allow",
        ),
        (
            "scram-sha-256",
            CLEARTEXT,
            "the server asks for the password in clear text, which require_auth",
        ),
        (
            "scram-sha-256",
            OK,
            "the server asks for no authentication, which require_auth=scram-sha-256",
        ),
        (
            "md5,password",
            SASL,
            "asks for scram-sha-256, which require_auth=md5,password does not",
        ),
        ("md5", MD5, "more"),
        ("password", CLEARTEXT, "more"),
        ("none", OK, "in"),
        ("none", SASL, "asks for scram-sha-256"),
        (
            "!none",
            OK,
            "asks for no authentication, which require_auth=!none",
        ),
        ("!none", MD5, "more"),
        ("!md5", MD5, "asks for md5, which require_auth=!md5"),
        ("!md5", OK, "in"),
        (
            "scram-sha-256",
            GSS,
            "asks for gss, which require_auth=scram-sha-256",
        ),
        (
            "scram-sha-256",
            OAUTH,
            "asks for oauth, which require_auth=scram-sha-256",
        ),
    ] {
        let shown = verdict(&format!("require_auth={list}"), TLS, &[request]);
        assert!(shown.contains(expected), "{list}: {shown}");
        assert!(
            ["in", "more"].contains(&expected) || shown.starts_with("Configuration: "),
            "{shown}"
        );
    }
}

#[test]
fn scram_counts_when_the_server_has_given_its_proof() {
    for list in [
        "",
        "require_auth=scram-sha-256",
        "require_auth=scram-sha-256,none",
    ] {
        for messages in [&[SASL, OK][..], &[SASL, CONTINUE, OK]] {
            let shown = verdict(list, TLS, messages);
            assert!(
                shown.contains("ended the authentication by scram-sha-256 before its proof"),
                "{shown}"
            );
        }
        assert_eq!(verdict(list, TLS, &[SASL, CONTINUE, FINAL, OK]), "in");
    }
}

#[test]
fn a_password_in_clear_text_goes_where_nobody_can_read_it() {
    let refused = "the server asks for the password in clear text, and the connection has no TLS";
    for (demanded, channel, expected) in [
        ("", Channel::Open, refused),
        ("require_auth=!md5", Channel::Open, refused),
        ("require_auth=password", Channel::Open, "more"),
        ("require_auth=md5,password", Channel::Open, "more"),
        ("", Channel::Local, "more"),
        ("", TLS, "more"),
    ] {
        let shown = verdict(demanded, channel, &[CLEARTEXT]);
        assert!(shown.contains(expected), "{demanded} {channel:?}: {shown}");
    }
    let mut judge = Judge::new(demands(""), Channel::Open);
    assert!(judge.take(CLEARTEXT).unwrap_err().tls_may_help);
}

#[test]
fn channel_binding_is_demanded_before_anything_is_answered() {
    for (channel, request, expected) in [
        (TLS, SASL_PLUS, "more"),
        (
            TLS,
            SASL,
            "needs SCRAM-SHA-256-PLUS, and the server does not offer it",
        ),
        (TLS, MD5, "needs scram-sha-256, and the server asks for md5"),
        (
            TLS,
            CLEARTEXT,
            "needs scram-sha-256, and the server asks for the password",
        ),
        (
            TLS,
            OK,
            "needs scram-sha-256, and the server asks for no authentication",
        ),
        (
            Channel::Open,
            SASL,
            "channel_binding=require needs TLS, and the connection has none",
        ),
        (Channel::Open, SASL_PLUS, "needs TLS"),
        (Channel::Open, OK, "needs TLS"),
        (Channel::Local, MD5, "needs TLS"),
    ] {
        let shown = verdict("channel_binding=require", channel, &[request]);
        assert!(shown.contains(expected), "{channel:?}: {shown}");
    }
}

#[test]
fn a_client_certificate_that_is_demanded_must_have_been_shown() {
    for (channel, expected) in [
        (Channel::Tls(ClientCertificate::Shown), "in"),
        (
            Channel::Tls(ClientCertificate::Missing),
            "asked for a client certificate, and there is none (hint: Name sslcert and sslkey.)",
        ),
        (TLS, "the server did not ask for a client certificate"),
        (Channel::Open, "the connection has no TLS"),
        (Channel::Local, "the connection has no TLS"),
    ] {
        let shown = verdict("sslcertmode=require", channel, &[OK]);
        assert!(shown.contains(expected), "{channel:?}: {shown}");
    }
}

#[test]
fn methods_that_cdc_does_not_know_are_named() {
    for (request, expected) in [
        (
            GSS,
            "asks for gss, which cdc does not do (hint: Let the server's pg_hba.conf say scram-sha-256, md5, password or cert",
        ),
        (SSPI, "asks for sspi"),
        (OAUTH, "asks for oauth"),
        (&[0, 0, 0, 2], "asks for an old method"),
        (&[0, 0, 0, 6], "asks for an old method"),
        (
            b"\0\0\0\x0ASCRAM-SHA-512\0\0",
            "asks for an unknown method of SASL",
        ),
        (
            b"\0\0\0\x0A\0SCRAM-SHA-256\0\0",
            "asks for an unknown method of SASL",
        ),
    ] {
        let shown = verdict("", TLS, &[request]);
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn messages_out_of_order_or_of_the_wrong_length_are_refused() {
    for messages in [
        &[&[][..]][..],
        &[&[0, 0, 0]],
        &[&[0, 0, 0, 0, 0]],
        &[&[0, 0, 0, 3, 1]],
        &[&[0, 0, 0, 5]],
        &[&[0, 0, 0, 5, 1, 2, 3]],
        &[&[0, 0, 0, 99]],
        &[&[0xFF, 0xFF, 0xFF, 0xFF]],
        &[CONTINUE],
        &[FINAL],
        &[SASL, FINAL],
        &[SASL, SASL],
        &[SASL, CONTINUE, CONTINUE],
        &[SASL, CLEARTEXT],
        &[MD5, CLEARTEXT],
        &[CLEARTEXT, CLEARTEXT],
        &[MD5, CONTINUE],
        &[SASL, CONTINUE, FINAL, MD5],
    ] {
        let shown = verdict("", TLS, messages);
        assert!(
            shown.starts_with("Transient: what answers there is not PostgreSQL"),
            "{messages:?}: {shown}"
        );
    }
}
