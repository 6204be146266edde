//! A physical replication session: connect, ask, and then turn it into a WAL stream or a base backup.

use std::time::Duration;

use bytes::Bytes;
use postgres_protocol::message::frontend;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::TargetSessionAttrs;

use super::authentication;
use super::base_backup::{BaseBackupOptions, BaseBackupStream};
use super::server_report::{ServerReport, Session, explain, sqlstate};
use super::tls::TlsTrust;
use super::transport::{Address, addresses, connect_timeout, open, unreachable};
use super::wal_stream::WalStream;
use super::wire::{Wire, columns, text};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::units::{ByteSize, Lsn, Timeline};

/// How to connect, beyond the DSN, and how long a silent server is believed to be alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Whom TLS trusts.
    pub tls: TlsTrust,
    /// The longest silence of the server while a command runs or WAL streams. A WAL stream asks for
    /// a sign of life after half of it.
    pub silence: Duration,
    /// The longest silence while the files of a base backup arrive: a server cannot be asked for a
    /// sign of life there, and a stalled disk is no reason to throw hours of work away.
    pub backup_silence: Duration,
    /// The longest wait for the checkpoint that a base backup starts with, and for the sizes of the
    /// tablespaces.
    pub backup_start: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            tls: TlsTrust::default(),
            silence: Duration::from_secs(60),
            backup_silence: Duration::from_secs(600),
            backup_start: Duration::from_secs(3600),
        }
    }
}

/// Who the server is, and how far its WAL goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The number that `initdb` drew; the same on every standby and every clone.
    pub system_id: u64,
    /// The timeline that the server is on.
    pub timeline: Timeline,
    /// The end of the WAL that it has flushed (or, on a standby, received).
    pub flush_lsn: Lsn,
}

/// What became of a request for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotCreated {
    /// The slot is new and keeps WAL from now on.
    Created,
    /// A slot of this name was there before, of whatever kind and state.
    Existed,
}

/// A physical replication session that waits for a command.
#[derive(Debug)]
pub struct ReplicationConnection {
    wire: Wire,
    version: u32,
    options: ConnectOptions,
    /// A command was sent whose answer is not completely read: its future was dropped.
    busy: bool,
    identified: bool,
}

type Row = Vec<Option<Bytes>>;

impl ReplicationConnection {
    /// Connects as the DSN says, with the default options.
    pub async fn connect(dsn: &Config) -> Result<Self> {
        Self::connect_with(dsn, &ConnectOptions::default()).await
    }

    /// Connects to the first host of the DSN that answers (and fits `target_session_attrs`). Each
    /// attempt may take `connect_timeout`, 10 seconds by default. As in libpq, a refused login ends
    /// the search: the next host would hide it.
    pub async fn connect_with(dsn: &Config, options: &ConnectOptions) -> Result<Self> {
        let mut failures = Vec::new();
        for address in addresses(dsn)? {
            let limit = connect_timeout(dsn);
            let attempt = timeout(limit, Self::connect_to(&address, dsn, options)).await;
            let error = match attempt {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => unreachable(&address, format!("no answer within {} seconds", limit.as_secs_f64())),
            };
            if error.kind() != ErrorKind::Source || sqlstate(&error).is_some_and(|code| code.starts_with("28")) {
                return Err(error);
            }
            failures.push(error);
        }
        let last = failures.pop().expect("a DSN names at least one host");
        Err(failures
            .iter()
            .fold(last, |error, other| error.hint(format!("another host of the DSN failed, too: {other}"))))
    }

    async fn connect_to(address: &Address, dsn: &Config, options: &ConnectOptions) -> Result<Self> {
        let peer = address.to_string();
        let transport = open(address, dsn, &options.tls).await?;
        let mut wire = Wire::new(transport, peer.clone());
        authentication::start(&mut wire, dsn, &peer).await?;
        let version = wire.parameters.get("server_version").map(String::as_str).unwrap_or_default();
        let Some(number) = parse_version(version) else {
            return Err(wire.not_understood(format_args!("the version \"{version}\"")));
        };
        if number < 130_000 {
            return Err(error::source(format!(
                "PostgreSQL at {peer} is version {version}; Lifeboat needs 13 or later"
            )));
        }
        let mut connection = Self { wire, version: number, options: options.clone(), busy: false, identified: false };
        let read_only = match dsn.get_target_session_attrs() {
            TargetSessionAttrs::ReadWrite => "off",
            TargetSessionAttrs::ReadOnly => "on",
            _ => return Ok(connection),
        };
        if connection.show("transaction_read_only").await? != read_only {
            return Err(error::source(format!("PostgreSQL at {peer} does not fit target_session_attrs of the DSN")));
        }
        Ok(connection)
    }

