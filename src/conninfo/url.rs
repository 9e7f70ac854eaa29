//! A [`Conninfo`] as a URL for people: [`Conninfo::masked_url`].

use super::{
    ChannelBinding, Conninfo, DEFAULT_CONNECT_TIMEOUT_SECONDS, LoadBalanceHosts, SslCertMode,
    SslMode, TargetSessionAttrs,
};

pub(super) fn masked(conninfo: &Conninfo) -> String {
    let password = if conninfo.password.is_some() {
        ":****"
    } else {
        ""
    };
    let hosts: Vec<String> = conninfo
        .hosts
        .iter()
        .map(|host| {
            let name = if host.host.contains(':') && !host.is_unix() {
                // An address may have a zone: fe80::1%eth0.
                format!("[{}]", encode(&host.host).replace("%3A", ":"))
            } else {
                encode(&host.host)
            };
            format!("{name}:{}", host.port)
        })
        .collect();
    let parameters: Vec<String> = parameters(conninfo)
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", encode(&value?))))
        .collect();
    format!(
        "postgresql://{}{password}@{}/{}{}{}",
        encode(&conninfo.user),
        hosts.join(","),
        encode(&conninfo.database),
        if parameters.is_empty() { "" } else { "?" },
        parameters.join("&")
    )
}

fn parameters(conninfo: &Conninfo) -> Vec<(&'static str, Option<String>)> {
    let some = |text: &str| Some(text.to_owned());
    let addresses: Vec<&str> = conninfo
        .hosts
        .iter()
        .map(|host| host.address.as_deref().unwrap_or_default())
        .collect();
    let any_address = addresses.iter().any(|address| !address.is_empty());
    let timeout = match conninfo.connect_timeout_seconds {
        Some(DEFAULT_CONNECT_TIMEOUT_SECONDS) => None,
        Some(seconds) => Some(seconds.to_string()),
        None => some("0"),
    };
    vec![
        ("hostaddr", any_address.then(|| addresses.join(","))),
        ("sslmode", ssl_mode(conninfo.ssl_mode).and_then(some)),
        ("sslrootcert", conninfo.ssl_root_cert.clone()),
        ("sslcert", conninfo.ssl_cert.clone()),
        ("sslkey", conninfo.ssl_key.clone()),
        (
            "sslpassword",
            conninfo.ssl_password.as_ref().and_then(|_| some("****")),
        ),
        (
            "sslcertmode",
            ssl_cert_mode(conninfo.ssl_cert_mode).and_then(some),
        ),
        (
            "channel_binding",
            channel_binding(conninfo.channel_binding).and_then(some),
        ),
        (
            "require_auth",
            conninfo.require_auth.as_ref().map(ToString::to_string),
        ),
        (
            "load_balance_hosts",
            (conninfo.load_balance_hosts == LoadBalanceHosts::Random).then(|| "random".to_owned()),
        ),
        (
            "target_session_attrs",
            session_attrs(conninfo.target_session_attrs).and_then(some),
        ),
        ("connect_timeout", timeout),
        ("application_name", conninfo.application_name.clone()),
        ("options", conninfo.options.clone()),
    ]
}

fn ssl_mode(mode: SslMode) -> Option<&'static str> {
    match mode {
        SslMode::Disable => Some("disable"),
        SslMode::Allow => Some("allow"),
        SslMode::Prefer => None,
        SslMode::Require => Some("require"),
        SslMode::VerifyCa => Some("verify-ca"),
        SslMode::VerifyFull => Some("verify-full"),
    }
}

fn ssl_cert_mode(mode: SslCertMode) -> Option<&'static str> {
    match mode {
        SslCertMode::Disable => Some("disable"),
        SslCertMode::Allow => None,
        SslCertMode::Require => Some("require"),
    }
}

fn channel_binding(binding: ChannelBinding) -> Option<&'static str> {
    match binding {
        ChannelBinding::Disable => Some("disable"),
        ChannelBinding::Prefer => None,
        ChannelBinding::Require => Some("require"),
    }
}

fn session_attrs(attrs: TargetSessionAttrs) -> Option<&'static str> {
    match attrs {
        TargetSessionAttrs::Any => None,
        TargetSessionAttrs::ReadWrite => Some("read-write"),
        TargetSessionAttrs::Primary => Some("primary"),
        TargetSessionAttrs::ReadOnly => Some("read-only"),
        TargetSessionAttrs::Standby => Some("standby"),
        TargetSessionAttrs::PreferStandby => Some("prefer-standby"),
    }
}

/// Percent-encodes all but letters, digits and a few signs that mean nothing in a URL.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Secret};
    use super::*;

    #[test]
    fn masked_url_is_as_plain_as_it_can_be() {
        for (text, url) in [
            (
                "user=ann password=hunter2 host=db-1.example_x port=6000 dbname=app",
                "postgresql://ann:****@db-1.example_x:6000/app",
            ),
            (
                "user=ann host=::1 dbname='a b'",
                "postgresql://ann@[::1]:5432/a%20b",
            ),
            (
                "user=ann host=fe80::1%eth0",
                "postgresql://ann@[fe80::1%25eth0]:5432/ann",
            ),
            (
                "user=ann host=/run/a:b dbname=app",
                "postgresql://ann@%2Frun%2Fa%3Ab:5432/app",
            ),
        ] {
            let conninfo = Conninfo::parse(text, &Environment::default()).unwrap();
            assert_eq!(conninfo.masked_url(), url);
        }
    }

    #[test]
    fn masked_url_gives_the_same_but_for_the_password() {
        for text in [
            "user=ann",
            "user=ann password=hunter2 host=db port=6000 dbname=app",
            "postgres://%C3%A4nn%40x:hunter2@[::1]:1,two:2,%2Frun%2Fpg/a%2Fb?sslmode=require&options=-c%20a%3Db&connect_timeout=0",
            "user=ann host=fe80::1%eth0",
            "user=ann host=a,b hostaddr=10.0.0.1,10.0.0.2 sslmode=disable target_session_attrs=read-write connect_timeout=3",
            "user=ann sslpassword=hunter2 sslcertmode=require require_auth=!password,!md5 load_balance_hosts=random",
            "user=ann sslmode=verify-full sslrootcert=/ca sslcert=/c sslkey='/k k' channel_binding=require application_name=x",
        ] {
            let mut conninfo = Conninfo::parse(text, &Environment::default()).unwrap();
            let url = conninfo.masked_url();
            assert!(!url.contains("hunter2"), "{url}");
            if conninfo.password.is_some() {
                conninfo.password = Some(Secret::new("****"));
            }
            if conninfo.ssl_password.is_some() {
                conninfo.ssl_password = Some(Secret::new("****"));
            }
            assert_eq!(
                Conninfo::parse(&url, &Environment::default()).unwrap(),
                conninfo,
                "{url}"
            );
        }
    }
}
