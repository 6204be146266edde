//! Messages on a byte stream: framing without copying, deadlines, and what every session keeps
//! (parameters, notices).
//!
//! Reading and writing are cancellation safe: bytes that arrived stay in `input`, bytes that wait to
//! be written stay in `output`, so a future dropped by `select!` loses nothing. A body is a slice of
//! the read buffer; whoever keeps a slice keeps up to [`READ_BUFFER`] bytes alive.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::server_report::{ServerReport, Session, explain};
use super::transport::Transport;
use crate::error::{self, Error, Result};

/// One buffer holds several of the largest WAL messages (128 KiB) or base backup messages (32 KiB).
const READ_BUFFER: usize = 512 << 10;
/// With less room than this left, a read would be too short to be worth a system call.
const LEAST_ROOM: usize = 128 << 10;
/// Nothing that a walsender sends comes near this; a longer message is not PostgreSQL's.
const LONGEST_MESSAGE: usize = 64 << 20;
/// Notices kept for one session; the rest is only counted.
const MOST_NOTICES: usize = 1000;

/// One message of the server: its type and what follows the length.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// Takes the first whole message out of `input`, or says how many bytes it needs at least.
fn take(input: &mut BytesMut) -> std::result::Result<std::result::Result<Message, usize>, String> {
    let Some(header) = input.first_chunk::<5>() else { return Ok(Err(5 - input.len())) };
    let tag = header[0];
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if !(4..=LONGEST_MESSAGE).contains(&length) || !(tag.is_ascii_alphabetic() || tag.is_ascii_digit()) {
        return Err(format!("a message of type {:?} and {length} bytes", char::from(tag)));
    }
    if input.len() < length + 1 {
        return Ok(Err(length + 1 - input.len()));
    }
    let mut body = input.split_to(length + 1).freeze();
    body.advance(5);
    Ok(Ok(Message { tag, body }))
}

/// One session's messages.
pub(super) struct Wire {
    transport: Transport,
    /// Where it is connected to, for errors.
    peer: String,
    input: BytesMut,
    /// Messages to the server that are not written yet.
    pub(super) output: BytesMut,
    /// When the server was last heard.
    pub(super) heard: Instant,
    pub(super) parameters: HashMap<String, String>,
    notices: Vec<ServerReport>,
}

impl std::fmt::Debug for Wire {
    /// Not the buffers: they hold megabytes of the user's data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(transport: Transport, peer: String) -> Self {
        Self {
            transport,
            peer,
            input: BytesMut::new(),
            output: BytesMut::new(),
            heard: Instant::now(),
            parameters: HashMap::new(),
            notices: Vec::new(),
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Warnings and other notices so far, at most [`MOST_NOTICES`].
    pub(super) fn notices(&self) -> &[ServerReport] {
        &self.notices
    }

    /// The next message that is not a notice, a parameter or a notification. No deadline.
    pub(super) async fn next(&mut self) -> Result<Message> {
        loop {
            let missing = match self.buffered()? {
                Ok(message) => return Ok(message),
                Err(missing) => missing,
            };
            // A server that closed the session may have said why: reading finds that, or the end.
            let _ = self.write().await;
            self.fill(missing).await.map_err(|e| self.lost(e))?;
        }
    }

    /// The next message if it has arrived already, or else how many bytes it needs at least.
    fn buffered(&mut self) -> Result<std::result::Result<Message, usize>> {
        loop {
            match take(&mut self.input).map_err(|what| self.not_understood(what))? {
                Ok(message) => {
                    if let Some(message) = self.keep_asides(message) {
                        return Ok(Ok(message));
                    }
                }
                Err(missing) => return Ok(Err(missing)),
            }
        }
    }

    /// [`Wire::next`], given up after `limit`.
    pub(super) async fn next_within(&mut self, limit: Duration) -> Result<Message> {
        // Without a timer where none is needed: a base backup has tens of thousands of messages a second.
        if let Ok(message) = self.buffered()? {
            return Ok(message);
        }
        match timeout(limit, self.next()).await {
            Ok(message) => message,
            Err(_) => Err(self.silent(limit)),
        }
    }

    /// Writes what `output` holds.
    pub(super) async fn send(&mut self, limit: Duration) -> Result<()> {
        match timeout(limit, self.write()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.last_words(error).await),
            Err(_) => Err(self.silent(limit)),
        }
    }

    /// [`Wire::send`] that leaves a broken connection to the next read, which finds what the server
    /// sent before it closed.
    pub(super) async fn offer(&mut self, limit: Duration) -> Result<()> {
        match timeout(limit, self.write()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.silent(limit)),
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            if self.transport.write_buf(&mut self.output).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.transport.flush().await
    }