    /// The version as a number, as `server_version_num` shows it: 150018 for 15.18.
    pub fn server_version(&self) -> u32 {
        self.version
    }

    /// Whether the session is encrypted.
    pub fn is_tls(&self) -> bool {
        self.wire.transport().is_tls()
    }

    /// Who the server is, and how far its WAL goes.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let row = self.row("IDENTIFY_SYSTEM", "cannot identify the PostgreSQL cluster").await?;
        let identity = || {
            Some(SystemIdentity {
                system_id: text(&row, 0)?.parse().ok()?,
                timeline: Timeline(text(&row, 1)?.parse().ok()?),
                flush_lsn: text(&row, 2)?.parse().ok()?,
            })
        };
        let identity = identity().ok_or_else(|| self.wire.not_understood("an identity that cannot be read"))?;
        self.identified = true;
        Ok(identity)
    }

    /// The value of a server setting, as `SHOW` prints it.
    pub async fn show(&mut self, name: &str) -> Result<String> {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if name.is_empty() || !name.chars().all(known) {
            return Err(error::usage(format!("\"{name}\" is not the name of a PostgreSQL setting")));
        }
        let row = self.row(&format!("SHOW {name}"), &format!("cannot read PostgreSQL's setting {name}")).await?;
        text(&row, 0).map(str::to_string).ok_or_else(|| self.wire.not_understood("a setting without a value"))
    }

    /// The size of the cluster's WAL segments in bytes.
    pub async fn wal_segment_size(&mut self) -> Result<u64> {
        let shown = self.show("wal_segment_size").await?;
        // PostgreSQL's kB, MB and GB are binary.
        let size: ByteSize = shown.replace('k', "K").replace('B', "iB").parse()?;
        match size.0 {
            size if size.is_power_of_two() => Ok(size),
            _ => Err(self.wire.not_understood(format_args!("the WAL segment size \"{shown}\""))),
        }
    }

    /// The history file of a timeline: its name and its bytes. Timeline 1 has none.
    pub async fn timeline_history(&mut self, timeline: Timeline) -> Result<(String, Bytes)> {
        let doing = format!("cannot read the history of timeline {}", timeline.0);
        let mut row = self.row(&format!("TIMELINE_HISTORY {}", timeline.0), &doing).await?;
        let name = text(&row, 0).map(str::to_string);
        match (name, row.get_mut(1).and_then(Option::take)) {
            (Some(name), Some(content)) => Ok((name, content)),
            _ => Err(self.wire.not_understood("a timeline history that cannot be read")),
        }
    }

    /// Creates a physical slot that keeps WAL from now on (`RESERVE_WAL`). A temporary slot lives as
    /// long as this session.
    pub async fn create_physical_slot(&mut self, name: &str, temporary: bool) -> Result<SlotCreated> {
        check_slot_name(name)?;
        let created = self.query(&create_slot(self.version, name, temporary)).await?;
        match created {
            Ok(_) => Ok(SlotCreated::Created),
            Err(report) if report.code == "42710" => Ok(SlotCreated::Existed),
            Err(report) => {
                Err(explain(report, Session::Replication, format!("cannot create the replication slot \"{name}\"")))
            }
        }
    }

    /// Drops a slot; PostgreSQL no longer keeps WAL for it. A slot in use is refused.
    pub async fn drop_slot(&mut self, name: &str) -> Result<()> {
        check_slot_name(name)?;
        let dropped = self.query(&format!("DROP_REPLICATION_SLOT \"{name}\"")).await?;
        dropped.map(drop).map_err(|report| {
            explain(report, Session::Replication, format!("cannot drop the replication slot \"{name}\""))
        })
    }

    /// Streams WAL of one timeline from `start` on. Through a slot, PostgreSQL keeps what has not
    /// been reported as flushed.
    pub async fn start_physical(mut self, slot: Option<&str>, start: Lsn, timeline: Timeline) -> Result<WalStream> {
        if !self.identified {
            // 13 and 14 refuse to stream before.
            self.identify_system().await?;
        }
        let through = match slot {
            Some(name) => {
                check_slot_name(name)?;
                format!("SLOT \"{name}\" ")
            }
            None => String::new(),
        };
        self.send(&format!("START_REPLICATION {through}PHYSICAL {start} TIMELINE {}", timeline.0)).await?;
        let doing = format!("cannot stream WAL from {start} on timeline {}", timeline.0);
        WalStream::begin(self, doing).await
    }

    /// Starts a base backup and waits for its checkpoint.
    pub async fn base_backup(mut self, options: &BaseBackupOptions) -> Result<BaseBackupStream> {
        let command = options.command(self.version)?;
        self.send(&command).await?;
        BaseBackupStream::begin(self).await
    }

    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    pub(super) fn wire_ref(&self) -> &Wire {
        &self.wire
    }

    pub(super) fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// The answer to the last command has been read to its end.
    pub(super) fn idle_again(&mut self) {
        self.busy = false;
    }

    pub(super) async fn send(&mut self, command: &str) -> Result<()> {
        if self.busy {
            return Err(error::internal(
                "a replication command was given up halfway; its session cannot be used again",
            ));
        }
        self.busy = true;
        frontend::query(command, &mut self.wire.output)
            .or_err(ErrorKind::Usage, || "a replication command holds a NUL character".into())?;
        self.wire.send(self.options.silence).await
    }

    /// Runs a command to its end; the server's refusal is the inner error.
    async fn query(&mut self, command: &str) -> Result<std::result::Result<Vec<Row>, ServerReport>> {
        let limit = self.options.silence;
        self.send(command).await?;
        let (mut rows, mut refusal) = (Vec::new(), None);
        loop {
            let message = match (self.wire.next_within(limit).await, refusal.take()) {
                (Ok(message), kept) => {
                    refusal = kept;
                    message
                }
                // A FATAL report ends the session instead of the command.
                (Err(_), Some(report)) => return Ok(Err(report)),
                (Err(error), None) => return Err(error),
            };
            match message.tag {
                b'D' => match columns(&message.body) {
                    Some(row) => rows.push(row),
                    None => return Err(self.wire.not_understood("a row that cannot be read")),
                },
                b'E' => refusal = Some(ServerReport::parse(&message.body)),
                b'T' | b'C' => {}
                b'Z' => {
                    self.busy = false;
                    return Ok(refusal.map_or(Ok(rows), Err));
                }
                _ => return Err(self.wire.unexpected(&message)),
            }
        }
    }

    /// The only row of a command's answer.
    async fn row(&mut self, command: &str, doing: &str) -> Result<Row> {
        let rows = self.query(command).await?.map_err(|report| explain(report, Session::Replication, doing))?;
        rows.into_iter().next().ok_or_else(|| self.wire.not_understood("no row where one must be"))
    }
}

