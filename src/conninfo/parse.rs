//! A connection string, URL or `key=value`, as a list of keywords and values: the first step of
//! [`Conninfo::parse`].
//!
//! This step knows only the spelling of the keywords. As in libpq, a later value replaces an
//! earlier one.
//!
//! Stricter than libpq in three things, each of which is a typing mistake: an `@` in a URL's host,
//! blanks in a URL (libpq takes them for a part of the value up to 16, and leaves out those at the
//! ends from 17 on), and percent-encoded bytes that are not UTF-8. What is no connection string of
//! PostgreSQL's is named by `foreign`.
//!
//! A message repeats only parts of the string that cannot be parts of a password. If a password
//! with blanks, `@`, `/` or `?` was written without quotes, its parts look like hosts, ports and
//! keywords.
//!
//! [`Conninfo::parse`]: super::Conninfo::parse

use std::collections::BTreeMap;

use super::foreign;
use crate::error::{Error, Result};

/// Keywords with their values, and whether an unknown keyword may be named.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pairs {
    pub(super) values: BTreeMap<String, String>,
    /// Keywords that may be a piece of a password, and so are not repeated in messages.
    pub(super) doubtful: Vec<String>,
}

impl Pairs {
    fn set(&mut self, key: &str, value: String) {
        // An old name for a part of sslmode, which libpq still takes.
        let (key, value) = match key {
            "requiressl" if value.starts_with('1') => ("sslmode", "require".to_owned()),
            "requiressl" => ("sslmode", "prefer".to_owned()),
            key => (key, value),
        };
        self.values.insert(key.to_owned(), value);
    }
}

/// Reads either form.
pub(super) fn parse(text: &str) -> Result<Pairs> {
    foreign::check(text)?;
    let url = ["postgresql://", "postgres://"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix));
    match url {
        Some(rest) => parse_url(rest),
        None => parse_pairs(text),
    }
}

/// What C's `isspace` takes for a blank, and so libpq.
fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{b}'
}

fn wrong(what: &str) -> Error {
    Error::configuration(format!("cannot read the connection string: {what}"))
}

const ENCODE_HINT: &str = "In a URL, percent-encode special characters of user and password: @ as %40, : as %3A, / as %2F, \
     ? as %3F, # as %23, % as %25, a blank as %20.";

/// `[user[:password]@][host][:port][,...][/database][?key=value[&...]]`.
fn parse_url(text: &str) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    // The line break that ends a file, or the value of a secret.
    let text = text.trim_end_matches(is_blank);
    if text.contains(is_blank) {
        return Err(wrong("a URL has no blanks").with_hint(ENCODE_HINT));
    }
    let authority_end = text.find('/').unwrap_or(text.len());
    let (userinfo, rest) = match text.split_once('@') {
        Some((userinfo, rest)) if userinfo.len() < authority_end => (Some(userinfo), rest),
        _ => (None, text),
    };
    if let Some(userinfo) = userinfo {
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        set_unless_empty(&mut pairs, "user", user)?;
        set_unless_empty(&mut pairs, "password", password.unwrap_or_default())?;
    }
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, database) = match before_query.split_once('/') {
        Some((authority, database)) => (authority, database),
        None => (before_query, ""),
    };
    parse_hosts(&mut pairs, authority)?;
    set_unless_empty(&mut pairs, "dbname", database)?;
    if let Some(query) = query {
        let may_be_password = userinfo.is_none() && query.contains('@');
        parse_query(&mut pairs, query, may_be_password)?;
    }
    Ok(pairs)
}

fn set_unless_empty(pairs: &mut Pairs, key: &str, value: &str) -> Result<()> {
    if !value.is_empty() {
        pairs.set(key, decode(value)?);
    }
    Ok(())
}

/// `host[:port],[ipv6]:port,...` as the comma-separated lists `host` and `port`.
fn parse_hosts(pairs: &mut Pairs, authority: &str) -> Result<()> {
    if authority.contains('@') {
        return Err(wrong("more than one @ before the host").with_hint(ENCODE_HINT));
    }
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for entry in authority.split(',') {
        let (host, port) = match entry.strip_prefix('[') {
            Some(rest) => {
                let Some((address, after)) = rest
                    .split_once(']')
                    .filter(|(address, _)| !address.is_empty())
                else {
                    return Err(wrong("an IPv6 address is not closed by ], or is empty"));
                };
                match (after, after.strip_prefix(':')) {
                    ("", _) => (address, ""),
                    (_, Some(port)) => (address, port),
                    _ => return Err(wrong("expected : or the end after ] of an IPv6 address")),
                }
            }
            None => entry.split_once(':').unwrap_or((entry, "")),
        };
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
    }
    for (key, list) in [("host", hosts.join(",")), ("port", ports.join(","))] {
        if !list.is_empty() {
            pairs.set(key, list);
        }
    }
    Ok(())
}

