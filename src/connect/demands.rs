//! What a connection must fulfil before a secret goes out: `require_auth`, `channel_binding`,
//! `sslcertmode`, and no password in clear text where others can read it.
//!
//! Pure: what the server says comes in, a verdict goes out. `guard.rs` reads the messages.

use std::fmt;

use super::error::not_postgres;
use crate::conninfo::{AuthMethod, ChannelBinding, Conninfo, RequireAuth, SslCertMode};
use crate::error::Error;

const SCRAM: &[u8] = b"SCRAM-SHA-256";
const SCRAM_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";

/// What the connection string demands.
#[derive(Debug, Clone, Default)]
pub(super) struct Demands {
    require_auth: Option<RequireAuth>,
    channel_binding: ChannelBinding,
    certificate: SslCertMode,
}

impl Demands {
    pub(super) fn of(conninfo: &Conninfo) -> Self {
        Self {
            require_auth: conninfo.require_auth.clone(),
            channel_binding: conninfo.channel_binding,
            certificate: conninfo.ssl_cert_mode,
        }
    }

    fn allows(&self, method: AuthMethod) -> bool {
        let list = self.require_auth.as_ref();
        list.is_none_or(|list| list.allows(method))
    }
}

/// What protects a connection that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Nothing: TCP without TLS.
    Open,
    /// A Unix socket, which does not leave the machine.
    Local,
    /// TLS, with what became of the client's certificate.
    Tls(ClientCertificate),
}

/// What became of the client's certificate in the handshake of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientCertificate {
    /// The server did not ask for one.
    NotAsked,
    /// The server asked, and there was none to show.
    Missing,
    /// It was shown.
    Shown,
}

/// Why the handshake is not continued.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) error: Error,
    /// Over TLS the server's request might be accepted.
    pub(super) tls_may_help: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {}

/// Nothing helps but another configuration.
fn refused(error: Error) -> Refused {
    Refused {
        error,
        tls_may_help: false,
    }
}

/// A message that has no place in an authentication: no PostgreSQL sends it.
pub(super) fn malformed(what: impl fmt::Display) -> Refused {
    refused(not_postgres(format!(
        "Expected was a request for authentication, found {what}."
    )))
}

/// How far the authentication has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Start,
    /// One answer is due, and then AuthenticationOk.
    Password,
    SaslBegun,
    SaslContinued,
    SaslDone,
}

/// What follows from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    More,
    /// The server has let the client in.
    Done,
}

/// Judges the server's authentication messages of one connection, in order.
#[derive(Debug)]
pub(crate) struct Judge {
    demands: Demands,
    channel: Channel,
    step: Step,
}

impl Judge {
    pub(super) fn new(demands: Demands, channel: Channel) -> Self {
        Self {
            demands,
            channel,
            step: Step::Start,
        }
    }

    /// Judges what follows the tag and the length of an Authentication message.
    ///
    /// # Errors
    /// Configuration: what the server asks for is not allowed. Transient: the message is malformed
    /// or out of order.
    pub(super) fn take(&mut self, body: &[u8]) -> Result<Next, Refused> {
        let Some((code, rest)) = body.split_first_chunk::<4>() else {
            return Err(malformed("a message that is too short"));
        };
        let code = u32::from_be_bytes(*code);
        let request = match (code, rest.len()) {
            (0, 0) => return self.let_in(),
            (3, 0) => AuthMethod::Password,
            (5, 4) => AuthMethod::Md5,
            (7, 0) => AuthMethod::Gss,
            (9, 0) => AuthMethod::Sspi,
            (10, _) => return self.sasl(rest),
            (11, _) if self.step == Step::SaslBegun => return self.go_on(Step::SaslContinued),
            (12, _) if self.step == Step::SaslContinued => return self.go_on(Step::SaslDone),
            (2 | 6, _) => return Err(refused(not_done("an old method", &self.demands))),
            _ => return Err(malformed(format!("message {code} of authentication"))),
        };
        self.starts()?;
        self.allowed(request)?;
        match request {
            AuthMethod::Password => self.may_be_read()?,
            AuthMethod::Md5 => {}
            _ => return Err(refused(not_done(request.name(), &self.demands))),
        }
        self.unbound(request)?;
        self.go_on(Step::Password)
    }

    fn go_on(&mut self, step: Step) -> Result<Next, Refused> {
        self.step = step;
        Ok(Next::More)
    }

    /// A server asks once.
    fn starts(&self) -> Result<(), Refused> {
        match self.step {
            Step::Start => self.certificate(),
            _ => Err(malformed("a second one")),
        }
    }

    fn sasl(&mut self, mechanisms: &[u8]) -> Result<Next, Refused> {
        self.starts()?;
        let offers = |name: &[u8]| {
            let names = mechanisms.split(|byte| *byte == 0);
            names
                .take_while(|one| !one.is_empty())
                .any(|one| one == name)
        };
        if offers(SCRAM) || offers(SCRAM_PLUS) {
            self.allowed(AuthMethod::ScramSha256)?;
        } else if offers(b"OAUTHBEARER") {
            self.allowed(AuthMethod::Oauth)?;
            return Err(refused(not_done("oauth", &self.demands)));
        } else {
            return Err(refused(not_done(
                "an unknown method of SASL",
                &self.demands,
            )));
        }
        self.bound(offers(SCRAM_PLUS))?;
        self.go_on(Step::SaslBegun)
    }

    /// The server lets the client in.
    fn let_in(&self) -> Result<Next, Refused> {
        match self.step {
            Step::Start => {
                self.allowed(AuthMethod::None)?;
                self.unbound(AuthMethod::None)?;
            }
            Step::Password | Step::SaslDone => {}
            // Whoever does not know the password can begin, and collect what helps to guess it.
            Step::SaslBegun | Step::SaslContinued => return Err(refused(unfinished())),
        }
        self.certificate()?;
        Ok(Next::Done)
    }

