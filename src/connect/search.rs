//! The servers of a connection string, in order, and what was learned on the way.
//!
//! Nothing here reads PG* variables: all of that is in the [`Conninfo`] already.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;

use super::demands::Demands;
use super::error::no_such_host;
use super::last_good;
use super::server::{Session, Wanted};
use super::side::Side;
use super::ways::{Server, protections};
use super::wire::{Address, Liveness, Protection};
use crate::conninfo::{
    Conninfo, DEFAULT_CONNECT_TIMEOUT_SECONDS, Host, LoadBalanceHosts, TargetSessionAttrs,
};
use crate::error::{Class, Error, Result};

/// The servers of a connection string, one after the other, and what was learned on the way.
pub(crate) struct Search<'a> {
    side: Side,
    conninfo: &'a Conninfo,
    protections: Vec<Protection>,
    /// All hosts with their places in the connection string; in the first round the last good one
    /// comes before them.
    order: Vec<(usize, &'a Host)>,
    /// Hosts that are still to be asked.
    hosts: VecDeque<(usize, &'a Host)>,
    /// The host that is being asked, and addresses of it that are still to be asked.
    host: usize,
    addresses: VecDeque<Address>,
    wanted: Wanted,
    /// Only for prefer-standby: whether a primary will do by now.
    last_round: bool,
    errors: Vec<Error>,
    /// Why a server that could be used is not taken: that says more than why others cannot be
    /// reached.
    refused: Option<Error>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(side: Side, conninfo: &'a Conninfo, wanted: Wanted) -> Result<Self> {
        let order = order(conninfo);
        let has_tcp = conninfo.hosts.iter().any(|host| !host.is_unix());
        Ok(Self {
            side,
            conninfo,
            protections: protections(conninfo, has_tcp)?,
            hosts: last_good_first(side, conninfo, &order),
            order,
            host: 0,
            addresses: VecDeque::new(),
            wanted,
            last_round: conninfo.target_session_attrs != TargetSessionAttrs::PreferStandby,
            errors: Vec::new(),
            refused: None,
        })
    }

    /// The next server to try.
    pub(crate) async fn next(&mut self) -> Option<Server> {
        loop {
            if let Some(address) = self.addresses.pop_front() {
                return Some(self.server(address));
            }
            if let Some((place, host)) = self.hosts.pop_front() {
                self.host = place;
                match resolve(host, self.side).await {
                    Ok(addresses) => self.addresses = self.ordered(addresses),
                    Err(error) => self.errors.push(error),
                }
            } else if self.last_round {
                return None;
            } else {
                self.last_round = true;
                self.hosts = self.order.iter().copied().collect();
            }
        }
    }

    /// The addresses of a host at random, or the last good one first.
    fn ordered(&self, mut addresses: VecDeque<Address>) -> VecDeque<Address> {
        if self.conninfo.load_balance_hosts == LoadBalanceHosts::Random {
            fastrand::shuffle(addresses.make_contiguous());
            return addresses;
        }
        let good = last_good::of(self.side, &self.conninfo.hosts);
        let good = good.filter(|(host, _)| *host == self.host);
        if let Some((_, good)) = good
            && let Some(at) = addresses.iter().position(|address| *address == good)
            && let Some(address) = addresses.remove(at)
        {
            addresses.push_front(address);
        }
        addresses
    }

    fn server(&self, address: Address) -> Server {
        let protections = match address {
            Address::Tcp { .. } => self.protections.clone(),
            Address::Unix(_) => vec![Protection::Plain],
        };
        Server {
            address,
            protections,
            liveness: Liveness {
                keepalives: self.conninfo.keepalives,
                user_timeout: self
                    .conninfo
                    .tcp_user_timeout_ms
                    .map(|millis| Duration::from_millis(millis.into())),
            },
            demands: Demands::of(self.conninfo),
            timeout: self.timeout(),
        }
    }

    /// For how long one server may take. No limit is only for the only server: the next one would
    /// never be asked.
    fn timeout(&self) -> Option<Duration> {
        let others = (self.conninfo.hosts.len() > 1).then_some(DEFAULT_CONNECT_TIMEOUT_SECONDS);
        let seconds = self.conninfo.connect_timeout_seconds.or(others)?;
        Some(Duration::from_secs(seconds.into()))
    }

    /// Takes the connection if it was made and the server will do; `None` goes on to the next
    /// server.
    ///
    /// # Errors
    /// Configuration: another server would say the same (as libpq, which goes on only if it got no
    /// connection).
    pub(crate) fn judge<T>(
        &mut self,
        server: &Server,
        outcome: Result<(T, Session)>,
    ) -> Result<Option<T>> {
        let error = match outcome {
            Ok((connection, session)) => {
                let attrs = self.conninfo.target_session_attrs;
                match session.mismatch(attrs, self.wanted, self.last_round) {
                    None => {
                        let good = (self.host, server.address.clone());
                        last_good::note(self.side, &self.conninfo.hosts, good);
                        return Ok(Some(connection));
                    }
                    Some(error) => error,
                }
            }
            Err(error) => error,
        };
        let error = error.context(self.connecting(server));
        if error.class() == Class::Configuration {
            return Err(error);
        }
        self.errors.push(error);
        Ok(None)
    }

    /// Passes over a server that could be used, for this reason.
    pub(crate) fn refuse(&mut self, server: &Server, why: Error) {
        let why = why.context(self.connecting(server));
        tracing::debug!(error = %why, "passed over a server");
        self.refused.get_or_insert(why);
    }

    fn connecting(&self, server: &Server) -> String {
        format!(
            "could not connect to the {} at {}",
            self.side, server.address
        )
    }

    /// Why there is no connection: that a server was passed over, else what the last one said; in
    /// the detail what the others said.
    pub(crate) fn into_error(mut self) -> Error {
        let Some(main) = self.refused.take().or_else(|| self.errors.pop()) else {
            return Error::configuration("there is no server to connect to");
        };
        if self.errors.is_empty() {
            return main;
        }
        let others: Vec<String> = self.errors.iter().map(Error::to_string).collect();
        let others = format!("Tried as well: {}.", others.join("; "));
        let detail = main
            .detail()
            .map_or_else(String::new, |detail| format!("{detail} "));
        main.with_detail(detail + &others)
    }
}

/// The hosts in the order of the connection string, or at random.
fn order(conninfo: &Conninfo) -> Vec<(usize, &Host)> {
    let mut hosts: Vec<(usize, &Host)> = conninfo.hosts.iter().enumerate().collect();
    if conninfo.load_balance_hosts == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut hosts);
    }
    hosts
}

