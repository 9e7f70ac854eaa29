//! A session of ordinary SQL with one of the two sides.
//!
//! The driver reads and writes in a task of its own. It goes on with what was sent when its client
//! is gone: with the rest of a COPY, and with a COMMIT that waits. So a session that is dropped
//! has its connection cut, and whatever it had not committed is rolled back.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_postgres::tls::TlsStream;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::cancel::CancelRequest;
use super::copy_start::CopyStart;
use super::error::from_connecting;
use super::options::driver_config;
use super::search::Search;
use super::server::{Session, Wanted, look_around};
use super::side::Side;
use super::ways::{Server, Ways};
use crate::conninfo::Conninfo;
use crate::error::Result;

/// Most statements that a session keeps prepared: some three for each of many read models.
const MOST_STATEMENTS: usize = 2000;

/// A session, which takes its connection along when it is dropped.
pub struct Connection {
    client: Arc<Client>,
    /// Ends the task; `None` where the session ends in order.
    driver: Option<AbortHandle>,
    cancel: CancelRequest,
    statements: Mutex<HashMap<String, Statement>>,
}

impl Connection {
    /// Connects to the first server that will do.
    ///
    /// `application_name` is used unless the connection string has one.
    ///
    /// # Errors
    /// Transient: no server could be reached. Configuration: role, password, database, TLS, channel
    /// binding, or a pooler in between.
    pub async fn open(
        side: Side,
        conninfo: &Conninfo,
        application_name: &str,
        wanted: Wanted,
    ) -> Result<Self> {
        let mut search = Search::new(side, conninfo, wanted)?;
        while let Some(server) = search.next().await {
            let outcome = server
                .limit(Self::at(side, conninfo, &server, application_name))
                .await;
            if let Some(connected) = search.judge(&server, outcome)? {
                return Ok(connected);
            }
        }
        Err(search.into_error())
    }

    /// As [`Self::open`], with the first primary that is accepted; where there is none with the
    /// first server that answers, so that it can be said what is found there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_preferring(
        side: Side,
        conninfo: &Conninfo,
        application_name: &str,
        accept: impl AsyncFn(&Client) -> bool,
    ) -> Result<Self> {
        let mut search = Search::new(side, conninfo, Wanted::Any)?;
        let mut other = None;
        while let Some(server) = search.next().await {
            let connecting = async {
                let (connected, session) =
                    Self::at(side, conninfo, &server, application_name).await?;
                let is_accepted = !session.in_recovery && accept(&connected).await;
                Ok(((connected, is_accepted), session))
            };
            let outcome = server.limit(connecting).await;
            match search.judge(&server, outcome) {
                Ok(Some((connected, true))) => return Ok(connected),
                Ok(Some((connected, false))) => other = other.or(Some(connected)),
                Ok(None) => {}
                Err(error) => return other.ok_or(error),
            }
        }
        other.ok_or_else(|| search.into_error())
    }

    async fn at(
        side: Side,
        conninfo: &Conninfo,
        server: &Server,
        application_name: &str,
    ) -> Result<(Self, Session)> {
        let config = driver_config(conninfo, side, application_name);
        let mut ways = Ways::to(server, side);
        let (client, connection, is_tls) = loop {
            let wire = ways.open().await?;
            let (judge, is_tls) = (ways.judge(&wire), wire.is_tls());
            if let Some((client, connection)) = ways
                .authenticate(&config, CopyStart::new(wire), judge)
                .await?
            {
                break (client, connection, is_tls);
            }
        };
        let driver = run(connection, side);
        let cancel = CancelRequest::new(side, server.settled_on(is_tls), client.cancel_token());
        let connected = Self {
            client: Arc::new(client),
            driver: Some(driver),
            cancel,
            statements: Mutex::default(),
        };
        let session = connected.look_around(side).await?;
        Ok((connected, session))
    }

    /// What the new session says of itself and its server.
    async fn look_around(&self, side: Side) -> Result<Session> {
        let answer = self.client.simple_query(&look_around(side)).await;
        let answer = answer.map_err(|error| from_connecting(error, side))?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let values = row.map(|row| (0..row.len()).map(|at| row.try_get(at).ok().flatten()));
        Session::read(values.into_iter().flatten(), side)
    }

    /// Ends the session in order, once its last statement has ended.
    pub fn close(mut self) {
        self.driver = None;
    }

    /// What ends the statement that the session waits for.
    pub(crate) fn cancel_request(&self) -> CancelRequest {
        self.cancel.clone()
    }

    /// The driver's end, for an answer that outlives a borrow of the session.
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// A prepared statement, made at its first use.
    pub(crate) async fn statement(
        &self,
        sql: &str,
        types: &[Type],
    ) -> Result<Statement, tokio_postgres::Error> {
        let kept = self.kept().get(sql).cloned();
        if let Some(statement) = kept {
            return Ok(statement);
        }
        let statement = self.client.prepare_typed(sql, types).await?;
        let mut kept = self.kept();
        if kept.len() >= MOST_STATEMENTS {
            kept.clear();
        }
        kept.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, Statement>> {
        self.statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drives the connection until its client is dropped. Its error shows at the client's next
/// statement.
fn run<S, T>(connection: tokio_postgres::Connection<S, T>, side: Side) -> AbortHandle
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsStream + Unpin + Send + 'static,
{
    let driven = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let error = from_connecting(error, side);
            tracing::debug!(error = %error, "connection to the {side} ended");
        }
    });
    driven.abort_handle()
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
