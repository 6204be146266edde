//! A network that fails on command: a TCP proxy on loopback before a server that keeps running.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc as commands, watch};

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Up,
    /// Connections are dropped and new ones refused.
    Cut,
    /// Connections stay and new ones are taken, but no byte passes.
    Silent,
    /// The proxy ends.
    Gone,
}

type Command = (Network, mpsc::Sender<()>);

/// Forwards a port of its own to a port of a server, until told otherwise.
#[derive(Debug)]
pub(crate) struct FlakyProxy {
    port: u16,
    commands: commands::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl FlakyProxy {
    /// A proxy before `127.0.0.1:target`.
    pub(crate) fn new(target: u16) -> Self {
        let (sender, receiver) = commands::unbounded_channel();
        let (tell_port, port) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(target, &tell_port, receiver));
        });
        let port = port.recv().expect("the proxy listens");
        Self { port, commands: sender, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// For `endpoint` in a configuration.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Drops all connections and refuses new ones; holds when this returns.
    pub(crate) fn cut(&self) {
        self.tell(Network::Cut);
    }

    /// Lets no byte pass, but takes connections; holds when this returns.
    pub(crate) fn silence(&self) {
        self.tell(Network::Silent);
    }

    /// Forwards again; what waited in silence goes on.
    pub(crate) fn restore(&self) {
        self.tell(Network::Up);
    }

    fn tell(&self, network: Network) {
        let (done, told) = mpsc::channel();
        self.commands.send((network, done)).expect("the proxy runs");
        told.recv().expect("the proxy runs");
    }
}

impl Drop for FlakyProxy {
    fn drop(&mut self) {
        let (done, _) = mpsc::channel();
        let _ = self.commands.send((Network::Gone, done));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(target: u16, tell_port: &mpsc::Sender<u16>, mut commands: commands::UnboundedReceiver<Command>) {
    let mut listener = Some(TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
    let address = listener.as_ref().and_then(|l| l.local_addr().ok()).expect("a bound listener has an address");
    tell_port.send(address.port()).expect("somebody waits for the port");
    let (state, _) = watch::channel(Network::Up);
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = commands.recv() => {
                let Some((network, done)) = command else { return };
                if network == Network::Gone {
                    return;
                }
                if network == Network::Cut {
                    listener = None;
                }
                state.send_replace(network);
                if network == Network::Cut {
                    // Every connection has gone when nobody watches any more.
                    state.closed().await;
                } else if listener.is_none() {
                    listener = Some(listen_again(address).await);
                }
                let _ = done.send(());
            }
            Some((client, _)) = accepted => {
                tokio::spawn(forward(client, target, state.subscribe()));
            }
        }
    }
}

async fn listen_again(address: SocketAddr) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket option");
    socket.bind(address).expect("the port was ours");
    socket.listen(128).expect("a bound socket")
}

/// Copies both ways while the network is up; waits in silence; ends when it is cut.
async fn forward(mut client: TcpStream, target: u16, mut state: watch::Receiver<Network>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    loop {
        let network = *state.borrow_and_update();
        // Cut while this connected to the server.
        if network == Network::Cut {
            return;
        }
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return },
            _ = tokio::io::copy_bidirectional(&mut client, &mut server), if network == Network::Up => return,
        }
    }
}
