//! `require_auth`: by which methods a server may ask who connects.

use std::fmt;

use crate::error::{Error, Result};

/// A method of authentication, as a server asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthMethod {
    /// The password itself.
    Password,
    /// A hash of the password by MD5.
    Md5,
    /// Kerberos.
    Gss,
    /// Kerberos or NTLM of Windows.
    Sspi,
    /// Proof that both sides know the password.
    ScramSha256,
    /// A token of an identity provider.
    Oauth,
    /// The server asks for nothing: `trust` or `cert` in its pg_hba.conf.
    None,
}

impl AuthMethod {
    const ALL: [Self; 7] = [
        Self::Password,
        Self::Md5,
        Self::Gss,
        Self::Sspi,
        Self::ScramSha256,
        Self::Oauth,
        Self::None,
    ];

    /// Those that `cdc` can do.
    const OURS: [Self; 4] = [Self::Password, Self::Md5, Self::ScramSha256, Self::None];

    /// The name in `require_auth`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::Gss => "gss",
            Self::Sspi => "sspi",
            Self::ScramSha256 => "scram-sha-256",
            Self::Oauth => "oauth",
            Self::None => "none",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// The methods that may be used, or, each with a `!`, those that may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequireAuth {
    named: Vec<AuthMethod>,
    are_forbidden: bool,
}

impl RequireAuth {
    /// Reads the list, which is not empty.
    ///
    /// # Errors
    /// Configuration: an unknown or repeated method, methods with and without `!`, or none left
    /// that `cdc` can do. No message repeats the text, which may be a piece of a password.
    pub fn parse(text: &str) -> Result<Self> {
        let are_forbidden = text.starts_with('!');
        let mut named = Vec::new();
        for part in text.split(',') {
            let name = part.strip_prefix('!');
            if name.is_some() != are_forbidden {
                return Err(wrong("has methods with an exclamation mark and without")
                    .with_hint("Write it before each method, or before none."));
            }
            let method = AuthMethod::of(name.unwrap_or(part)).ok_or_else(unknown)?;
            if named.contains(&method) {
                return Err(wrong(&format!("names \"{}\" twice", method.name())));
            }
            named.push(method);
        }
        let demand = Self {
            named,
            are_forbidden,
        };
        if AuthMethod::OURS.iter().any(|method| demand.allows(*method)) {
            return Ok(demand);
        }
        Err(
            wrong(&format!("is \"{demand}\", which allows no method of cdc's")).with_hint(format!(
                "cdc does {}; gss, sspi and oauth are never used.",
                names(&AuthMethod::OURS, "")
            )),
        )
    }

    /// Whether a server may ask for this.
    pub(crate) fn allows(&self, method: AuthMethod) -> bool {
        self.named.contains(&method) != self.are_forbidden
    }

    /// Whether the list asks for this by name.
    pub(crate) fn names(&self, method: AuthMethod) -> bool {
        !self.are_forbidden && self.named.contains(&method)
    }
}

impl fmt::Display for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.are_forbidden { "!" } else { "" };
        f.write_str(&names(&self.named, mark).replace(", ", ","))
    }
}

fn names(methods: &[AuthMethod], mark: &str) -> String {
    let names: Vec<String> = methods
        .iter()
        .map(|method| format!("{mark}{}", method.name()))
        .collect();
    names.join(", ")
}

fn wrong(what: &str) -> Error {
    Error::configuration(format!("require_auth of the connection string {what}"))
}

fn unknown() -> Error {
    wrong("has an unknown method").with_hint(format!(
        "The methods are {}, with commas and without blanks between them.",
        names(&AuthMethod::ALL, "")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_allows_what_libpq_allows() {
        for (text, allowed) in [
            ("password", "password"),
            ("scram-sha-256", "scram-sha-256"),
            ("scram-sha-256,none", "scram-sha-256, none"),
            ("gss,md5", "md5, gss"),
            ("none", "none"),
            ("!none", "password, md5, gss, sspi, scram-sha-256, oauth"),
            ("!password,!md5", "gss, sspi, scram-sha-256, oauth, none"),
            ("!password,!md5,!scram-sha-256", "gss, sspi, oauth, none"),
        ] {
            let demand = RequireAuth::parse(text).unwrap();
            let found: Vec<AuthMethod> = AuthMethod::ALL
                .into_iter()
                .filter(|method| demand.allows(*method))
                .collect();
            assert_eq!(names(&found, ""), allowed, "{text}");
            assert_eq!(demand.to_string(), text);
        }
    }

    #[test]
    fn only_a_list_without_exclamation_marks_asks_for_a_method() {
        for (text, expected) in [("password,md5", true), ("md5", false), ("!md5", false)] {
            let demand = RequireAuth::parse(text).unwrap();
            assert_eq!(demand.names(AuthMethod::Password), expected, "{text}");
        }
    }

    #[test]
    fn what_libpq_refuses_is_refused_and_so_is_what_cdc_cannot_do() {
        for (text, expected) in [
            ("hunter2", "has an unknown method"),
            ("scram-sha-256, md5", "has an unknown method"),
            ("md5,", "has an unknown method"),
            ("!", "has an unknown method"),
            ("!!md5", "has an unknown method"),
            ("SCRAM-SHA-256", "has an unknown method"),
            (
                "md5,!password",
                "methods with an exclamation mark and without",
            ),
            (
                "!password,md5",
                "methods with an exclamation mark and without",
            ),
            ("md5,none,md5", "names \"md5\" twice"),
            ("!none,!none", "names \"none\" twice"),
            (
                "gss",
                "is \"gss\", which allows no method of cdc's (hint: cdc does password, md5,",
            ),
            ("sspi,gss", "is \"sspi,gss\""),
            (
                "!password,!md5,!scram-sha-256,!none",
                "allows no method of cdc's",
            ),
        ] {
            let shown = format!("{:?}", RequireAuth::parse(text).unwrap_err());
            assert!(shown.contains(expected), "{text}: {shown}");
            assert!(!shown.contains("hunter"), "{shown}");
        }
    }
}
