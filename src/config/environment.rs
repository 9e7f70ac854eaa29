//! Environment variables, and what the system says about user, home and libpq's files.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Mistakes;
use super::raw::{Given, Kept, Raw, Side};
use crate::conninfo::{Conninfo, Environment, closest};
use crate::error::Result;

/// Every variable that `cdc` reads, besides those of libpq.
const VARIABLES: [&str; 23] = [
    "CDC_CONFIG",
    "CDC_LOG",
    "CDC_LOG_FORMAT",
    "CDC_MAX_RETAINED_WAL",
    "CDC_PG_BIN",
    "CDC_PUBLICATION",
    "CDC_PUBLISH_COLUMNS",
    "CDC_RESYNC_JITTER",
    "CDC_RESYNC_SCHEDULE",
    "CDC_RESYNC_TIMEZONE",
    "CDC_SCHEMA",
    "CDC_SLOT",
    "CDC_SOURCE_PASSWORD",
    "CDC_SOURCE_PASSWORD_FILE",
    "CDC_SOURCE_URL",
    "CDC_SOURCE_URL_FILE",
    "CDC_STATUS_INTERVAL",
    "CDC_SYNCHRONOUS_COMMIT",
    "CDC_TARGET_PASSWORD",
    "CDC_TARGET_PASSWORD_FILE",
    "CDC_TARGET_URL",
    "CDC_TARGET_URL_FILE",
    "NO_COLOR",
];

/// This process's variables; those that are not UTF-8 are left out.
pub(super) fn variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Warnings about variables that are spelled nearly like one of ours.
pub(super) fn misspelled(variables: &BTreeMap<String, String>) -> Vec<String> {
    variables
        .keys()
        // CDC_PG_BIN_15 and the like name server programs for tests.
        .filter(|name| name.starts_with("CDC_") && !name.starts_with("CDC_PG_BIN"))
        .filter(|name| !VARIABLES.contains(&name.as_str()))
        .filter_map(|name| {
            let known = closest(name, VARIABLES)?;
            Some(format!(
                "Environment variable {name} is not read; did you mean {known}?"
            ))
        })
        .collect()
}

/// What the environment says; an empty variable counts as not set.
pub(super) fn raw(variables: &BTreeMap<String, String>, mistakes: &mut Mistakes) -> Raw {
    let given = |name: &str| {
        let value = variables.get(name).filter(|value| !value.is_empty())?;
        Some(Given {
            value: value.clone(),
            origin: name.to_owned(),
        })
    };
    let mut kept = |name: &str| {
        let file_name = format!("{name}_FILE");
        if given(name).is_some() && given(&file_name).is_some() {
            mistakes.note_with_hint(
                format!("both {name} and {file_name} are set"),
                "Unset one of them.",
            );
        }
        given(name)
            .map(|given| given.keep(Kept::Here))
            .or_else(|| given(&file_name).map(|given| given.keep(Kept::InFile)))
    };
    Raw {
        source: Side {
            url: kept("CDC_SOURCE_URL"),
            password: kept("CDC_SOURCE_PASSWORD"),
        },
        target: Side {
            url: kept("CDC_TARGET_URL"),
            password: kept("CDC_TARGET_PASSWORD"),
        },
        publication: given("CDC_PUBLICATION"),
        slot: given("CDC_SLOT"),
        publish_columns: given("CDC_PUBLISH_COLUMNS"),
        max_retained_wal: given("CDC_MAX_RETAINED_WAL"),
        failover: given("CDC_FAILOVER"),
        schema: given("CDC_SCHEMA"),
        synchronous_commit: given("CDC_SYNCHRONOUS_COMMIT"),
        on_row_error: given("CDC_ON_ROW_ERROR"),
        read_models: None,
        schedule: given("CDC_RESYNC_SCHEDULE"),
        timezone: given("CDC_RESYNC_TIMEZONE"),
        jitter: given("CDC_RESYNC_JITTER"),
        status_interval: given("CDC_STATUS_INTERVAL"),
        // CDC_LOG stands in for a flag: the log starts before the configuration is read.
        log_level: None,
    }
}

impl Given {
    pub(super) fn keep(self, kept: impl FnOnce(String) -> Kept) -> Given<Kept> {
        Given {
            value: kept(self.value),
            origin: self.origin,
        }
    }
}

/// What the meaning of a connection string depends on, with service files and certificates looked
/// up.
pub(super) fn conninfo_environment(variables: &BTreeMap<String, String>) -> Environment {
    let passwd = passwd_entry();
    let user = passwd.as_ref().map(|(user, _)| user.clone()).or_else(|| {
        variables
            .get("USER")
            .filter(|user| !user.is_empty())
            .cloned()
    });
    let home = variables
        .get("HOME")
        .filter(|home| !home.is_empty())
        .cloned()
        .or_else(|| passwd.map(|(_, home)| home));
    let mut environment = Environment {
        variables: variables
            .iter()
            .filter(|(name, _)| name.starts_with("PG"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        files: BTreeMap::new(),
        user,
        home,
        socket_directory: ["/var/run/postgresql", "/tmp"]
            .into_iter()
            .find(|directory| has_socket(Path::new(directory)))
            .map(str::to_owned),
    };
    for file in environment.service_files() {
        if let Ok(text) = std::fs::read_to_string(&file) {
            environment.files.insert(file, text);
        }
    }
    for file in environment
        .default_certificate_files()
        .into_iter()
        .flatten()
    {
        if Path::new(&file).is_file() {
            environment.files.insert(file, String::new());
        }
    }
    environment
}

/// Reads the connection string, and the password file that it leads to.
pub(super) fn conninfo(
    text: &str,
    environment: &mut Environment,
    warnings: &mut Vec<String>,
) -> Result<Conninfo> {
    if let Some(file) = Conninfo::password_file(text, environment)?
        && !environment.files.contains_key(&file)
        && let Ok(metadata) = std::fs::metadata(&file)
    {
        // As libpq: a password file that others may read is left out, with a warning.
        if !metadata.is_file() {
            warnings.push(format!(
                "Password file \"{file}\" is no plain file and is left out."
            ));
        } else if metadata.mode() & 0o077 != 0 {
            warnings.push(format!(
                "Password file \"{file}\" may be read by others and is left out; set its permissions to 0600."
            ));
        } else if let Ok(contents) = std::fs::read_to_string(&file) {
            environment.files.insert(file, contents);
        } else {
            warnings.push(format!(
                "Password file \"{file}\" cannot be read and is left out."
            ));
        }
    }
    Conninfo::parse(text, environment)
}

fn has_socket(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(".s.PGSQL."))
        })
    })
}

/// Name and home of the user that this process runs as, from /etc/passwd.
fn passwd_entry() -> Option<(String, String)> {
    let uid = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(2)?;
        (id == uid).then(|| (name.to_owned(), home.to_owned()))
    })
}
