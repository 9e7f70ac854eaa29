//! Opens a connection to the target.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, PgConnection};

use crate::conninfo::Conninfo;
use crate::error::{Error, Result};
use crate::target::error::from_sqlx;

/// A connection.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn connect(
    conninfo: &Conninfo,
    application_name: &str,
    synchronous_commit: bool,
) -> Result<PgConnection> {
    let host = conninfo
        .hosts
        .first()
        .ok_or_else(|| Error::configuration("no host"))?;
    let mut options = PgConnectOptions::new_without_pgpass()
        .ssl_mode(PgSslMode::Disable)
        .port(host.port)
        .username(&conninfo.user)
        .database(&conninfo.database)
        .application_name(application_name)
        .options([
            ("search_path", ""),
            (
                "synchronous_commit",
                if synchronous_commit { "on" } else { "off" },
            ),
        ]);
    options = if host.is_unix() {
        options.socket(&host.host)
    } else {
        options.host(&host.host)
    };
    if let Some(password) = &conninfo.password {
        options = options.password(password.expose());
    }
    options.connect().await.map_err(from_sqlx)
}
