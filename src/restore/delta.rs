//! A delta restore: what lies in the target directories is made equal to the backup, and only what differs is fetched
//! and written.
//!
//! Pack by pack, [`compare`] hashes what is there, page by page, against the sums that the repository keeps, and what
//! differs is fetched. Several packs are at work at the same time, some being compared, some fetched, so that all cores
//! and the store are busy from the beginning to the end.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::TryStreamExt;
use futures::stream;

use super::files::{PHASE, Writer, path_in};
use super::manifest_text::Parts;
use super::slices::{Slice, frames, groups, of_packs, sort_by_frame};
use crate::disk::failed;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::repository::Repository;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::fetch::Fetcher;
use crate::repository::page_sums::{PAGE, Sums};
use crate::runtime::blocking;

/// How much is read and hashed at once: it stays in a core's own cache between both.
const CHUNK: u32 = 16 * PAGE as u32;

/// Bytes looked at between two looks at what is zero.
const STRETCH: u64 = 1 << 20;

/// Makes what lies there equal to the backup.
pub(super) struct Delta<'a> {
    pub(super) repository: &'a Repository,
    pub(super) environment: &'a str,
    pub(super) writer: &'a Arc<Writer>,
    /// Everything that the backup holds, sorted by frame.
    pub(super) slices: &'a [Slice],
    /// Where the CRCs of files are gathered, if somebody wants them.
    pub(super) parts: Option<&'a Arc<Parts>>,
}

impl Delta<'_> {
    /// Compares, fetches and writes everything; returns the stored bytes of what was fetched.
    pub(super) async fn run(&self) -> Result<u64> {
        let writer = self.writer.clone();
        let zeros = blocking(move || compare_zeros(writer.lying())).await?;
        self.writer.count(zeros.kept, zeros.zeroed);
        let table = &self.writer.manifest.packs;
        let fetcher = Fetcher::new(self.repository, self.environment, table)?;
        let mut all: Vec<Vec<usize>> = groups(table);
        // What has no sums is compared after it was fetched.
        all.push((0..table.packs().len()).filter(|pack| table.packs()[*pack].sums.is_none()).collect());
        let at_once = std::thread::available_parallelism().map_or(1, usize::from) + 1;
        stream::iter(all.into_iter().map(Ok::<_, Error>))
            .and_then(async |group| {
                let sums = Arc::new(Sums::read_packs(self.repository, self.environment, table, &group).await?);
                Ok(stream::iter(group.into_iter().map(move |pack| Ok((pack, sums.clone())))))
            })
            .try_flatten()
            .map_ok(|(pack, sums)| self.pack(&fetcher, pack, sums))
            .try_buffer_unordered(at_once)
            .try_fold(0, async |all, fetched| Ok(all + fetched))
            .await
    }

    async fn pack(&self, fetcher: &Fetcher<'_>, pack: usize, sums: Arc<Sums>) -> Result<u64> {
        let table = &self.writer.manifest.packs;
        let slices = of_packs(self.slices, table, &[pack]);
        let mut wanted = match table.packs()[pack].sums {
            None => slices,
            Some(_) => {
                let (writer, parts) = (self.writer.clone(), self.parts.cloned());
                let compared = blocking(move || {
                    parts.map_or(Ok(()), |parts| parts.add(&writer.manifest, &slices, &sums))?;
                    compare(writer.lying(), &slices, &sums)
                });
                let Compared { wanted, kept, .. } = compared.await?;
                self.writer.count(kept, 0);
                self.writer.runtime.emit(Event::Progress { phase: PHASE.into(), bytes: kept });
                wanted
            }
        };
        sort_by_frame(&mut wanted);
        let frames = frames(&wanted);
        let mut fetched = 0;
        for frame in &frames {
            fetched += table.stored_len(*frame)?;
        }
        fetcher.frames(frames, self.writer.sink(Arc::new(wanted))).await?;
        Ok(fetched)
    }
}

/// What comparing found out.
#[derive(Debug, Default)]
struct Compared {
    /// What must come from the store.
    wanted: Vec<Slice>,
    /// Bytes that are right where they are.
    kept: u64,
    /// Bytes that are zero in the backup and were not here: written already.
    zeroed: u64,
}

impl Compared {
    /// Notes what must come from the store, joined to the last part where it continues it.
    fn want(&mut self, slice: Slice) {
        match self.wanted.last_mut() {
            Some(last) if last.continued_by(slice) => last.length += slice.length,
            _ => self.wanted.push(slice),
        }
    }
}

/// Where the files are that are compared.
#[derive(Clone, Copy)]
pub(super) struct Lying<'a> {
    /// What they should be.
    pub(super) manifest: &'a BaseManifest,
    /// The data directory.
    pub(super) pgdata: &'a Path,
    /// How many bytes of each file were there before this restore.
    pub(super) there: &'a [u64],
}

