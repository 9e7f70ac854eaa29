//! The system account that a throw-away server runs under.
//!
//! PostgreSQL refuses to run as root. Started by root, the servers run as `postgres`, or as another
//! account without rights if there is none. Started by any other user, they run as that user.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};

/// Accounts to use in place of root, best first.
const ACCOUNTS: [&str; 4] = ["postgres", "nobody", "daemon", "www-data"];

/// The account that runs initdb and postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// The user that runs this process.
    Own,
    /// Another one; only root can do this.
    Other {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

impl Account {
    /// The account for servers of the process that has just created `directory`: its owner is our
    /// own user.
    ///
    /// # Errors
    /// Configuration: we are root and there is no account to become.
    pub(super) fn for_owner_of(directory: &Path) -> Result<Self> {
        let owner = std::fs::metadata(directory)
            .map_err(|error| {
                Error::transient("could not look at the server's directory").with_source(error)
            })?
            .uid();
        if owner != 0 {
            return Ok(Self::Own);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        in_passwd(&passwd).ok_or_else(|| {
            Error::configuration("cannot run a PostgreSQL server as root")
                .with_detail(format!(
                    "None of the users {} is in /etc/passwd.",
                    ACCOUNTS.join(", ")
                ))
                .with_hint("Run this as another user, or create the user postgres.")
        })
    }

    /// Makes the command run under this account.
    pub(super) fn apply(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives the file or directory to this account.
    ///
    /// # Errors
    /// Transient: the system refuses.
    pub(super) fn own(self, path: &Path) -> Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .map_err(|error| {
                    Error::transient(format!("could not hand over \"{}\"", path.display()))
                        .with_source(error)
                }),
        }
    }
}

fn in_passwd(passwd: &str) -> Option<Account> {
    ACCOUNTS.iter().find_map(|account| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next() != Some(account) {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid != 0)?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account::Other { uid, gid })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_is_taken_before_nobody_and_root_never() {
        let other = |uid, gid| Some(Account::Other { uid, gid });
        let nobody = "nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(in_passwd(nobody), other(65534, 65533));
        assert_eq!(
            in_passwd(&format!("{nobody}postgres:x:101:104:,,,:/:/bin/sh\n")),
            other(101, 104)
        );
        assert_eq!(
            in_passwd(&format!("{nobody}postgres:x:0:0:,,,:/:/bin/sh\n")),
            other(65534, 65533)
        );
        assert_eq!(in_passwd("root:x:0:0:root:/root:/bin/bash\nbroken\n"), None);
    }
}