fn parse_query(pairs: &mut Pairs, query: &str, may_be_password: bool) -> Result<()> {
    // As in libpq, one & may stand at the end.
    let query = query.strip_suffix('&').unwrap_or(query);
    if query.is_empty() {
        return Ok(());
    }
    for parameter in query.split('&') {
        let Some((key, value)) = parameter.split_once('=') else {
            return Err(wrong("a query parameter of the URL has no =").with_hint(ENCODE_HINT));
        };
        if value.contains('=') {
            return Err(wrong("a query parameter of the URL has a second =")
                .with_hint("Percent-encode = in a value as %3D."));
        }
        let (key, value) = (decode(key)?, decode(value)?);
        match (key.as_str(), value.as_str()) {
            // As in JDBC URLs; libpq takes it too.
            ("ssl", "true") => pairs.set("sslmode", "require".to_owned()),
            _ => {
                if may_be_password {
                    pairs.doubtful.push(key.clone());
                }
                pairs.set(&key, value);
            }
        }
    }
    Ok(())
}

/// Percent-decoding; `+` stands for itself.
fn decode(text: &str) -> Result<String> {
    let malformed =
        || wrong("a percent sign is not followed by two hexadecimal digits").with_hint(ENCODE_HINT);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let value = match (digit(), digit()) {
            (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or_default(),
            _ => return Err(malformed()),
        };
        if value == 0 {
            return Err(wrong("%00 is not allowed"));
        }
        bytes.push(value);
    }
    String::from_utf8(bytes).map_err(|_| wrong("a percent-encoded value is not UTF-8"))
}

