//! Opens an ordinary connection to the source.

use crate::conninfo::Conninfo;
use crate::error::{Error, Result};
use crate::source::error::from_postgres;

/// An ordinary connection, driven by a task of its own.
///
/// # Errors
/// Whatever the server or the connection reports.
pub async fn client(conninfo: &Conninfo, application_name: &str) -> Result<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    let host = conninfo
        .hosts
        .first()
        .ok_or_else(|| Error::configuration("no host"))?;
    config
        .host(&host.host)
        .port(host.port)
        .user(&conninfo.user)
        .dbname(&conninfo.database)
        .application_name(application_name)
        .options("-c search_path=");
    if let Some(password) = &conninfo.password {
        config.password(password.expose());
    }
    let (client, connection) = config
        .connect(tokio_postgres::NoTls)
        .await
        .map_err(from_postgres)?;
    tokio::spawn(connection);
    Ok(client)
}
