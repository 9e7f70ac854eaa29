//! The texts of the password file and of service files.
//!
//! Both are read as libpq reads them; [`Environment`] decides which files are read.

use super::{Environment, Host, Secret};
use crate::error::{Error, Result};

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

    /// The password file that is read where the connection string names none.
    pub(crate) fn default_password_file(&self) -> Option<String> {
        match self.variable("PGPASSFILE") {
            Some(file) => Some(file.to_owned()),
            None => self.home.as_ref().map(|home| format!("{home}/.pgpass")),
        }
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
pub(super) fn service(environment: &Environment, name: &str) -> Result<Vec<(String, String)>> {
    let files = environment.service_files();
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

fn service_in(text: &str, name: &str, file: &str) -> Result<Option<Vec<(String, String)>>> {
    let mut settings: Option<Vec<(String, String)>> = None;
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
            if header.strip_suffix(']') == Some(name) {
                settings = Some(Vec::new());
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
            settings.push((key.to_owned(), value.to_owned()));
        }
    }
    Ok(settings)
}

/// The password of the first line that fits; lines are `host:port:database:user:password`.
pub(super) fn password(text: &str, host: &Host, database: &str, user: &str) -> Option<Secret> {
    let port = host.port.to_string();
    text.lines().find_map(|line| {
        if line.starts_with('#') {
            return None;
        }
        let mut fields = Fields(line);
        let host_field = fields.next()?;
        let others = [fields.next()?, fields.next()?, fields.next()?];
        let password = fields.next()?;
        let host_fits =
            host_field.fits(&host.host) || (host.is_unix() && host_field.fits("localhost"));
        let fits = others
            .iter()
            .zip([port.as_str(), database, user])
            .all(|(field, value)| field.fits(value));
        (host_fits && fits && !password.text.is_empty()).then(|| Secret::new(password.text))
    })
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

impl Iterator for Fields<'_> {
    type Item = Field;

    fn next(&mut self) -> Option<Field> {
        let any = self.0.starts_with("*:");
        let mut text = String::new();
        let mut chars = self.0.chars();
        while let Some(c) = chars.next() {
            match c {
                ':' => break,
                '\\' => text.push(chars.next().unwrap_or(c)),
                _ => text.push(c),
            }
        }
        self.0 = chars.as_str();
        Some(Field { text, any })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, host: &str) -> Option<String> {
        let host = Host {
            host: host.to_owned(),
            address: None,
            port: 5432,
        };
        password(text, &host, "app", "ann").map(|secret| secret.expose().to_owned())
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
            ("localhost:*:*:*:pw", "/run/pg", Some("pw")),
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
            Some(vec![pair("host", "db"), pair("password", " p=w")])
        );
        assert_eq!(service_in(text, "nobody", "f").unwrap(), None);
        let error = service_in("[mine]\nhunter2\n", "mine", "f").unwrap_err();
        assert_eq!(error.message(), "cannot read line 2 of service file \"f\"");
        assert!(service_in("[mine]\nservice=other\n", "mine", "f").is_err());
    }
}