    async fn fill(&mut self, missing: usize) -> io::Result<()> {
        if self.input.capacity() - self.input.len() < missing.max(LEAST_ROOM) {
            self.input.reserve(missing.max(READ_BUFFER));
        }
        if self.transport.read_buf(&mut self.input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.heard = Instant::now();
        Ok(())
    }

    /// Why the server closed a session that can no longer be written to: its own report if there is one.
    async fn last_words(&mut self, failure: io::Error) -> Error {
        let report = async {
            loop {
                match self.next().await {
                    Ok(Message { tag: b'E', body }) => return Some(ServerReport::parse(&body)),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        };
        match timeout(Duration::from_secs(1), report).await {
            Ok(Some(report)) => explain(report, Session::Replication, format!("{} closed the connection", self.peer)),
            _ => self.lost(failure),
        }
    }

    /// Keeps what may come between any two messages; gives back the rest.
    fn keep_asides(&mut self, message: Message) -> Option<Message> {
        match message.tag {
            b'N' => {
                if self.notices.len() < MOST_NOTICES {
                    self.notices.push(ServerReport::parse(&message.body));
                }
                None
            }
            b'S' => {
                let mut parts = message.body.split(|byte| *byte == 0);
                if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    self.parameters.insert(text(name), text(value));
                }
                None
            }
            b'A' => None,
            _ => Some(message),
        }
    }

    fn lost(&self, cause: io::Error) -> Error {
        let error = error::source(format!("the connection to PostgreSQL at {} was lost", self.peer));
        match cause.kind() {
            io::ErrorKind::UnexpectedEof => error.hint("PostgreSQL's log says why it closed the connection"),
            _ => error.source(cause),
        }
    }

    /// The error for a server that says nothing for too long.
    pub(super) fn silent(&self, limit: Duration) -> Error {
        error::source(format!("PostgreSQL at {} said nothing for {} seconds", self.peer, limit.as_secs_f64()))
            .hint("check the network between this host and PostgreSQL, and PostgreSQL's load")
    }

    /// The error for a message that has no place where it came.
    pub(super) fn unexpected(&self, message: &Message) -> Error {
        self.not_understood(format!("a message of type {:?} out of turn", char::from(message.tag)))
    }

    /// The error for anything else that the protocol does not allow.
    pub(super) fn not_understood(&self, what: impl std::fmt::Display) -> Error {
        error::source(format!("{} does not speak PostgreSQL's replication protocol: it sent {what}", self.peer))
            .hint("check that the DSN names PostgreSQL itself; connection poolers cannot carry replication")
    }
}

/// Waits for `work` at most `limit`; `late` makes the error.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T>>,
    late: impl FnOnce() -> Error,
) -> Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

/// The columns of a DataRow.
pub(super) fn columns(body: &Bytes) -> Option<Vec<Option<Bytes>>> {
    let mut rest = body.clone();
    let count = rest.try_get_u16().ok()?;
    let mut columns = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        match usize::try_from(rest.try_get_i32().ok()?) {
            Err(_) => columns.push(None),
            Ok(length) if length <= rest.len() => columns.push(Some(rest.split_to(length))),
            Ok(_) => return None,
        }
    }
    Some(columns)
}

/// A column as text.
pub(super) fn text(columns: &[Option<Bytes>], index: usize) -> Option<&str> {
    std::str::from_utf8(columns.get(index)?.as_ref()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::UnixStream;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        (Wire::new(Transport::Unix(ours), "test".into()), theirs)
    }

    proptest! {
        #[test]
        fn messages_survive_any_fragmentation(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..8), piece in 1usize..400
        ) {
            let whole: Vec<u8> = bodies.iter().flat_map(|body| message(b'd', body)).collect();
            let mut input = BytesMut::new();
            let mut seen = Vec::new();
            for piece in whole.chunks(piece) {
                input.extend_from_slice(piece);
                while let Ok(message) = take(&mut input).expect("well formed") {
                    seen.push(message.body.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn rows_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = columns(&Bytes::from(bytes));
        }
    }

    #[tokio::test]
    async fn a_dropped_read_loses_nothing() {
        let (mut wire, mut server) = pair();
        let whole = message(b'd', b"in two halves");
        server.write_all(&whole[..7]).await.expect("written");
        // Long enough for the first half to be read, then dropped like a branch of select!.
        assert!(timeout(Duration::from_millis(50), wire.next()).await.is_err());
        assert_eq!(wire.input.len(), 7, "the half is kept");
        server.write_all(&whole[7..]).await.expect("written");
        assert_eq!(&wire.next().await.expect("whole").body[..], b"in two halves");
    }

    #[tokio::test]
    async fn asides_are_kept_and_not_returned() {
        let (mut wire, mut server) = pair();
        let mut bytes = message(b'N', b"VWARNING\0C01000\0Mcareful\0\0");
        bytes.extend(message(b'S', b"server_version\x0015.18\0"));
        bytes.extend(message(b'Z', b"I"));
        server.write_all(&bytes).await.expect("written");
        assert_eq!(wire.next().await.expect("message").tag, b'Z');
        assert_eq!(wire.notices()[0].message, "careful");
        assert_eq!(wire.parameters["server_version"], "15.18");
    }

    #[tokio::test]
    async fn garbage_silence_and_the_end_are_told_apart() {
        let (mut wire, mut server) = pair();
        let error = wire.next_within(Duration::from_millis(20)).await.expect_err("nothing comes");
        assert!(error.message().contains("said nothing"), "{error}");
        server.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.expect("written");
        let error = wire.next().await.expect_err("not PostgreSQL");
        assert!(error.message().contains("does not speak"), "{error}");

        let (mut wire, server) = pair();
        drop(server);
        let error = wire.next().await.expect_err("closed");
        assert!(error.message().contains("was lost"), "{error}");
    }

    #[tokio::test]
    async fn a_failed_write_is_explained_by_what_the_server_said_last() {
        let (mut wire, mut server) = pair();
        server.write_all(&message(b'E', b"VFATAL\0C57P01\0Mgoing down\0\0")).await.expect("written");
        drop(server);
        wire.output.extend_from_slice(b"status");
        let error = wire.send(Duration::from_secs(5)).await.expect_err("closed");
        assert_eq!(super::super::sqlstate(&error), Some("57P01"));
    }
}
