//! WAL as it is written: START_REPLICATION PHYSICAL.
//!
//! The stream tells the server only what its owner says is written, flushed and applied. A server
//! that is idle says nothing as long as it hears status updates, so after half of the allowed
//! silence the stream asks for a sign of life itself, repeating the last status.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use postgres_protocol::message::frontend;
use tokio::time::{Instant, timeout_at};

use super::connection::ReplicationConnection;
use super::server_report::{ServerReport, Session, explain};
use super::wire::{Message, columns, text, within};
use crate::error::{self, Result};
use crate::units::{Lsn, Timeline};

/// One message of a WAL stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalMessage {
    /// WAL bytes.
    Data {
        /// Position of the first byte.
        start: Lsn,
        /// End of the server's WAL when it sent this.
        server_end: Lsn,
        /// The bytes, a slice of the read buffer. They may end in the middle of a record or a page and cross the
        /// end of a segment.
        bytes: Bytes,
    },
    /// A sign of life.
    Keepalive {
        /// End of the server's WAL when it sent this.
        server_end: Lsn,
        /// The server wants a status update now.
        reply_requested: bool,
    },
    /// The timeline ended here because a standby was promoted; [`WalStream::stop`] gives the session
    /// back for `TIMELINE_HISTORY` and a stream of the next one. Told again by every further call.
    TimelineEnded {
        /// The timeline that follows.
        next: Timeline,
        /// Where it branches off.
        switch: Lsn,
    },
}

#[derive(Debug)]
enum Phase {
    Streaming,
    /// CopyDone went both ways; the row that names the next timeline may have come.
    Ending(Option<(Timeline, Lsn)>),
    Ended(Timeline, Lsn),
}

/// A running stream of WAL.
#[derive(Debug)]
pub struct WalStream {
    connection: ReplicationConnection,
    doing: String,
    phase: Phase,
    /// Written, flushed and applied as last reported.
    status: [Lsn; 3],
    /// The server's clock when it last told, to date status updates without a clock of our own.
    server_clock: Option<(i64, Instant)>,
    /// When a sign of life was asked for that has not come yet.
    asked: Option<Instant>,
}

impl WalStream {
    /// Reads the answer to START_REPLICATION.
    pub(super) async fn begin(mut connection: ReplicationConnection, doing: String) -> Result<Self> {
        let limit = connection.options().silence;
        let message = connection.wire().next_within(limit).await?;
        let phase = match message.tag {
            b'W' => Phase::Streaming,
            // A start exactly where an old timeline ends: the server goes straight to the end.
            b'T' => Phase::Ending(None),
            b'E' => return Err(explain(ServerReport::parse(&message.body), Session::Wal, doing)),
            _ => return Err(connection.wire().unexpected(&message)),
        };
        Ok(Self { connection, doing, phase, status: [Lsn(0); 3], server_clock: None, asked: None })
    }

    /// The next message. Safe to drop and call again, as in `tokio::select!`. A server that neither
    /// sends nor answers for the allowed silence is an error; time in which nobody calls this does
    /// not count.
    pub async fn next(&mut self) -> Result<WalMessage> {
        loop {
            if let Phase::Ended(next, switch) = self.phase {
                return Ok(WalMessage::TimelineEnded { next, switch });
            }
            let message = self.receive().await?;
            if let Some(message) = self.handle(message)? {
                return Ok(message);
            }
        }
    }

    /// Tells the server up to where WAL is written, flushed and applied. What is reported as flushed
    /// may be removed by the server and counts for synchronous commits. `reply_now` asks for a
    /// keepalive in return. That the connection is lost is told by [`WalStream::next`] alone, after
    /// everything that the server still sent.
    pub async fn send_status(&mut self, written: Lsn, flushed: Lsn, applied: Lsn, reply_now: bool) -> Result<()> {
        self.status = [written, flushed, applied];
        if !matches!(self.phase, Phase::Streaming) {
            return Ok(());
        }
        self.queue_status(reply_now);
        let limit = self.connection.options().silence;
        self.connection.wire().offer(limit).await
    }

    /// Ends the stream, however far it is, and gives the session back.
    pub async fn stop(mut self) -> Result<ReplicationConnection> {
        let limit = self.connection.options().silence;
        if matches!(self.phase, Phase::Streaming) {
            frontend::copy_done(&mut self.connection.wire().output);
            self.connection.wire().send(limit).await?;
        }
        let silent = self.connection.wire_ref().silent(limit);
        within(limit, self.drain(), || silent).await?;
        Ok(self.connection)
    }

