//! Giving PostgreSQL one archived WAL file back, for its `restore_command`.
//!
//! Two promises decide over data: a file appears at its destination whole or not at all, and "absent"
//! is said only when the repository proves it; PostgreSQL ends recovery there.

use std::io::Write;
use std::path::Path;

use super::wal::{SegmentHeader, SegmentName, WalFileName};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::repository::Repository;
use crate::repository::wal_archive::{WalArchive, chain};

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its name.
    pub name: WalFileName,
    /// Its size in bytes.
    pub bytes: u64,
    /// Where the segment was not complete yet: how many of its bytes are WAL, the rest being zeros.
    pub live: Option<u64>,
}

/// Writes the archived file `name` to `destination`.
pub async fn fetch(
    repository: &Repository,
    environment: &str,
    name: WalFileName,
    destination: &Path,
) -> Result<Fetched> {
    repository.require_data_keys()?;
    let archive = WalArchive::new(repository, environment);
    let (bytes, live) = match (archive.read(&name).await?, &name) {
        (Some(bytes), _) => (bytes, None),
        (None, WalFileName::Segment(segment)) => read_live(archive, segment).await?,
        (None, _) => return Err(absent(&name, environment)),
    };
    let length = bytes.len() as u64;
    let to = destination.to_owned();
    tokio::task::spawn_blocking(move || write(&to, &bytes))
        .await
        .or_err(ErrorKind::Internal, || "writing ended unexpectedly".to_owned())?
        .or_err(ErrorKind::Internal, || format!("cannot write {}", destination.display()))?;
    Ok(Fetched { name, bytes: length, live })
}

/// A segment of which only pieces are there, padded with zeros to its size.
async fn read_live(archive: WalArchive<'_>, segment: &SegmentName) -> Result<(Vec<u8>, Option<u64>)> {
    let file = WalFileName::Segment(*segment);
    loop {
        let mut live = archive.read_live(segment).await?;
        // Pieces may have been merged, or the segment completed, while they were read.
        if let Some(bytes) = archive.read(&file).await? {
            return Ok((bytes, None));
        }
        let covered = chain(archive.pieces(segment).await?).last().map_or(0, |p| p.end);
        if covered > live.len() as u64 {
            continue;
        }
        if live.is_empty() {
            return Err(error::absent(format!("{segment} is not in the repository")));
        }
        let size = SegmentHeader::parse(&live).map_err(|e| e.context(segment))?.segment_size;
        let length = live.len() as u64;
        live.resize(size as usize, 0);
        return Ok((live, Some(length)));
    }
}

fn absent(name: &WalFileName, environment: &str) -> error::Error {
    error::absent(format!("{name} is not in the repository of \"{environment}\""))
}

/// Writes beside, then renames: whoever looks sees nothing or everything.
fn write(destination: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = destination.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".lifeboat-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(destination)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing;
    use crate::vault::Class;

    #[tokio::test]
    async fn a_file_appears_whole_or_not_at_all() {
        let (repository, writer) = testing::repository_and_writer().await;
        let folder = tempfile::tempdir().expect("dir");
        let to = folder.path().join("RECOVERYHISTORY");
        let name: WalFileName = "00000002.history".parse().expect("name");
        let missing = fetch(&repository, "production", name, &to).await.expect_err("absent");
        assert_eq!(missing.kind(), ErrorKind::Absent);
        let mut sealer = WalArchive::new(&repository, "production").sealer(Class::Wal, 1).expect("sealer");
        sealer.write(b"1\t0/3000000\tx\n");
        WalArchive::new(&repository, "production").put(&name, sealer, None).await.expect("put");
        let locked = fetch(&writer, "production", name, &to).await.expect_err("no key");
        assert_eq!(locked.kind(), ErrorKind::Denied);
        assert_eq!(folder.path().read_dir().expect("dir").count(), 0);
        let fetched = fetch(&repository, "production", name, &to).await.expect("there");
        assert_eq!((fetched.bytes, fetched.live), (14, None));
        assert_eq!(std::fs::read(&to).expect("file"), b"1\t0/3000000\tx\n");
        assert_eq!(folder.path().read_dir().expect("dir").count(), 1);
    }
}
