//! PostgreSQL's own `backup_manifest` for backups that bring none: those whose pages were read from the
//! files, or stored over several backups. The CRC of each file is put together from the sums of its pages, which
//! were made when the pages were read at the source; so `pg_verifybackup` judges the whole way of every byte.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::sync::{Mutex, PoisonError};

use super::files::ClusterTarget;
use super::slices::{Slice, groups, is_restored, of_packs};
use crate::disk::failed;
use crate::error::{self, Result};
use crate::postgres::backup_manifest::ManifestText;
use crate::repository::Repository;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::page_sums::{PAGE, Sums};
use crate::units::Lsn;

/// Its name in the data directory.
pub(super) const NAME: &str = "backup_manifest";

/// Whether the backup needs a manifest of our making, and has the sums for it.
pub(super) fn is_ours(manifest: &BaseManifest) -> bool {
    manifest.files.iter().all(|f| f.path != NAME) && manifest.packs.packs().iter().all(|p| p.sums.is_some())
}

/// The CRC-32C of every file of the manifest, from the sums of its pages.
pub(super) async fn file_sums(
    repository: &Repository,
    environment: &str,
    manifest: &BaseManifest,
    slices: &[Slice],
) -> Result<Vec<u32>> {
    let (parts, table) = (Parts::default(), &manifest.packs);
    for group in groups(table) {
        let sums = Sums::read_packs(repository, environment, table, &group).await?;
        parts.add(manifest, &of_packs(slices, table, &group), &sums)?;
    }
    parts.of_files(manifest)
}

/// The CRCs of parts of files, from several threads and in any order, until they are those of files.
#[derive(Debug, Default)]
pub(super) struct Parts {
    combine: Combine,
    /// File, offset in it, length, CRC.
    parts: Mutex<Vec<(u32, u64, u32, u32)>>,
}

impl Parts {
    /// Adds the slices of packs whose sums are at hand.
    pub(super) fn add(&self, manifest: &BaseManifest, slices: &[Slice], sums: &Sums) -> Result<()> {
        let mut parts = Vec::with_capacity(slices.len());
        for &slice in slices {
            let mut crc = 0;
            for at in (0..slice.length).step_by(PAGE) {
                let length = (slice.length - at).min(PAGE as u32);
                let sum = sums.page(&manifest.packs, slice.frame, slice.offset + at);
                let sum = sum.ok_or_else(|| {
                    error::integrity(format!("there is no sum for a page of {}", path_of(manifest, slice)))
                })?;
                crc = self.combine.append(crc, sum.crc32c, length.into());
            }
            parts.push((slice.file, slice.file_offset, slice.length, crc));
        }
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).extend(parts);
        Ok(())
    }

    /// The CRC of every file, when all parts were added.
    pub(super) fn of_files(&self, manifest: &BaseManifest) -> Result<Vec<u32>> {
        let mut parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        parts.sort_unstable();
        let mut parts = parts.into_iter().peekable();
        let mut files = Vec::with_capacity(manifest.files.len());
        for (number, file) in (0..).zip(&manifest.files) {
            let (mut crc, mut done) = (0, 0);
            while let Some((_, offset, length, part)) = parts.next_if(|(file, ..)| *file == number) {
                if offset < done {
                    return Err(error::integrity(format!("the manifest stores a part of {} twice", file.path)));
                }
                crc = self.combine.zeros(crc, offset - done);
                crc = self.combine.append(crc, part, length.into());
                done = offset + u64::from(length);
            }
            files.push(self.combine.zeros(crc, file.size - done));
        }
        Ok(files)
    }
}

fn path_of(manifest: &BaseManifest, slice: Slice) -> &str {
    &manifest.files[slice.file as usize].path
}

/// Writes the manifest into the data directory; the caller makes it durable.
pub(super) fn write(manifest: &BaseManifest, sums: &[u32], stop: Lsn, target: &ClusterTarget) -> Result<()> {
    let path = target.pgdata.join(NAME);
    let header = &manifest.header;
    let write = || -> std::io::Result<()> {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        if let Some(owner) = target.owner {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        let mut text = ManifestText::new(BufWriter::new(file), header.server_version, header.system_id)?;
        for (file, sum) in manifest.files.iter().zip(sums).filter(|(file, _)| is_restored(&file.path)) {
            text.file(&file.path, file.size, file.mtime.try_into().unwrap_or(i64::MAX), *sum)?;
        }
        text.finish(header.timeline, header.start_lsn, stop)?.flush()
    };
    write().map_err(|e| failed("cannot write", &path, e))
}

/// Puts CRCs of neighbours together. Appending a page of zeros to what a CRC was made of is a linear map; as a table
/// it takes a nanosecond, where `crc32c_combine` multiplies matrices each time.
#[derive(Debug)]
struct Combine {
    /// By byte of the CRC, from the lowest.
    page: [[u32; 256]; 4],
    zero_page: u32,
}

impl Default for Combine {
    fn default() -> Self {
        let shifted = |crc: u32| crc32c::crc32c_combine(crc, 0, PAGE);
        let page = std::array::from_fn(|byte| std::array::from_fn(|value| shifted((value as u32) << (8 * byte))));
        Self { page, zero_page: crc32c::crc32c(&[0; PAGE]) }
    }
}

impl Combine {
    /// The CRC of some bytes followed by others: theirs, and how many.
    fn append(&self, crc: u32, more: u32, length: u64) -> u32 {
        let mut crc = crc;
        for _ in 0..length / PAGE as u64 {
            let bytes = crc.to_le_bytes();
            crc = (0..4).fold(0, |sum, n| sum ^ self.page[n][usize::from(bytes[n])]);
        }
        let rest = (length % PAGE as u64) as usize;
        if rest > 0 {
            crc = crc32c::crc32c_combine(crc, 0, rest);
        }
        crc ^ more
    }

    /// The CRC of some bytes followed by zeros.
    fn zeros(&self, crc: u32, length: u64) -> u32 {
        let (pages, rest) = (length / PAGE as u64, (length % PAGE as u64) as usize);
        let crc = (0..pages).fold(crc, |crc, _| self.append(crc, self.zero_page, PAGE as u64));
        self.append(crc, crc32c::crc32c(&[0; PAGE][..rest]), rest as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_parts_make_the_sum_of_the_whole() {
        let combine = Combine::default();
        let mut bytes = vec![0; 3 * PAGE + 100];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = (n * 31 % 251) as u8;
        }
        let mut crc = 0;
        for page in bytes.chunks(PAGE) {
            crc = combine.append(crc, crc32c::crc32c(page), page.len() as u64);
        }
        assert_eq!(crc, crc32c::crc32c(&bytes));
        let (first, second) = bytes.split_at(2 * PAGE);
        let both = combine.append(crc32c::crc32c(first), crc32c::crc32c(second), second.len() as u64);
        assert_eq!(both, crc);
        for zeros in [0, 1, PAGE, 2 * PAGE + 7] {
            let longer = [&bytes[..], &vec![0; zeros]].concat();
            assert_eq!(combine.zeros(crc, zeros as u64), crc32c::crc32c(&longer), "{zeros}");
        }
        assert_eq!(combine.zeros(0, 2 * PAGE as u64), crc32c::crc32c(&[0; 2 * PAGE]));
    }
}