/// Compares parts of files, in the order of files, with the sums of their pages.
fn compare(lying: Lying<'_>, slices: &[Slice], sums: &Sums) -> Result<Compared> {
    let (mut open, mut found, mut buffer) = (Open::default(), Compared::default(), [0; CHUNK as usize]);
    for slice in slices {
        for at in (0..slice.length).step_by(CHUNK as usize) {
            let part = slice.part(at..slice.length.min(at + CHUNK));
            let there = lying.there[part.file as usize].min(part.end()).saturating_sub(part.file_offset);
            let bytes = &mut buffer[..there as usize];
            if there > 0 {
                let path = || path_in(lying.pgdata, &lying.manifest.files[part.file as usize].path);
                let file = open.file(lying, part.file)?;
                file.read_exact_at(bytes, part.file_offset).map_err(|e| failed("cannot read", &path(), e))?;
            }
            differing(lying.manifest, part, bytes, sums, &mut found);
        }
    }
    Ok(found)
}

/// Notes the pages of a slice that are not what they should be; `buffer` is what lies there, perhaps less than all.
fn differing(manifest: &BaseManifest, slice: Slice, buffer: &[u8], sums: &Sums, found: &mut Compared) {
    let mut from = None;
    for at in (0..slice.length).step_by(PAGE) {
        let end = slice.length.min(at + PAGE as u32);
        let page = buffer.get(at as usize..end as usize);
        let sum = sums.page(&manifest.packs, slice.frame, slice.offset + at);
        if sum.is_some_and(|sum| page.is_some_and(|page| sum.is_of(page))) {
            found.kept += u64::from(end - at);
            if let Some(from) = from.take() {
                found.want(slice.part(from..at));
            }
        } else {
            from.get_or_insert(at);
        }
    }
    if let Some(from) = from {
        found.want(slice.part(from..slice.length));
    }
}

/// Makes zeros of what lies where the backup has none of its stored bytes.
fn compare_zeros(lying: Lying<'_>) -> Result<Compared> {
    let files = &lying.manifest.files;
    in_parallel(files.len(), |number, open, found| {
        let (entry, there) = (&files[number], lying.there[number]);
        let path = || path_in(lying.pgdata, &entry.path);
        let mut at = 0;
        let runs = entry.runs.iter().map(|run| (run.file_offset, run.file_offset + run.length));
        let mut buffer = Vec::new();
        for (start, end) in runs.chain([(entry.size, entry.size)]) {
            while at < start.min(there) {
                let length = (start.min(there) - at).min(STRETCH);
                buffer.resize(length as usize, 0);
                let file = open.file(lying, number as u32)?;
                file.read_exact_at(&mut buffer, at).map_err(|e| failed("cannot read", &path(), e))?;
                for page in buffer.chunks(PAGE) {
                    if page.iter().any(|byte| *byte != 0) {
                        file.write_all_at(&[0; PAGE][..page.len()], at)
                            .map_err(|e| failed("cannot write", &path(), e))?;
                        found.zeroed += page.len() as u64;
                    } else {
                        found.kept += page.len() as u64;
                    }
                    at += page.len() as u64;
                }
            }
            at = at.max(end);
        }
        Ok(())
    })
}

/// The file that a thread has open.
#[derive(Default)]
struct Open(Option<(u32, File)>);

impl Open {
    fn file(&mut self, lying: Lying<'_>, number: u32) -> Result<&File> {
        if self.0.as_ref().is_none_or(|(open, _)| *open != number) {
            let path = path_in(lying.pgdata, &lying.manifest.files[number as usize].path);
            let file = File::options().read(true).write(true).open(&path);
            self.0 = Some((number, file.map_err(|e| failed("cannot open", &path, e))?));
        }
        Ok(&self.0.as_ref().expect("opened").1)
    }
}

/// Does `jobs` jobs on all cores; each thread holds one file and one buffer.
fn in_parallel(jobs: usize, work: impl Fn(usize, &mut Open, &mut Compared) -> Result<()> + Sync) -> Result<Compared> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs);
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(Ok(())));
    let (kept, zeroed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut open, mut found) = (Open::default(), Compared::default());
                let mut result = Ok(());
                while result.is_ok() {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs {
                        break;
                    }
                    result = work(job, &mut open, &mut found);
                }
                kept.fetch_add(found.kept, Ordering::Relaxed);
                zeroed.fetch_add(found.zeroed, Ordering::Relaxed);
                if result.is_err() {
                    // The others need not go on.
                    next.store(jobs, Ordering::Relaxed);
                    *failure.lock().expect("no holder panics") = result;
                }
            });
        }
    });
    failure.into_inner().expect("no holder panics")?;
    Ok(Compared { wanted: Vec::new(), kept: kept.into_inner(), zeroed: zeroed.into_inner() })
}
