//! Ways in: Unix sockets of the drill that lead to ports of the sandbox's loopback interface.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, UnixListener};

use super::Refusal;

/// A way in: a Unix socket that leads to a port of the sandbox's loopback interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// The port.
    pub port: u16,
    /// The socket; a short path.
    pub socket: PathBuf,
}

impl Door {
    /// Opens it: from now on every connection is led in.
    pub(in crate::drill::sandbox) fn open(&self) -> Result<(), Refusal> {
        let listener = UnixListener::bind(&self.socket)
            .map_err(|e| Refusal::io(format!("no way in at {}", self.socket.display()), &e))?;
        tokio::spawn(lead_in(listener, self.port));
        Ok(())
    }
}

/// Leads every connection to a port of the loopback interface.
async fn lead_in(listener: UnixListener, port: u16) {
    loop {
        // A failing accept has nobody to tell; whoever knocks sees that nobody opens.
        let Ok((mut outside, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            if let Ok(mut inside) = TcpStream::connect(("127.0.0.1", port)).await {
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}
