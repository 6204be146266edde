//! The log: one line of JSON for each attempt, written at once and in one piece.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use super::caller::{Sockets, caller};
use super::names::Names;
use crate::evidence::egress_record::{Attempt, Caller};
use crate::runtime::Runtime;

/// Lines after which only that there were more is said: a copy that never stops trying must not fill the disk.
const MOST: u64 = 100_000;
/// Longest text that is kept of what was asked.
const ASKED: usize = 500;

/// What all listeners share.
#[derive(Debug)]
pub(super) struct Notes {
    log: Mutex<(File, u64)>,
    names: Mutex<Names>,
    runtime: Runtime,
}

/// An attempt of which the place is known, and not yet what is wanted.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    attempt: Attempt,
}

impl Notes {
    pub(super) fn new(log: File, runtime: Runtime) -> Self {
        Self { log: Mutex::new((log, 0)), names: Mutex::default(), runtime }
    }

    /// The address that stands for a name.
    pub(super) fn stand_in(&self, name: &str) -> std::net::Ipv4Addr {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).address(name)
    }

    /// Looks at who wants to go where, at once: the process may be gone when it has said what it wants.
    pub(super) async fn begin(&self, kind: Sockets, from: SocketAddr, to: SocketAddr) -> Begun {
        let time = self.runtime.now();
        let process: Option<Caller> = tokio::task::spawn_blocking(move || caller(kind, from)).await.unwrap_or_default();
        let name = self.names.lock().unwrap_or_else(PoisonError::into_inner).name(to.ip());
        let protocol = match kind {
            Sockets::Tcp => "tcp",
            Sockets::Udp => "udp",
        };
        let address = to.ip().to_canonical();
        let attempt = Attempt { time, protocol: protocol.into(), address, port: to.port(), name, asked: None, process };
        Begun { attempt }
    }

    /// Writes the line.
    pub(super) fn note(&self, begun: &Begun, protocol: Option<&str>, name: Option<String>, asked: Option<String>) {
        let mut attempt = begun.attempt.clone();
        if let Some(protocol) = protocol {
            protocol.clone_into(&mut attempt.protocol);
        }
        attempt.name = attempt.name.or(name.map(|n| n.to_ascii_lowercase()));
        attempt.asked = asked.map(|text| text.chars().take(ASKED).collect());
        let mut line = serde_json::to_string(&attempt).expect("texts and numbers only");
        line.push('\n');
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.1 += 1;
        let written = match log.1.cmp(&MOST) {
            std::cmp::Ordering::Less => log.0.write_all(line.as_bytes()),
            // No JSON, so that whoever counts says that there was more than could be read.
            std::cmp::Ordering::Equal => log.0.write_all(b"more attempts than are written down\n"),
            std::cmp::Ordering::Greater => Ok(()),
        };
        if let Err(e) = written {
            // Nobody here could do anything about it; the sandbox's own log keeps it.
            tracing::error!("an attempt to reach {} could not be written down: {e}", attempt.address);
        }
    }
}
