//! The client against a real server: sessions and logins, WAL, base backups.

mod backups;
mod sessions;
mod wal;

use tokio_postgres::Config;

use super::testing::TestServer;
use super::*;
use crate::error::Error;
use crate::units::Lsn;

pub(crate) async fn replication(server: &TestServer) -> ReplicationConnection {
    ReplicationConnection::connect(&server.dsn("user=postgres")).await.expect("connected")
}

pub(super) async fn refused(dsn: &Config) -> Error {
    ReplicationConnection::connect(dsn).await.expect_err("must be refused")
}

/// What a whole base backup brought: archives by tablespace, manifest, end.
pub(crate) struct Backup {
    pub(crate) tablespaces: Vec<Tablespace>,
    pub(crate) archives: Vec<Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) start: Lsn,
    pub(crate) end: Lsn,
}

pub(crate) async fn backup(connection: ReplicationConnection, options: &BaseBackupOptions) -> Backup {
    let mut stream = connection.base_backup(options).await.expect("started");
    let tablespaces = stream.tablespaces().to_vec();
    let mut archives = vec![Vec::new(); tablespaces.len()];
    let (mut manifest, mut current) = (Vec::new(), None);
    loop {
        match stream.next().await.expect("message") {
            BackupMessage::Archive { tablespace } => current = Some(tablespace),
            BackupMessage::Manifest => current = None,
            BackupMessage::Data(bytes) => match current {
                Some(index) => archives[index].extend_from_slice(&bytes),
                None => manifest.extend_from_slice(&bytes),
            },
            BackupMessage::Progress(_) => {}
            BackupMessage::Finished { end, timeline } => {
                assert_eq!(timeline, stream.start().1);
                return Backup { tablespaces, archives, manifest, start: stream.start().0, end };
            }
        }
    }
}
