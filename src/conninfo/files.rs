//! The texts of the password file and of service files.
//!
//! Both are read as libpq reads them; [`Environment`] decides which files are read.

use std::collections::BTreeMap;

use super::{Environment, Secret};
use crate::error::{Error, Result};

/// What a line of the password file calls the directory of sockets that is used where no host is
/// named.
pub(super) const DEFAULT_HOST: &str = "localhost";

impl Environment {
    /// Files that may define services, in the order in which they are read.
    pub(crate) fn service_files(&self) -> Vec<String> {
        let user = match self.variable("PGSERVICEFILE") {
            Some(file) => Some(file.to_owned()),
            None => self
                .home
                .as_ref()
                .map(|home| format!("{home}/.pg_service.conf")),
        };
        let directory = self
            .variable("PGSYSCONFDIR")
            .unwrap_or("/etc/postgresql-common");
        user.into_iter()
            .chain([format!("{directory}/pg_service.conf")])
            .collect()
    }

    /// The password file that is read where neither the connection string nor PGPASSFILE names one.
    pub(super) fn default_password_file(&self) -> Option<String> {
        self.home.as_ref().map(|home| format!("{home}/.pgpass"))
    }

    /// Certificate files that are used if they exist: authorities, client's certificate, client's
    /// key, revoked certificates.
    pub(crate) fn default_certificate_files(&self) -> Option<[String; 4]> {
        let home = self.home.as_ref()?;
        Some(
            ["root.crt", "postgresql.crt", "postgresql.key", "root.crl"]
                .map(|name| format!("{home}/.postgresql/{name}")),
        )
    }
}

/// The settings of a service, from the first file that defines it.
pub(super) fn service(environment: &Environment, name: &str) -> Result<BTreeMap<String, String>> {
    let files = environment.service_files();
    if let Some(named) = environment.variable("PGSERVICEFILE")
        && !environment.files.contains_key(named)
    {
        return Err(
            Error::configuration(format!("cannot read service file \"{named}\""))
                .with_hint("PGSERVICEFILE names it: correct or unset the variable."),
        );
    }
    for file in &files {
        if let Some(text) = environment.files.get(file)
            && let Some(settings) = service_in(text, name, file)?
        {
            return Ok(settings);
        }
    }
    Err(
        Error::configuration(format!("cannot find the definition of service \"{name}\""))
            .with_hint(format!("Define it in {}.", files.join(" or "))),
    )
}

fn service_in(text: &str, name: &str, file: &str) -> Result<Option<BTreeMap<String, String>>> {
    let mut settings: Option<BTreeMap<String, String>> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            // The first group of that name ends at the next header.
            if settings.is_some() {
                break;
            }
            // What stands behind the bracket does not count.
            let rest = header.strip_prefix(name);
            if rest.is_some_and(|rest| rest.starts_with(']')) {
                settings = Some(BTreeMap::new());
            }
        } else if let Some(settings) = &mut settings {
            let at = || {
                format!(
                    "line {} of service file \"{file}\"",
                    index.saturating_add(1)
                )
            };
            let Some((key, value)) = line.split_once('=') else {
                return Err(Error::configuration(format!("cannot read {}", at()))
                    .with_detail("A line is a comment, [service] or key=value."));
            };
            if key == "service" {
                return Err(Error::configuration(format!(
                    "a service refers to another one in {}",
                    at()
                )));
            }
            // Of two lines the first one counts.
            settings
                .entry(key.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    }
    Ok(settings)
}

/// The password of the first line that fits; lines are `host:port:database:user:password`. If it is
/// empty there is none.
pub(super) fn password(
    text: &str,
    (host, port): (&str, u16),
    database: &str,
    user: &str,
) -> Option<Secret> {
    let port = port.to_string();
    let found = text.split('\n').find_map(|line| {
        if line.starts_with('#') {
            return None;
        }
        let mut fields = Fields(line.trim_end_matches('\r'));
        let before = [(); 4].map(|()| fields.ended());
        let fits = before
            .iter()
            .zip([host, port.as_str(), database, user])
            .all(|(field, value)| field.as_ref().is_some_and(|field| field.fits(value)));
        fits.then(|| fields.field().0.text)
    });
    found
        .filter(|password| !password.is_empty())
        .map(Secret::new)
}