/// The last good host first; where the order counts, or is random, it does not count.
fn last_good_first<'a>(
    side: Side,
    conninfo: &Conninfo,
    order: &[(usize, &'a Host)],
) -> VecDeque<(usize, &'a Host)> {
    let mut hosts: VecDeque<(usize, &Host)> = order.iter().copied().collect();
    let good = last_good::of(side, &conninfo.hosts).filter(|_| {
        conninfo.target_session_attrs != TargetSessionAttrs::PreferStandby
            && conninfo.load_balance_hosts == LoadBalanceHosts::Disable
    });
    if let Some((place, _)) = good
        && let Some(at) = hosts.iter().position(|(other, _)| *other == place)
        && let Some(host) = hosts.remove(at)
    {
        hosts.push_front(host);
    }
    hosts
}

async fn resolve(host: &Host, side: Side) -> Result<VecDeque<Address>> {
    if host.is_unix() {
        let file = format!("{}/.s.PGSQL.{}", host.host.trim_end_matches('/'), host.port);
        return Ok(VecDeque::from([Address::Unix(file.into())]));
    }
    let place = host.address.as_deref().unwrap_or(&host.host);
    let found = lookup_host((place, host.port))
        .await
        .map_err(|error| no_such_host(place, side).with_source(error))?;
    Ok(found
        .map(|address| Address::Tcp {
            address,
            name: name_of(host, address),
        })
        .collect())
}

/// The name that the server's certificate must have. Where none was given (a directory beside an
/// address, or the number of an address) it is the address; a name that no certificate can have
/// stays the name, and is never verified.
fn name_of(host: &Host, address: SocketAddr) -> String {
    let is_number = host
        .host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if host.host.starts_with('/') || is_number {
        address.ip().to_string()
    } else {
        host.host.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conninfo::{Environment, SslMode};

    #[tokio::test]
    async fn servers_come_in_order_and_a_standby_is_looked_for_twice() {
        let host = |host: &str| Host {
            host: host.to_owned(),
            address: None,
            port: 5433,
        };
        let conninfo = Conninfo {
            hosts: vec![host("/run/a"), host("127.0.0.1")],
            target_session_attrs: TargetSessionAttrs::PreferStandby,
            ssl_mode: SslMode::Disable,
            ..Conninfo::default()
        };
        let mut search = Search::new(Side::Source, &conninfo, Wanted::Any).unwrap();
        let mut found = Vec::new();
        while let Some(server) = search.next().await {
            found.push(server.address.to_string());
        }
        let round = ["socket \"/run/a/.s.PGSQL.5433\"", "127.0.0.1:5433"];
        assert_eq!(found, [round, round].concat());
    }

    /// The limit was here a second time: with `connect_timeout=0` each server got 10 s.
    #[tokio::test]
    async fn the_limit_of_time_is_what_the_connection_string_says() {
        for (text, seconds) in [
            ("", Some(10)),
            ("connect_timeout=1", Some(1)),
            ("connect_timeout=0", None),
            ("connect_timeout=-7", None),
        ] {
            let text = format!("host=/run/limited user=ann {text}");
            let conninfo = Conninfo::parse(&text, &Environment::default()).unwrap();
            let mut search = Search::new(Side::Source, &conninfo, Wanted::Any).unwrap();
            let server = search.next().await.unwrap();
            assert_eq!(server.timeout, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[tokio::test]
    async fn the_server_that_took_the_last_connection_is_asked_first() {
        let host = |host: &str| Host {
            host: host.to_owned(),
            address: None,
            port: 5434,
        };
        let conninfo = Conninfo {
            hosts: vec![host("/run/hangs"), host("127.0.0.1"), host("/run/c")],
            ssl_mode: SslMode::Disable,
            ..Conninfo::default()
        };
        let order = async |side| {
            let mut search = Search::new(side, &conninfo, Wanted::Any).unwrap();
            let mut found = Vec::new();
            while let Some(server) = search.next().await {
                found.push(server.address.to_string());
            }
            found
        };
        let [first, second, third] = [
            "socket \"/run/hangs/.s.PGSQL.5434\"",
            "127.0.0.1:5434",
            "socket \"/run/c/.s.PGSQL.5434\"",
        ];
        assert_eq!(order(Side::Source).await, [first, second, third]);
        let mut search = Search::new(Side::Source, &conninfo, Wanted::Any).unwrap();
        search.next().await.unwrap();
        let server = search.next().await.unwrap();
        let taken = search.judge(&server, Ok(((), Session::default())));
        assert!(taken.unwrap().is_some());
        assert_eq!(order(Side::Source).await, [second, first, third]);
        assert_eq!(order(Side::Target).await, [first, second, third]);
    }

    #[tokio::test]
    async fn balanced_hosts_and_addresses_come_at_random_whatever_was_good() {
        let host = |host: &str| Host {
            host: host.to_owned(),
            address: None,
            port: 5435,
        };
        let conninfo = Conninfo {
            hosts: vec![host("/run/a"), host("/run/b"), host("/run/c")],
            load_balance_hosts: LoadBalanceHosts::Random,
            target_session_attrs: TargetSessionAttrs::PreferStandby,
            ssl_mode: SslMode::Disable,
            ..Conninfo::default()
        };
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..400 {
            let mut search = Search::new(Side::Source, &conninfo, Wanted::Any).unwrap();
            let mut found = Vec::new();
            while let Some(server) = search.next().await {
                // It is taken in the last round, and counts for nothing the next time.
                let primary = Session::default();
                let _ = search.judge(&server, Ok(((), primary))).unwrap();
                found.push(server.address.to_string());
            }
            let (first, second) = found.split_at(3);
            assert_eq!(first, second, "both rounds have one order");
            orders.insert(first.to_vec());
        }
        // Each of the six has failed to come in 400 tries with a chance of 1 in 10^31.
        assert_eq!(orders.len(), 6);

        let search = Search::new(Side::Source, &conninfo, Wanted::Any).unwrap();
        let address = |last: u8| Address::Tcp {
            address: ([127, 0, 0, last], 5435).into(),
            name: "db".to_owned(),
        };
        let addresses: VecDeque<Address> = (1..=3).map(address).collect();
        let orders: std::collections::BTreeSet<String> = (0..400)
            .map(|_| format!("{:?}", search.ordered(addresses.clone())))
            .collect();
        assert_eq!(orders.len(), 6);
    }
}
