//! Rules of connection strings, case by case.

use super::*;
use proptest::prelude::*;

fn environment(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Environment {
    let owned = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    Environment {
        variables: owned(variables),
        files: owned(files),
        user: Some("os".to_owned()),
        home: Some("/home/os".to_owned()),
        socket_directory: Some("/run/postgresql".to_owned()),
    }
}

fn parse(text: &str, variables: &[(&str, &str)]) -> Conninfo {
    Conninfo::parse(text, &environment(variables, &[])).unwrap()
}

fn error(text: &str) -> String {
    let error = Conninfo::parse(text, &environment(&[], &[])).unwrap_err();
    assert_eq!(error.class(), crate::error::Class::Configuration);
    format!("{error:?}")
}

#[test]
fn gaps_are_filled_from_variables_and_then_defaults() {
    for (text, variables, expected) in [
        ("", &[][..], "/run/postgresql:5432/os as os"),
        ("user=ann", &[], "/run/postgresql:5432/ann as ann"),
        (
            "postgres://db",
            &[("PGDATABASE", "app"), ("PGUSER", "bob")],
            "db:5432/app as bob",
        ),
        (
            "postgres://ann@db/app",
            &[
                ("PGDATABASE", "no"),
                ("PGUSER", "no"),
                ("PGHOST", "no"),
                ("PGPORT", "7"),
            ],
            "db:7/app as ann",
        ),
        (
            "host='' port=''",
            &[("PGHOST", "no"), ("PGPORT", "7")],
            "/run/postgresql:5432/os as os",
        ),
        (
            "postgres://one,two:2,three",
            &[("PGPORT", "7")],
            "one:5432,two:2,three:5432/os as os",
        ),
        ("host=one,two port=7", &[], "one:7,two:7/os as os"),
        (
            "host=one,,two port=1,,3",
            &[],
            "one:1,/run/postgresql:5432,two:3/os as os",
        ),
        ("hostaddr=10.0.0.1", &[], "10.0.0.1:5432/os as os"),
        ("host=/a,@b", &[], "/a:5432,@b:5432/os as os"),
    ] {
        assert_eq!(
            parse(text, variables).to_string(),
            expected,
            "{text} {variables:?}"
        );
    }
}

#[test]
fn values_mean_what_they_mean_to_libpq() {
    let full = parse(
        "postgresql://ann:p%20w@db/app?sslmode=verify-full&sslrootcert=/ca&sslcert=/c&sslkey=/k&channel_binding=require\
         &target_session_attrs=primary&connect_timeout=3&application_name=x&options=-c%20geqo%3Doff&keepalives_idle=5\
         &client_encoding=utf-8&gssencmode=prefer",
        &[],
    );
    assert_eq!(full.password, Some(Secret::new("p w")));
    assert_eq!(full.ssl_mode, SslMode::VerifyFull);
    assert_eq!(full.ssl_root_cert.as_deref(), Some("/ca"));
    assert_eq!(
        (full.ssl_cert.as_deref(), full.ssl_key.as_deref()),
        (Some("/c"), Some("/k"))
    );
    assert_eq!(full.channel_binding, ChannelBinding::Require);
    assert_eq!(full.target_session_attrs, TargetSessionAttrs::Primary);
    assert_eq!(full.connect_timeout_seconds, Some(3));
    assert_eq!(full.keepalives.idle_seconds, 5);
    assert!(!parse("keepalives=0", &[]).keepalives.are_on);
    assert_eq!(
        parse("tcp_user_timeout=900", &[]).tcp_user_timeout_ms,
        Some(900)
    );
    assert_eq!(parse("tcp_user_timeout=0", &[]).tcp_user_timeout_ms, None);
    assert_eq!(full.application_name.as_deref(), Some("x"));
    assert_eq!(full.options.as_deref(), Some("-c geqo=off"));

    let bare = parse("", &[]);
    assert_eq!(bare.ssl_mode, SslMode::Prefer);
    assert_eq!(bare.connect_timeout_seconds, Some(10));
    assert_eq!(
        parse("connect_timeout=0", &[]).connect_timeout_seconds,
        None
    );
    assert_eq!(
        parse("connect_timeout=-1", &[]).connect_timeout_seconds,
        None
    );
    assert_eq!(
        parse("sslrootcert=system", &[]).ssl_mode,
        SslMode::VerifyFull
    );
    for (name, mode) in [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
    ] {
        assert_eq!(parse(&format!("sslmode={name}"), &[]).ssl_mode, mode);
        assert_eq!(parse("", &[("PGSSLMODE", name)]).ssl_mode, mode);
    }
}

/// An empty choice or number, from a variable that is not set in a script, was taken for the
/// default; so was a number that is too large.
#[test]
fn what_libpq_does_not_take_is_refused() {
    for text in [
        "sslmode=''",
        "postgres://db?sslmode=",
        "channel_binding=''",
        "target_session_attrs=''",
        "gssencmode=''",
        "connect_timeout=''",
        "connect_timeout=2147483648",
        "keepalives=on",
        "keepalives=''",
        "keepalives_idle=''",
        "tcp_user_timeout=99999999999",
        "service=''",
        "hostaddr=localhost",
        "hostaddr='127.0.0.1 '",
        "hostaddr=127.1",
        "hostaddr=::1%lo",
        "postgres://db?&sslmode=require",
        "postgres://db?user=a&&port=1",
    ] {
        error(text);
    }
    assert_eq!(parse("host=' db'", &[]).hosts[0].host, " db");
    let local = parse("hostaddr=fe80::1%eth0", &[]);
    assert_eq!(local.hosts[0].address.as_deref(), Some("fe80::1%eth0"));
    let named = environment(&[("PGSERVICEFILE", "/nowhere")], &[]);
    let shown = Conninfo::parse("service=x", &named).unwrap_err();
    assert!(shown.message().contains("service file \"/nowhere\""));
}

#[test]
fn old_variables_of_tls_count_as_in_libpq() {
    for (text, variables, expected) in [
        ("", &[("PGREQUIRESSL", "1")][..], SslMode::Require),
        ("", &[("PGREQUIRESSL", "0")], SslMode::Prefer),
        (
            "",
            &[("PGREQUIRESSL", "1"), ("PGSSLMODE", "disable")],
            SslMode::Disable,
        ),
        ("sslmode=allow", &[("PGREQUIRESSL", "1")], SslMode::Allow),
        (
            "requiressl=1",
            &[("PGSSLMODE", "disable")],
            SslMode::Require,
        ),
    ] {
        assert_eq!(
            parse(text, variables).ssl_mode,
            expected,
            "{text} {variables:?}"
        );
    }
}

#[test]
fn password_comes_from_string_variable_or_file() {
    let files = [
        ("/home/os/.pgpass", "db:*:*:*:home"),
        ("/other", "*:*:*:*:other"),
        ("/sockets", "localhost:*:*:*:socket"),
    ];
    for (text, variables, expected) in [
        (
            "host=db password=here",
            &[("PGPASSWORD", "no")][..],
            Some("here"),
        ),
        ("host=db", &[("PGPASSWORD", "variable")], Some("variable")),
        ("host=db", &[], Some("home")),
        ("host=elsewhere", &[], None),
        ("host=db passfile=/other", &[], Some("other")),
        ("host=db", &[("PGPASSFILE", "/other")], Some("other")),
        ("host=db", &[("PGPASSFILE", "/missing")], None),
        ("host=db,db", &[], Some("home")),
        ("host=elsewhere,db password=x", &[], Some("x")),
        (
            "host=db passfile=''",
            &[("PGPASSFILE", "/other")],
            Some("home"),
        ),
        ("host=db", &[("PGPASSFILE", "")], Some("home")),
        (
            "host=/run/postgresql passfile=/sockets",
            &[],
            Some("socket"),
        ),
        ("host=/run/other passfile=/sockets", &[], None),
    ] {
        let conninfo = Conninfo::parse(text, &environment(variables, &files)).unwrap();
        let found = conninfo.password.as_ref().map(Secret::expose);
        assert_eq!(found, expected, "{text} {variables:?}");
    }
    let two = [("/home/os/.pgpass", "a:*:*:*:one\nb:*:*:*:two")];
    let error = Conninfo::parse("host=a,b", &environment(&[], &two)).unwrap_err();
    assert!(error.message().contains("different passwords"));
    // The password of one server does not go to another one.
    let some = Conninfo::parse("host=elsewhere,db", &environment(&[], &files)).unwrap_err();
    assert!(some.message().contains("for some of the hosts"), "{some}");
}

/// The file is read before the string is: which one it is must be known from the same sources.
#[test]
fn password_file_is_the_one_that_is_named_or_libpq_s_own() {
    let service = [("/home/os/.pg_service.conf", "[app]\npassfile=/service\n")];
    for (text, variables, expected) in [
        ("host=db", &[][..], "/home/os/.pgpass"),
        ("host=db", &[("PGPASSFILE", "/variable")], "/variable"),
        (
            "postgres://db/?passfile=/string",
            &[("PGPASSFILE", "/variable")],
            "/string",
        ),
        ("service=app", &[("PGPASSFILE", "/variable")], "/service"),
    ] {
        let found = Conninfo::password_file(text, &environment(variables, &service)).unwrap();
        assert_eq!(found.as_deref(), Some(expected), "{text}");
    }
    let homeless = Environment {
        home: None,
        ..environment(&[], &[])
    };
    assert_eq!(Conninfo::password_file("host=db", &homeless).unwrap(), None);
    assert!(Conninfo::password_file("nonsense", &homeless).is_err());
}

#[test]
fn service_fills_gaps_before_the_environment() {
    let files = [
        (
            "/home/os/.pg_service.conf",
            "[one]\nhost=svc\nuser=svc\nport=7\n",
        ),
        (
            "/etc/postgresql-common/pg_service.conf",
            "[two]\nhost=system\n[bad]\nhots=x\n",
        ),
    ];
    for (text, variables, expected) in [
        (
            "service=one",
            &[("PGHOST", "no"), ("PGDATABASE", "app")][..],
            "svc:7/app as svc",
        ),
        ("postgres://ann@/?service=one", &[], "svc:7/ann as ann"),
        ("", &[("PGSERVICE", "one")], "svc:7/svc as svc"),
        ("service=two", &[], "system:5432/os as os"),
    ] {
        let conninfo = Conninfo::parse(text, &environment(variables, &files)).unwrap();
        assert_eq!(conninfo.to_string(), expected, "{text}");
    }
    let error = |text| {
        format!(
            "{:?}",
            Conninfo::parse(text, &environment(&[], &files)).unwrap_err()
        )
    };
    assert!(error("service=three").contains("cannot find the definition of service \"three\""));
    assert!(
        error("service=bad").contains("service \"bad\": unrecognized connection keyword \"hots\"")
    );
}

#[test]
fn default_certificates_count_if_they_exist() {
    let files = [("/home/os/.postgresql/root.crt", "")];
    let parse = |text| Conninfo::parse(text, &environment(&[], &files)).unwrap();
    assert_eq!(
        parse("sslmode=verify-ca").ssl_root_cert.as_deref(),
        Some("/home/os/.postgresql/root.crt")
    );
    assert_eq!(parse("sslrootcert=''").ssl_root_cert, None);
    assert_eq!(parse("").ssl_cert, None);
}

#[test]
fn mistakes_are_named_with_advice() {
    for (text, expected) in [
        (
            "hots=db",
            "unrecognized connection keyword \"hots\" (hint: Did you mean \"host\"?)",
        ),
        ("postgres://db?sslmod=require", "Did you mean \"sslmode\"?"),
        (
            "sslmode=verify",
            "sslmode of the connection string must be one of disable, allow, prefer",
        ),
        (
            "channel_binding=yes",
            "must be one of prefer, disable, require",
        ),
        (
            "target_session_attrs=master",
            "must be one of any, read-write, primary",
        ),
        ("connect_timeout=soon", "must be a whole number"),
        ("port=0", "no number from 1 to 65535"),
        ("port=65536", "no number from 1 to 65535"),
        ("host=a,b port=1,2,3", "2 hosts and 3 ports"),
        ("host=a,b hostaddr=10.0.0.1", "2 hosts and 1 addresses"),
        ("client_encoding=LATIN1", "must be UTF8"),
        ("replication=database", "\"replication\" is not allowed"),
        (
            "sslrootcert=system sslmode=require",
            "needs sslmode=verify-full",
        ),
        ("host=db sslmode=verify-ca", "needs sslrootcert"),
        (
            "sslcrldir=/x",
            "\"sslcrldir\" is not supported (hint: Leave it out.)",
        ),
        (
            "ssl_min_protocol_version=SSLv3",
            "must be TLSv1.2 or TLSv1.3",
        ),
        (
            "ssl_max_protocol_version=TLSv1.1",
            "must be TLSv1.2 or TLSv1.3",
        ),
        (
            "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
            "is above ssl_max_protocol_version",
        ),
        ("tcp_user_timeout=soon", "must be a whole number"),
        ("keepalives_idle=soon", "must be a whole number"),
        (
            "sslnegotiation=direct",
            "not supported with this value (hint: Leave it out, or use postgres.)",
        ),
        (
            "require_auth=gss",
            "require_auth of the connection string is \"gss\", which allows no method of cdc's",
        ),
        ("load_balance_hosts=yes", "must be one of disable, random"),
        ("sslcertmode=yes", "must be one of disable, allow, require"),
    ] {
        let shown = error(text);
        assert!(shown.contains(expected), "{text}: {shown}");
    }
}

#[test]
fn no_piece_of_a_password_is_repeated() {
    for text in [
        "postgres://ann:hunter2/x@db/app",
        "postgres://ann:hunter2@more@db/app",
        "postgres://ann:hunter2 x@db/app",
        "postgres://ann:a/b?hunter2=x@db/app",
        "postgres://ann:a/b?hunter2@db/app",
        "postgres://ann:%hunter2@db/app",
        "password=a hunter2",
        "password=a hunter=2",
        "password='hunter2",
        "password=hunter2 sslmode=hunter2",
        "password=hunter2 port=hunter2",
        "password=hunter2 connect_timeout=hunter2",
        "password=hunter2 sslcrldir=hunter2",
        "password=hunter2 require_auth=hunter2",
        "hunter2=1",
    ] {
        let shown = error(text);
        assert!(!shown.contains("hunter"), "{text}: {shown}");
    }
    let conninfo = parse("postgres://ann:hunter2@db/app", &[]);
    assert!(!format!("{conninfo:?} {conninfo}").contains("hunter2"));
    assert!(format!("{conninfo:?}").contains("password: Some(****)"));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,60}", tail in "[a-z:/@?&=%,\\[\\]0-9' \\\\]{0,40}") {
        let environment = environment(&[], &[("/home/os/.pgpass", text.as_str()), ("/home/os/.pg_service.conf", tail.as_str())]);
        for text in [text.clone(), tail.clone(), format!("postgres://{tail}"), format!("postgresql://{text}"), format!("host={tail}")] {
            let _ = Conninfo::parse(&text, &environment);
        }
    }

    #[test]
    fn quoted_values_come_back(password in "[^\0]{1,20}", user in "[^\0]{1,20}") {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let text = format!("user='{}' password='{}' host=db", quote(&user), quote(&password));
        let conninfo = parse(&text, &[]);
        prop_assert_eq!(conninfo.user, user.clone());
        prop_assert_eq!(conninfo.password, Some(Secret::new(password.clone())));
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let conninfo = parse(&format!("postgres://{}:{}@db", encode(&user), encode(&password)), &[]);
        prop_assert_eq!(conninfo.user, user);
        prop_assert_eq!(conninfo.password, Some(Secret::new(password)));
    }
}