    /// Reads up to the end of the command, dropping WAL that was on its way.
    async fn drain(&mut self) -> Result<()> {
        let mut streaming = matches!(self.phase, Phase::Streaming);
        while !matches!(self.phase, Phase::Ended(..)) {
            let message = self.connection.wire().next().await?;
            match message.tag {
                b'c' => streaming = false,
                b'd' if streaming => {}
                b'T' | b'D' | b'C' if !streaming => {}
                b'Z' if !streaming => {
                    self.connection.idle_again();
                    return Ok(());
                }
                _ => return Err(self.refused(&message)),
            }
        }
        Ok(())
    }

    /// The next message of the server, asking for a sign of life when it is quiet for long.
    async fn receive(&mut self) -> Result<Message> {
        let silence = self.connection.options().silence;
        loop {
            let wire = self.connection.wire();
            // What has arrived is looked at before any deadline: the caller may have been away for long.
            if let Some(asked) = self.asked.filter(|asked| wire.heard <= *asked) {
                return match timeout_at(asked + silence / 2, wire.next()).await {
                    Ok(message) => message,
                    Err(_) => Err(wire.silent(silence)),
                };
            }
            self.asked = None;
            if let Ok(message) = timeout_at(wire.heard + silence / 2, wire.next()).await {
                return message;
            }
            self.asked = Some(Instant::now());
            if matches!(self.phase, Phase::Streaming) {
                self.queue_status(true);
            }
        }
    }

    fn handle(&mut self, message: Message) -> Result<Option<WalMessage>> {
        match (message.tag, &self.phase) {
            (b'd', Phase::Streaming) => match self.read_data(message.body) {
                Some(message) => Ok(Some(message)),
                None => Err(self.connection.wire_ref().not_understood("a WAL message that cannot be read")),
            },
            (b'c', Phase::Streaming) => {
                frontend::copy_done(&mut self.connection.wire().output);
                self.phase = Phase::Ending(None);
                Ok(None)
            }
            (b'D', Phase::Ending(_)) => {
                let next = columns(&message.body).and_then(|row| {
                    Some((Timeline(text(&row, 0)?.parse().ok()?), text(&row, 1)?.parse::<Lsn>().ok()?))
                });
                match next {
                    Some(next) => self.phase = Phase::Ending(Some(next)),
                    None => {
                        return Err(self.connection.wire_ref().not_understood("a next timeline that cannot be read"));
                    }
                }
                Ok(None)
            }
            (b'T' | b'C', Phase::Ending(_)) => Ok(None),
            (b'Z', Phase::Ending(Some((next, switch)))) => {
                self.phase = Phase::Ended(*next, *switch);
                self.connection.idle_again();
                Ok(None)
            }
            // A server that shuts down completes the command once everything is sent.
            (b'C', Phase::Streaming) => Err(error::source(format!("{}: PostgreSQL is shutting down", self.doing))
                .hint("all WAL up to its shutdown checkpoint was sent; streaming can go on when it runs again")),
            _ => Err(self.refused(&message)),
        }
    }

    /// `w`: WAL. `k`: keepalive.
    fn read_data(&mut self, mut body: Bytes) -> Option<WalMessage> {
        match body.try_get_u8().ok()? {
            b'w' => {
                let start = Lsn(body.try_get_u64().ok()?);
                let server_end = Lsn(body.try_get_u64().ok()?);
                self.server_clock = Some((body.try_get_i64().ok()?, Instant::now()));
                Some(WalMessage::Data { start, server_end, bytes: body })
            }
            b'k' => {
                let server_end = Lsn(body.try_get_u64().ok()?);
                self.server_clock = Some((body.try_get_i64().ok()?, Instant::now()));
                Some(WalMessage::Keepalive { server_end, reply_requested: body.try_get_u8().ok()? != 0 })
            }
            _ => None,
        }
    }

    fn queue_status(&mut self, reply_now: bool) {
        let clock = self.server_clock.map_or(0, |(then, at)| then.saturating_add(micros(at.elapsed())));
        let output = &mut self.connection.wire().output;
        output.put_u8(b'd');
        output.put_u32(4 + 34);
        output.put_u8(b'r');
        for lsn in self.status {
            output.put_u64(lsn.0);
        }
        output.put_i64(clock);
        output.put_u8(u8::from(reply_now));
    }

    fn refused(&self, message: &Message) -> error::Error {
        match message.tag {
            b'E' => explain(ServerReport::parse(&message.body), Session::Wal, self.doing.clone()),
            _ => self.connection.wire_ref().unexpected(message),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