/// `key = value key='it''s'`: blanks separate, quotes hold blanks together, a backslash takes the
/// next character as it is.
fn parse_pairs(text: &str) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    let mut after_password = false;
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| is_blank(*c)).is_some() {}
        if chars.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !is_blank(*c)) {
            key.push(c);
        }
        while chars.next_if(|c| is_blank(*c)).is_some() {}
        if chars.next_if_eq(&'=').is_none() || key.is_empty() {
            return Err(wrong("expected key=value").with_hint(
                "Put values with blanks in single quotes, with a backslash before a quote or a backslash; or write a \
                 URL: postgresql://user:password@host:5432/database.",
            ));
        }
        while chars.next_if(|c| is_blank(*c)).is_some() {}
        let value = if chars.next_if_eq(&'\'').is_some() {
            quoted_value(&mut chars)?
        } else {
            plain_value(&mut chars)
        };
        if after_password {
            pairs.doubtful.push(key.clone());
        }
        after_password = key == "password";
        pairs.set(&key, value);
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn plain_value(chars: &mut Chars<'_>) -> String {
    let mut value = String::new();
    while let Some(c) = chars.next_if(|c| !is_blank(*c)) {
        value.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    value
}

fn quoted_value(chars: &mut Chars<'_>) -> Result<String> {
    let mut value = String::new();
    loop {
        match chars.next() {
            None => return Err(wrong("a quoted value has no closing quote")),
            Some('\'') => return Ok(value),
            Some('\\') => value.extend(chars.next()),
            Some(c) => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs as `key=value`, in the order of the keys, separated by blanks.
    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(pairs) => pairs
                .values
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => {
                let (_, what) = error.message().split_once(": ").unwrap();
                format!("! {what}")
            }
        }
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        for (url, expected) in [
            ("postgres://", ""),
            ("postgresql:///", ""),
            ("postgresql://db", "host=db"),
            ("postgresql://db/", "host=db"),
            ("postgresql://db:6000/app", "dbname=app host=db port=6000"),
            ("postgresql://db:/app", "dbname=app host=db"),
            ("postgresql://:6000", "port=6000"),
            ("postgresql:///app", "dbname=app"),
            ("postgresql://ann@db", "host=db user=ann"),
            (
                "postgresql://ann:pw@db/app",
                "dbname=app host=db password=pw user=ann",
            ),
            ("postgresql://ann:@db", "host=db user=ann"),
            ("postgresql://:pw@db", "host=db password=pw"),
            ("postgresql://@", ""),
            ("postgresql://ann:a:b@db", "host=db password=a:b user=ann"),
            (
                "postgresql://%C3%A4nn:p%40s%2Fs%3Aw%25@db",
                "host=db password=p@s/s:w% user=änn",
            ),
            ("postgresql://a+b@db", "host=db user=a+b"),
            ("postgresql://[::1]", "host=::1"),
            (
                "postgresql://[::1]:6000/app",
                "dbname=app host=::1 port=6000",
            ),
            (
                "postgresql://[2001:db8::1]?port=7",
                "host=2001:db8::1 port=7",
            ),
            (
                "postgresql://one:1,two,[::3]:3/app",
                "dbname=app host=one,two,::3 port=1,,3",
            ),
            ("postgresql://one,two", "host=one,two port=,"),
            ("postgresql://%2Frun%2Fpg/app", "dbname=app host=/run/pg"),
            (
                "postgresql://%2Frun%2Fpg:6000/app",
                "dbname=app host=/run/pg port=6000",
            ),
            ("postgresql:///app?host=/run/pg", "dbname=app host=/run/pg"),
            ("postgresql://db?host=other", "host=other"),
            (
                "postgresql://db/app?user=ann&port=6000",
                "dbname=app host=db port=6000 user=ann",
            ),
            (
                "postgresql://db/app?user=ann@server",
                "dbname=app host=db user=ann@server",
            ),
            (
                "postgresql://db?sslmode=require&",
                "host=db sslmode=require",
            ),
            ("postgresql://db?ssl=true", "host=db sslmode=require"),
            ("postgresql://db?ssl=false", "host=db ssl=false"),
            ("postgresql://db?", "host=db"),
            ("postgresql://db?&", "host=db"),
            ("postgresql://d\u{a0}b", "host=d\u{a0}b"),
            ("postgresql://db?requiressl=1", "host=db sslmode=require"),
            (
                "postgresql://db?options=-c%20a%3Db",
                "host=db options=-c a=b",
            ),
            ("postgresql://db/a/b", "dbname=a/b host=db"),
            ("postgresql://db/a%20b", "dbname=a b host=db"),
            ("postgresql://db?us%65r=ann", "host=db user=ann"),
            ("postgresql://db?user=", "host=db user="),
            (
                "postgresql://[::1",
                "! an IPv6 address is not closed by ], or is empty",
            ),
            (
                "postgresql://[]",
                "! an IPv6 address is not closed by ], or is empty",
            ),
            (
                "postgresql://[::1]x",
                "! expected : or the end after ] of an IPv6 address",
            ),
            (
                "postgresql://db?user",
                "! a query parameter of the URL has no =",
            ),
            (
                "postgresql://db?user=a&&port=1",
                "! a query parameter of the URL has no =",
            ),
            (
                "postgresql://db?&user=a",
                "! a query parameter of the URL has no =",
            ),
            (
                "postgresql://db?user=a=b",
                "! a query parameter of the URL has a second =",
            ),
            (
                "postgresql://db?user=%",
                "! a percent sign is not followed by two hexadecimal digits",
            ),
            (
                "postgresql://db?user=%g1",
                "! a percent sign is not followed by two hexadecimal digits",
            ),
            (
                "postgresql://db?user=%1",
                "! a percent sign is not followed by two hexadecimal digits",
            ),
            ("postgresql://db?user=%00", "! %00 is not allowed"),
            (
                "postgresql://db?user=%ff",
                "! a percent-encoded value is not UTF-8",
            ),
            ("postgresql://a:b@c@db", "! more than one @ before the host"),
            ("postgresql://a:b c@db", "! a URL has no blanks"),
            ("postgresql://db \n", "host=db"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn pairs_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("", ""),
            ("  ", ""),
            ("host=db", "host=db"),
            (" host = db\tport\n=\n6000 ", "host=db port=6000"),
            ("password='it\\'s a \\\\'", "password=it's a \\"),
            (
                "password=a\\ b\\'c\\\\ user=ann",
                "password=a b'c\\ user=ann",
            ),
            ("host='' user=ann", "host= user=ann"),
            ("host= user=ann", "host=user=ann"),
            ("user=a user=b", "user=b"),
            ("user='a'port=1", "port=1 user=a"),
            ("user=a'b'", "user=a'b'"),
            ("user=a\\", "user=a"),
            ("user='a", "! a quoted value has no closing quote"),
            ("user='a\\", "! a quoted value has no closing quote"),
            ("user", "! expected key=value"),
            ("=a", "! expected key=value"),
            ("host=db user", "! expected key=value"),
            ("user=a\u{b}port=1\u{c}host=b\r\n", "host=b port=1 user=a"),
            ("user=a\u{a0}b", "user=a\u{a0}b"),
            ("requiressl=1", "sslmode=require"),
            ("sslmode=verify-full requiressl=0", "sslmode=prefer"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn keyword_after_an_unquoted_password_is_doubtful() {
        assert_eq!(parse("password=a b=c user=d").unwrap().doubtful, ["b"]);
        assert_eq!(parse("postgres://u:p/a?w=1@db/x").unwrap().doubtful, ["w"]);
    }
}