#[test]
fn what_the_environment_demands_is_met_or_refused_by_name() {
    let refused = |variable: &str, value: &str| {
        let environment = environment(&[(variable, value)], &[]);
        Conninfo::parse("user=ann", &environment)
            .unwrap_err()
            .to_string()
    };
    for (variable, value) in [
        ("PGREQUIREPEER", "postgres"),
        ("PGSSLCRLDIR", "/x"),
        ("PGGSSENCMODE", "require"),
        ("PGSSLNEGOTIATION", "direct"),
    ] {
        let shown = refused(variable, value);
        assert!(
            shown.contains(&format!("the variable {variable} is not supported")),
            "{shown}"
        );
        assert!(!shown.contains("/x"), "{shown}");
    }
    assert!(refused("PGREQUIREAUTH", "sspi").contains("is \"sspi\""));
    assert!(refused("PGSSLMAXPROTOCOLVERSION", "TLSv1").contains("TLSv1.2 or TLSv1.3"));
    let demands = environment(
        &[
            ("PGREQUIREAUTH", "scram-sha-256"),
            ("PGSSLCERTMODE", "require"),
            ("PGLOADBALANCEHOSTS", "random"),
        ],
        &[],
    );
    let conninfo = Conninfo::parse("user=ann sslpassword=hunter2", &demands).unwrap();
    let required = conninfo.require_auth.as_ref().map(ToString::to_string);
    assert_eq!(required.as_deref(), Some("scram-sha-256"));
    assert_eq!(conninfo.ssl_cert_mode, SslCertMode::Require);
    assert_eq!(conninfo.load_balance_hosts, LoadBalanceHosts::Random);
    assert_eq!(conninfo.ssl_password, Some(Secret::new("hunter2")));
    assert!(!format!("{conninfo:?}").contains("hunter2"));
    let harmless = environment(&[("PGGSSENCMODE", "disable"), ("PGSSLCRL", "/a.crl")], &[]);
    let conninfo = Conninfo::parse("user=ann", &harmless).unwrap();
    assert_eq!(conninfo.ssl_crl.as_deref(), Some("/a.crl"));
}
