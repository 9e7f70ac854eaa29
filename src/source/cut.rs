//! A session whose connection is cut when it is dropped.
//!
//! When a client is dropped, the driver continues to read what its statement still sends. For the
//! COPY of a large table that is the rest of the table, and until its end the server keeps the
//! table locked.

use std::ops::Deref;

use tokio::task::AbortHandle;
use tokio_postgres::Client;

use super::connect::connected;
use super::server::Wanted;
use crate::conninfo::Conninfo;
use crate::error::Result;

/// A client that takes its connection along.
#[derive(Debug)]
pub struct CutClient {
    client: Client,
    connection: Option<AbortHandle>,
}

impl CutClient {
    /// Connects as [`super::connect::client_of`].
    pub(crate) async fn connect(
        conninfo: &Conninfo,
        application_name: &str,
        wanted: Wanted,
    ) -> Result<Self> {
        let (client, connection) = connected(conninfo, application_name, wanted).await?;
        Ok(Self {
            client,
            connection: Some(connection),
        })
    }

    /// Ends the session in order, once its last statement has ended.
    pub(crate) fn close(mut self) {
        self.connection = None;
    }
}

impl From<Client> for CutClient {
    /// Ends in order, whenever that is.
    fn from(client: Client) -> Self {
        Self {
            client,
            connection: None,
        }
    }
}

impl Deref for CutClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for CutClient {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.abort();
        }
    }
}
