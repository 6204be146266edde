//! Attachments of a copy, verified where they lie: nothing is fetched, so damage is seen and not mended.

use std::collections::HashMap;
use std::path::Path;

use futures::TryStreamExt;

use crate::error::Result;
use crate::evidence::drill_record::{AttachmentReconciliation, MissingAttachment, MissingCause};
use crate::filestore::{ReadOutcome, Reference, VerifiedReader, referenced};
use crate::postgres::server::PrivateServer;
use crate::runtime::blocking;

/// Holds the attachments of a database against the files of a copy. What `before` already names is not blamed on the
/// damage.
pub(super) async fn verify(
    server: &PrivateServer,
    root: &Path,
    before: &AttachmentReconciliation,
) -> Result<AttachmentReconciliation> {
    let client = server.sql(&before.database).await?;
    let wanted: Vec<Reference> = referenced(&client).await?.try_collect().await?;
    let directory = root.join(&before.database);
    let known: HashMap<String, MissingCause> =
        before.missing.iter().map(|m| (m.store_fname.clone(), m.cause)).collect();
    let database = before.database.clone();
    blocking(move || {
        let mut found = AttachmentReconciliation {
            database,
            referenced: wanted.len() as u64,
            present: 0,
            verified: 0,
            bytes: 0,
            missing: Vec::new(),
        };
        let mut reader = VerifiedReader::new();
        for reference in wanted {
            let outcome = match &reference.name {
                Some(name) if directory.is_dir() => reader.read(&directory, name, &mut |_| Ok(()))?,
                _ => ReadOutcome::Vanished,
            };
            match outcome {
                ReadOutcome::Good { size } => {
                    found.present += 1;
                    found.verified += 1;
                    found.bytes += size;
                }
                _ => found.missing.push(MissingAttachment {
                    cause: known.get(&reference.store_fname).copied().unwrap_or(MissingCause::LostByUs),
                    store_fname: reference.store_fname,
                    model: reference.example.res_model,
                    id: reference.example.attachment_id,
                }),
            }
        }
        Ok(found)
    })
    .await
}