/// One field of a line, without its escapes.
struct Field {
    text: String,
    /// Whether it is a bare `*`.
    any: bool,
}

impl Field {
    fn fits(&self, value: &str) -> bool {
        self.any || self.text == value
    }
}

/// The fields of a line: separated by `:`, a backslash takes the next character as it is.
struct Fields<'a>(&'a str);

impl Fields<'_> {
    /// The next field, if a `:` ends it.
    fn ended(&mut self) -> Option<Field> {
        let (field, is_ended) = self.field();
        is_ended.then_some(field)
    }

    /// The next field, and whether a `:` ends it.
    fn field(&mut self) -> (Field, bool) {
        let any = self.0.starts_with("*:");
        let mut text = String::new();
        let mut chars = self.0.chars();
        while let Some(c) = chars.next() {
            match c {
                ':' => {
                    self.0 = chars.as_str();
                    return (Field { text, any }, true);
                }
                '\\' => text.push(chars.next().unwrap_or(c)),
                _ => text.push(c),
            }
        }
        self.0 = chars.as_str();
        (Field { text, any }, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, host: &str) -> Option<String> {
        password(text, (host, 5432), "app", "ann").map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn password_file_lines_fit_as_in_libpq() {
        for (text, host, expected) in [
            ("db:5432:app:ann:pw", "db", Some("pw")),
            ("*:*:*:*:pw", "db", Some("pw")),
            ("# *:*:*:*:no\n\n*:*:*:*:pw\n", "db", Some("pw")),
            ("db:5433:app:ann:no\ndb:*:app:ann:pw", "db", Some("pw")),
            ("db:*:app:bob:no", "db", None),
            ("db:*:other:ann:no", "db", None),
            ("\\:\\:1:*:*:*:pw", "::1", Some("pw")),
            ("*:*:*:*:p\\:w\\\\", "db", Some("p:w\\")),
            ("*:*:*:*:pw:rest", "db", Some("pw")),
            ("*:*:*:*:pw\r\n", "db", Some("pw")),
            ("\\*:*:*:*:no", "db", None),
            ("*x:*:*:*:no", "db", None),
            ("localhost:*:*:*:no", "/run/pg", None),
            ("*:*:*:*:pw\r\r\n", "db", Some("pw")),
            ("*:*:*:*:\n*:*:*:*:no", "db", None),
            ("*:*:app:ann\\:", "db", None),
            ("*:*:app:ann\n:pw", "db", None),
            ("/run/pg:*:*:*:pw", "/run/pg", Some("pw")),
            ("localhost:*:*:*:no", "db", None),
            ("*:*:*:*:", "db", None),
            ("*:*:*:*", "db", None),
            ("", "db", None),
        ] {
            assert_eq!(found(text, host).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn service_is_the_group_of_that_name() {
        let text = "# comment\n[other]\nhost=no\n\n[mine]\n# comment\nhost=db\npassword= p=w \n[mine]\nhost=no\n";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            service_in(text, "mine", "f").unwrap(),
            Some([pair("host", "db"), pair("password", " p=w")].into())
        );
        assert_eq!(service_in(text, "nobody", "f").unwrap(), None);
        let twice = "[mine] # comment\nhost=db\nhost=no\n";
        assert_eq!(
            service_in(twice, "mine", "f").unwrap(),
            Some([pair("host", "db")].into())
        );
        let error = service_in("[mine]\nhunter2\n", "mine", "f").unwrap_err();
        assert_eq!(error.message(), "cannot read line 2 of service file \"f\"");
        assert!(service_in("[mine]\nservice=other\n", "mine", "f").is_err());
    }
}
