//! How a replication connection is opened: on a wire that the driver has authenticated.

use bytes::BytesMut;

use super::{Replication, SystemIdentity};
use crate::connect::Side;
use crate::connect::cancel::CancelRequest;
use crate::connect::options::driver_config;
use crate::connect::search::Search;
use crate::connect::server::{Session, Wanted, look_around};
use crate::connect::ways::{Server, Ways};
use crate::conninfo::Conninfo;
use crate::error::{Error, Result};
use crate::source::lent::lend;

impl Replication {
    /// Connects with `replication=database`, and with the same session settings as every other
    /// connection.
    ///
    /// # Errors
    /// As [`Connection::open`](crate::connect::Connection::open); also, as configuration, a role
    /// without REPLICATION.
    pub async fn connect(conninfo: &Conninfo, application_name: &str) -> Result<Self> {
        Self::connect_of(conninfo, application_name, Wanted::Any).await
    }

    /// As [`Self::connect`], with a server that is wanted.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn connect_of(
        conninfo: &Conninfo,
        application_name: &str,
        wanted: Wanted,
    ) -> Result<Self> {
        let mut search = Search::new(Side::Source, conninfo, wanted)?;
        while let Some(server) = search.next().await {
            let outcome = server
                .limit(Self::connect_to(conninfo, &server, application_name))
                .await;
            if let Some(replication) = search.judge(&server, outcome)? {
                return Ok(replication);
            }
        }
        Err(search.into_error())
    }

    /// Connects to the first primary whose identity is accepted; the others are skipped.
    ///
    /// # Errors
    /// As [`Self::connect`]; why the first one was not accepted, if none was.
    pub(crate) async fn connect_to_accepted(
        conninfo: &Conninfo,
        application_name: &str,
        accept: impl Fn(&SystemIdentity) -> Result<()>,
    ) -> Result<(Self, SystemIdentity)> {
        let mut search = Search::new(Side::Source, conninfo, Wanted::Primary)?;
        while let Some(server) = search.next().await {
            let connecting = async {
                let (mut replication, session) =
                    Self::connect_to(conninfo, &server, application_name).await?;
                let system = replication.identify_system().await?;
                Ok(((replication, system), session))
            };
            let outcome = server.limit(connecting).await;
            if let Some((replication, system)) = search.judge(&server, outcome)? {
                match accept(&system) {
                    Ok(()) => return Ok((replication, system)),
                    Err(why) => search.refuse(&server, why),
                }
            }
        }
        Err(search.into_error())
    }

    async fn connect_to(
        conninfo: &Conninfo,
        server: &Server,
        application_name: &str,
    ) -> Result<(Self, Session)> {
        let config = driver_config(conninfo, Side::Source, application_name);
        let mut ways = Ways::to(server, Side::Source);
        let (owner, token) = loop {
            let wire = ways.open().await?;
            let judge = ways.judge(&wire);
            let (owner, lent) = lend(wire);
            if let Some((client, _)) = ways.authenticate(&config, lent, judge).await? {
                break (owner, client.cancel_token());
            }
        };
        let wire = owner
            .take_back()
            .ok_or_else(|| Error::transient("the connection is gone"))?;
        let cancel = CancelRequest::new(Side::Source, server.settled_on(wire.is_tls()), token);
        let mut replication = Self {
            wire,
            received: BytesMut::new(),
            consumed: 0,
            to_send: BytesMut::new(),
            last_fill_was_full: false,
            session: Session::default(),
            cancel,
            apart: false,
        };
        let rows = replication.simple_query(&look_around(Side::Source)).await?;
        let values = rows.first().into_iter().flatten().map(Option::as_deref);
        let session = Session::read(values, Side::Source)?;
        replication.session = session;
        Ok((replication, session))
    }
}
