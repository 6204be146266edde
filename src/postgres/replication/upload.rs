//! UPLOAD_MANIFEST (17 and later): tells the server what the previous base backup holds, so that
//! BASE_BACKUP with INCREMENTAL sends only blocks that its WAL summaries name as changed since
//! (`src/backend/backup/basebackup_incremental.c`).

use postgres_protocol::message::frontend::{self, CopyData};

use super::connection::ReplicationConnection;
use super::server_report::ServerReport;
use crate::error::{ErrorKind, Result, ResultExt};

/// Bytes of the manifest in one message.
const CHUNK: usize = 64 << 10;

impl ReplicationConnection {
    /// Uploads a `backup_manifest` of the previous backup; the server's refusal is the inner error.
    pub async fn upload_manifest(&mut self, manifest: &[u8]) -> Result<std::result::Result<(), ServerReport>> {
        let limit = self.options().silence;
        self.send("UPLOAD_MANIFEST").await?;
        let mut refusal = None;
        loop {
            let message = self.wire().next_within(limit).await?;
            match message.tag {
                b'G' => {
                    for chunk in manifest.chunks(CHUNK) {
                        let data = CopyData::new(chunk)
                            .or_err(ErrorKind::Internal, || "a manifest cannot be sent".to_owned())?;
                        data.write(&mut self.wire().output);
                        self.wire().send(limit).await?;
                    }
                    frontend::copy_done(&mut self.wire().output);
                    self.wire().send(limit).await?;
                }
                b'E' => refusal = Some(ServerReport::parse(&message.body)),
                b'C' => {}
                b'Z' => {
                    self.idle_again();
                    return Ok(refusal.map_or(Ok(()), Err));
                }
                _ => return Err(self.wire_ref().unexpected(&message)),
            }
        }
    }
}