/// `15.18 (Debian 15.18-1)`, `18beta1`, `16.4` to 150018, 180000, 160004.
fn parse_version(text: &str) -> Option<u32> {
    let number =
        |text: &str| text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse::<u32>().ok();
    let major = number(text)?;
    let minor =
        text.split_once('.').and_then(|(before, minor)| number(minor).filter(|_| before.len() <= 3)).unwrap_or(0);
    Some(major * 10_000 + minor)
}

/// The rule of `ReplicationSlotValidateName`; what passes needs no quoting.
fn check_slot_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if (1..=63).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(error::config(format!("\"{name}\" cannot be the name of a replication slot"))
        .hint("use up to 63 lower-case letters, digits and underscores"))
}

fn create_slot(version: u32, name: &str, temporary: bool) -> String {
    let temporary = if temporary { " TEMPORARY" } else { "" };
    let reserve = if version >= 150_000 { "(RESERVE_WAL)" } else { "RESERVE_WAL" };
    format!("CREATE_REPLICATION_SLOT \"{name}\"{temporary} PHYSICAL {reserve}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_server_version_num() {
        for (text, number) in [
            ("15.18 (Debian 15.18-0+deb12u1)", 150_018),
            ("18beta1", 180_000),
            ("16.4", 160_004),
            ("17", 170_000),
            ("19devel (Build 1.2)", 190_000),
        ] {
            assert_eq!(parse_version(text), Some(number), "{text}");
        }
        assert_eq!(parse_version("Postgres-XL"), None);
    }

    #[test]
    fn slots_are_created_in_both_grammars() {
        assert_eq!(create_slot(140_010, "a", true), "CREATE_REPLICATION_SLOT \"a\" TEMPORARY PHYSICAL RESERVE_WAL");
        assert_eq!(create_slot(150_000, "a", false), "CREATE_REPLICATION_SLOT \"a\" PHYSICAL (RESERVE_WAL)");
    }

    #[test]
    fn slot_names_that_could_break_out_of_a_command_are_refused() {
        for wrong in ["", "Upper", "a b", "x\"; DROP", "é"] {
            assert_eq!(check_slot_name(wrong).expect_err("refused").kind(), ErrorKind::Config, "{wrong}");
        }
        check_slot_name("lifeboat_2").expect("allowed");
    }
}