    fn allowed(&self, method: AuthMethod) -> Result<(), Refused> {
        match &self.demands.require_auth {
            Some(list) if !list.allows(method) => Err(refused(not_allowed(method, list))),
            _ => Ok(()),
        }
    }

    /// A password in clear text may be read by who is in between.
    fn may_be_read(&self) -> Result<(), Refused> {
        let list = self.demands.require_auth.as_ref();
        if self.channel != Channel::Open
            || list.is_some_and(|list| list.names(AuthMethod::Password))
        {
            return Ok(());
        }
        let error = Error::configuration(
            "the server asks for the password in clear text, and the connection has no TLS",
        )
        .with_detail("Who can listen to the connection would read the password, so cdc has not sent it.")
        .with_hint(
            "Set sslmode to require or higher, or let the server's pg_hba.conf say scram-sha-256. If the network \
             is safe, require_auth=password sends it.",
        );
        Err(Refused {
            error,
            tls_may_help: true,
        })
    }

    /// Nothing but SCRAM can be bound to the channel.
    fn unbound(&self, method: AuthMethod) -> Result<(), Refused> {
        if self.demands.channel_binding != ChannelBinding::Require {
            return Ok(());
        }
        self.has_tls_for_binding()?;
        Err(refused(
            Error::configuration(format!(
                "channel_binding=require needs scram-sha-256, and {}",
                asks(method)
            ))
            .with_hint(
                "Let the server's pg_hba.conf say scram-sha-256, and set the role's password again if it was \
                 stored for md5.",
            ),
        ))
    }

    fn bound(&self, is_offered: bool) -> Result<(), Refused> {
        if self.demands.channel_binding != ChannelBinding::Require {
            return Ok(());
        }
        self.has_tls_for_binding()?;
        if is_offered {
            return Ok(());
        }
        Err(refused(not_bound("the server does not offer it")))
    }

    fn has_tls_for_binding(&self) -> Result<(), Refused> {
        if matches!(self.channel, Channel::Tls(_)) {
            return Ok(());
        }
        Err(Refused {
            error: Error::configuration(
                "channel_binding=require needs TLS, and the connection has none",
            )
            .with_hint(
                "Connect by TCP with sslmode=require or higher, or set channel_binding to prefer.",
            ),
            tls_may_help: self.channel == Channel::Open,
        })
    }

    fn certificate(&self) -> Result<(), Refused> {
        if self.demands.certificate != SslCertMode::Require {
            return Ok(());
        }
        let (why, hint) = match self.channel {
            Channel::Tls(ClientCertificate::Shown) => return Ok(()),
            Channel::Tls(ClientCertificate::NotAsked) => (
                "the server did not ask for a client certificate",
                "A server asks for one if its ssl_ca_file is set.",
            ),
            Channel::Tls(ClientCertificate::Missing) => (
                "the server asked for a client certificate, and there is none",
                "Name sslcert and sslkey.",
            ),
            Channel::Open | Channel::Local => (
                "the connection has no TLS",
                "Connect by TCP with sslmode=require or higher.",
            ),
        };
        Err(Refused {
            error: Error::configuration(format!("sslcertmode=require is not met: {why}"))
                .with_hint(hint),
            tls_may_help: self.channel == Channel::Open,
        })
    }
}

/// What the server does, for a sentence.
fn asks(method: AuthMethod) -> String {
    match method {
        AuthMethod::None => "the server asks for no authentication".to_owned(),
        AuthMethod::Password => "the server asks for the password in clear text".to_owned(),
        method => format!("the server asks for {}", method.name()),
    }
}

fn not_allowed(method: AuthMethod, list: &RequireAuth) -> Error {
    Error::configuration(format!(
        "{}, which require_auth={list} does not allow",
        asks(method)
    ))
    .with_hint(match method {
        AuthMethod::None => {
            "The server's pg_hba.conf says trust or cert for this connection. Change that, or allow \"none\" in \
             require_auth."
                .to_owned()
        }
        method => format!(
            "Let the server's pg_hba.conf ask for another method, or allow \"{}\" in require_auth. If neither was \
             changed, make sure that it is your server.",
            method.name()
        ),
    })
}

/// TLS is there, and SCRAM cannot be bound to it.
pub(super) fn not_bound(why: &str) -> Error {
    Error::configuration(format!(
        "channel_binding=require needs SCRAM-SHA-256-PLUS, and {why}"
    ))
    .with_hint(
        "Connect to the server itself, not to a pooler or proxy; or set channel_binding to prefer.",
    )
}

fn not_done(what: &str, demands: &Demands) -> Error {
    let ours = [
        AuthMethod::ScramSha256,
        AuthMethod::Md5,
        AuthMethod::Password,
    ];
    let ours: Vec<&str> = ours
        .into_iter()
        .filter(|method| demands.allows(*method))
        .map(AuthMethod::name)
        .collect();
    let error = Error::configuration(format!("the server asks for {what}, which cdc does not do"));
    match ours.as_slice() {
        [] => error.with_hint("Let the server's pg_hba.conf say trust or cert for this role."),
        ours => error.with_hint(format!(
            "Let the server's pg_hba.conf say {} or cert for this role.",
            ours.join(", ")
        )),
    }
}

fn unfinished() -> Error {
    Error::configuration("the server ended the authentication by scram-sha-256 before its proof")
        .with_detail("It did not prove that it knows the password.")
        .with_hint("Make sure that it is your server: a real one does not do this.")
}

#[cfg(test)]
mod tests;
