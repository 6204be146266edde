//! Start of a session and login: SCRAM-SHA-256 (bound to the TLS session where there is one), MD5,
//! and a clear-text password only where nobody can listen (TLS, Unix socket).

use bytes::{Buf, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::frontend;
use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding;

use super::server_report::{ServerReport, Session, explain};
use super::wire::{Message, Wire};
use crate::error::{self, ErrorKind, Result, ResultExt};

/// Starts a physical replication session and reads until the server waits for a command.
pub(super) async fn start(wire: &mut Wire, dsn: &Config, peer: &str) -> Result<()> {
    let user = user(dsn)?;
    let mut parameters = vec![
        ("user", user.as_str()),
        ("replication", "true"),
        ("application_name", dsn.get_application_name().unwrap_or("lifeboat")),
        ("client_encoding", "UTF8"),
    ];
    if let Some(options) = dsn.get_options() {
        parameters.push(("options", options));
    }
    frontend::startup_message(parameters, &mut wire.output)
        .or_err(ErrorKind::Config, || "the PostgreSQL DSN holds a NUL character".into())?;
    let mut login = Login { dsn, user: &user, peer, state: State::Start };
    loop {
        let message = wire.next().await?;
        match message.tag {
            b'R' => login.answer(wire, message)?,
            b'E' => {
                let report = ServerReport::parse(&message.body);
                return Err(explain(report, Session::Replication, format!("PostgreSQL at {peer} refuses \"{user}\"")));
            }
            // The key for cancel requests; a walsender is ended by closing its socket.
            b'K' if login.state == State::Done => {}
            b'Z' if login.state == State::Done => return Ok(()),
            _ => return Err(wire.unexpected(&message)),
        }
    }
}

/// The role of the DSN, or, as in libpq, the one named like the account that runs this.
fn user(dsn: &Config) -> Result<String> {
    if let Some(user) = dsn.get_user() {
        return Ok(user.to_string());
    }
    match nix::unistd::User::from_uid(nix::unistd::geteuid()) {
        Ok(Some(account)) => Ok(account.name),
        _ => Err(error::config("the PostgreSQL DSN names no user").hint("add user=lifeboat to the DSN")),
    }
}

enum State {
    Start,
    Password,
    Scram(Box<ScramSha256>),
    ServerProved,
    Done,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

struct Login<'a> {
    dsn: &'a Config,
    user: &'a str,
    peer: &'a str,
    state: State,
}

impl Login<'_> {
    /// Answers one authentication request. What comes out of turn is refused: an "ok" in the middle
    /// of SCRAM would come from somebody who does not know the password.
    fn answer(&mut self, wire: &mut Wire, message: Message) -> Result<()> {
        let mut body = message.body.clone();
        let Ok(code) = body.try_get_u32() else { return Err(wire.unexpected(&message)) };
        let state = std::mem::replace(&mut self.state, State::Done);
        self.state = match (code, state) {
            (0, State::Start | State::Password) => {
                self.without_binding()?;
                State::Done
            }
            (0, State::ServerProved) => State::Done,
            (3, State::Start) => {
                if !wire.transport().is_private() {
                    return Err(error::denied(format!(
                        "PostgreSQL at {} asks for the password in the clear",
                        self.peer
                    ))
                    .hint("use scram-sha-256 in pg_hba.conf, or TLS (sslmode=require)"));
                }
                self.send_password(wire, self.password()?)?;
                State::Password
            }
            (5, State::Start) => {
                let Some(salt) = body.first_chunk::<4>() else { return Err(wire.unexpected(&message)) };
                let hash = md5_hash(self.user.as_bytes(), self.password()?, *salt);
                self.send_password(wire, hash.as_bytes())?;
                State::Password
            }
            (10, State::Start) => State::Scram(Box::new(self.start_scram(wire, &body)?)),
            (11, State::Scram(mut scram)) => {
                scram.update(&body).or_err(ErrorKind::Source, || self.scram_failed())?;
                frontend::sasl_response(scram.message(), &mut wire.output)
                    .or_err(ErrorKind::Source, || self.scram_failed())?;
                State::Scram(scram)
            }
            (12, State::Scram(mut scram)) => {
                scram.finish(&body).or_err(ErrorKind::Source, || self.scram_failed())?;
                State::ServerProved
            }
            (2 | 6..=9, _) => {
                return Err(error::source(format!("PostgreSQL at {} asks for Kerberos, GSSAPI or SSPI", self.peer))
                    .hint(
                        "give Lifeboat's role a line in pg_hba.conf with scram-sha-256, or peer on the local socket",
                    ));
            }
            _ => return Err(wire.unexpected(&message)),
        };
        Ok(())
    }

    fn start_scram(&self, wire: &mut Wire, mechanisms: &Bytes) -> Result<ScramSha256> {
        let offers = |name: &str| mechanisms.split(|byte| *byte == 0).any(|offer| offer == name.as_bytes());
        let wanted = self.dsn.get_channel_binding() != ChannelBinding::Disable;
        let end_point = wire.transport().server_end_point().filter(|_| wanted);
        let (binding, mechanism) = match end_point {
            Some(hash) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::ChannelBinding::tls_server_end_point(hash), sasl::SCRAM_SHA_256_PLUS)
            }
            _ if !offers(sasl::SCRAM_SHA_256) => {
                return Err(error::source(format!("PostgreSQL at {} offers no login that Lifeboat knows", self.peer))
                    .hint("use scram-sha-256 in pg_hba.conf"));
            }
            // "I could have, you did not offer": lets the server see that somebody took the offer away.
            Some(_) => (sasl::ChannelBinding::unrequested(), sasl::SCRAM_SHA_256),
            None => (sasl::ChannelBinding::unsupported(), sasl::SCRAM_SHA_256),
        };
        if mechanism != sasl::SCRAM_SHA_256_PLUS {
            self.without_binding()?;
        }
        let scram = ScramSha256::new(self.password()?, binding);
        frontend::sasl_initial_response(mechanism, scram.message(), &mut wire.output)
            .or_err(ErrorKind::Source, || self.scram_failed())?;
        Ok(scram)
    }

    /// Going on without channel binding, unless the DSN demands it.
    fn without_binding(&self) -> Result<()> {
        match self.dsn.get_channel_binding() {
            ChannelBinding::Require => {
                Err(error::denied(format!("PostgreSQL at {} logs in without channel binding", self.peer)).hint(
                    "the DSN says channel_binding=require, which needs TLS, scram-sha-256, and a certificate signed \
                     with RSA or ECDSA",
                ))
            }
            _ => Ok(()),
        }
    }

    fn password(&self) -> Result<&[u8]> {
        self.dsn.get_password().ok_or_else(|| {
            error::source(format!(
                "PostgreSQL at {} wants a password for \"{}\", and none is set",
                self.peer, self.user
            ))
            .hint("give the environment a password, or use peer authentication on the local socket")
        })
    }

    fn send_password(&self, wire: &mut Wire, password: &[u8]) -> Result<()> {
        frontend::password_message(password, &mut wire.output)
            .or_err(ErrorKind::Config, || "the PostgreSQL password holds a NUL character".into())
    }

    fn scram_failed(&self) -> String {
        format!("the login to PostgreSQL at {} as \"{}\" failed", self.peer, self.user)
    }
}
