//! The filestore of a restored database: exactly the files that it refers to, no more.
//!
//! Promises: a file appears under its name only when its content has that SHA-1; what cannot be
//! restored is named with the attachment that needs it and told apart by whose fault it is; damage to
//! one pack costs the files in it and no others. May be repeated: files that are there and right are
//! not fetched again. Memory is about 130 bytes for each file, besides the packs in flight.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::TimeDelta;
use futures::{Stream, StreamExt, TryStreamExt};

use super::index::{Index, seconds};
use super::materialise::{Materialiser, Slice, make_dir};
use super::name::FileName;
use super::read::{ReadOutcome, VerifiedReader};
use super::referenced::Reference;
use super::segments::Packs;
use crate::disk::{Owner, failed, flush_file_system};
use crate::error::{ErrorKind, Result};
use crate::event::Event;
use crate::evidence::drill_record::{MissingAttachment, MissingCause};
use crate::evidence::entry::FilestoreCapture;
use crate::repository::Repository;
use crate::repository::fetch::fetch;
use crate::runtime::{Runtime, blocking};
use crate::units::Lsn;

/// Name of the phase that reports progress in restored bytes.
pub const PHASE: &str = "restoring attachments";

/// Packs read at the same time.
const PACKS_IN_FLIGHT: usize = 4;

/// Rows carry the time at which their transaction began; none is supposed to be open longer than this.
const LONGEST_TRANSACTION: TimeDelta = TimeDelta::days(1);

/// What to restore, and where to.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The environment.
    pub environment: &'a str,
    /// The captures of this database, oldest first, as the catalogue gives them.
    pub captures: Vec<&'a FilestoreCapture>,
    /// What watchers stored since the newest capture.
    pub live: Option<Arc<Index>>,
    /// Whether some of that could not be read.
    pub live_damaged: bool,
    /// Where the database stands.
    pub stop: Lsn,
    /// Receives `<2 hex>/<sha1>`; named `filestore/<database>` for Odoo.
    pub directory: &'a Path,
    /// Who owns what is written; `None` leaves it to the running account.
    pub owner: Option<Owner>,
}

/// A restored filestore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilestoreRestored {
    /// Files that the database refers to.
    pub referenced: u64,
    /// Files of those that are there.
    pub present: u64,
    /// Files of those whose content was seen to be what their name says.
    pub verified: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The rest.
    pub missing: Vec<MissingAttachment>,
    /// Files whose size is not what the database says, although their content belongs to their name.
    pub sizes_differ: u64,
    /// The captures that files were taken from.
    pub captures_used: Vec<String>,
}

/// A reference, small.
#[derive(Debug)]
struct Wish {
    name: FileName,
    /// Number of the model's name.
    model: u32,
    attachment: i64,
    /// Size that the database gives; negative where it gives none.
    size: i64,
    /// Seconds since 1970; 0 where not known.
    since: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not found so far.
    Wanted,
    /// An index knows it, but its content could not be read.
    Lost,
    /// A capture says that it was damaged or missing at the source.
    Damaged,
    Restored,
}

const _: () = assert!(size_of::<Wish>() == 48, "a million references must stay small");

impl FilestoreRestored {
    fn restored(&mut self, wish: &mut Wish, length: u64) {
        wish.state = State::Restored;
        self.present += 1;
        self.verified += 1;
        self.bytes += length;
        self.sizes_differ += u64::from(u64::try_from(wish.size).is_ok_and(|size| size != length));
    }
}

/// Restores the files that `wanted` refers to, which come in the order of their names.
pub async fn restore(
    repository: &Repository,
    request: &Request<'_>,
    wanted: impl Stream<Item = Result<Reference>>,
    runtime: &Runtime,
) -> Result<FilestoreRestored> {
    repository.require_data_keys()?;
    let (mut wishes, models, odd) = collect(wanted).await?;
    let total = wishes.iter().map(|w| u64::try_from(w.size).ok()).sum();
    runtime.emit(Event::PhaseStarted { phase: PHASE.into(), total });
    let began = std::time::Instant::now();
    let referenced = (wishes.len() + odd.len()) as u64;
    let mut result = FilestoreRestored { referenced, ..FilestoreRestored::default() };
    let (directory, owner) = (request.directory.to_owned(), request.owner);
    (wishes, result) = blocking(move || {
        make_dir(&directory, owner).map_err(|e| failed("cannot create directory", &directory, e))?;
        keep_what_is_there(&mut wishes, &directory, &mut result);
        Ok((wishes, result))
    })
    .await?;

    let mut unread_index = request.live_damaged;
    if let Some(live) = &request.live {
        from_index(repository, request, live, &mut wishes, &mut result, runtime).await?;
        if result.present > 0 {
            result.captures_used.push(live.header.capture.clone());
        }
    }
    for capture in request.captures.iter().rev() {
        if wishes.iter().all(|w| w.state == State::Restored) {
            break;
        }
        let index = match Index::read(repository, request.environment, &capture.index, Packs::Load).await {
            Ok(index) => Arc::new(index),
            Err(e) if e.kind() == ErrorKind::Integrity => {
                runtime.emit(Event::Warning(format!("the index of filestore capture {} is unusable: {e}", capture.id)));
                unread_index = true;
                continue;
            }
            Err(e) => return Err(e),
        };
        let before = result.present;
        from_index(repository, request, &index, &mut wishes, &mut result, runtime).await?;
        if result.present > before {
            result.captures_used.push(capture.id.clone());
        }
    }
    flush_file_system(request.directory)?;

    for wish in wishes.iter().filter(|w| w.state != State::Restored) {
        let model = models.get(wish.model as usize).cloned();
        let cause = cause(wish, request, unread_index);
        result.missing.push(MissingAttachment {
            store_fname: wish.name.to_string(),
            model,
            id: wish.attachment,
            cause,
        });
    }
    result.missing.extend(odd.into_iter().map(|r| MissingAttachment {
        store_fname: r.store_fname,
        model: r.example.res_model,
        id: r.example.attachment_id,
        // A directory that does not belong to its name: no content can be right.
        cause: MissingCause::DamagedAtSource,
    }));
    runtime.emit(Event::PhaseEnded { phase: PHASE.into(), took: began.elapsed() });
    Ok(result)
}

/// The references, the models that they name, and those that are no names of files.
async fn collect(wanted: impl Stream<Item = Result<Reference>>) -> Result<(Vec<Wish>, Vec<String>, Vec<Reference>)> {
    let mut wanted = std::pin::pin!(wanted);
    let (mut wishes, mut models, mut odd) = (Vec::new(), Vec::new(), Vec::new());
    let mut numbers: HashMap<String, u32> = HashMap::new();
    while let Some(reference) = wanted.try_next().await? {
        let Some(name) = reference.name else {
            odd.push(reference);
            continue;
        };
        let model = reference.example.res_model.map_or(u32::MAX, |model| match numbers.get(&model) {
            Some(number) => *number,
            None => {
                let number = models.len() as u32;
                models.push(model.clone());
                numbers.insert(model, number);
                number
            }
        });
        let attachment = reference.example.attachment_id;
        let size = reference.file_size.unwrap_or(-1);
        let since = reference.since.map_or(0, |since| seconds(since).get());
        wishes.push(Wish { name, model, attachment, size, since, state: State::Wanted });
    }
    Ok((wishes, models, odd))
}

/// Marks what an interrupted restore left behind; its content is read, because it may not have reached
/// the disk before the interruption.
fn keep_what_is_there(wishes: &mut [Wish], directory: &Path, result: &mut FilestoreRestored) {
    let mut reader = VerifiedReader::new();
    for wish in wishes {
        if let Ok(ReadOutcome::Good { size }) = reader.read(directory, &wish.name, &mut |_| Ok(())) {
            result.restored(wish, size);
        }
    }
}

/// Restores what `index` knows of the wishes that are open.
async fn from_index(
    repository: &Repository,
    request: &Request<'_>,
    index: &Arc<Index>,
    wishes: &mut [Wish],
    result: &mut FilestoreRestored,
    runtime: &Runtime,
) -> Result<()> {
    let mut slices = Vec::new();
    for wish in wishes.iter_mut().filter(|w| w.state != State::Restored) {
        let Some(at) = index.position(&wish.name) else {
            continue;
        };
        wish.state = State::Lost;
        let (record, file) = (&index.records[at], at as u32);
        index.packs.cut(record.frame(), record.offset, record.length, |frame, offset, length, file_offset| {
            slices.push(Slice { file_offset, frame: frame as u32, offset, length, file });
        })?;
    }
    for suspect in &index.damaged {
        let name = suspect.name.parse::<FileName>().ok();
        let found = name.and_then(|name| wishes.binary_search_by(|w| w.name.cmp(&name)).ok());
        if let Some(wish) = found.map(|at| &mut wishes[at]).filter(|w| w.state == State::Wanted) {
            wish.state = State::Damaged;
        }
    }
    if slices.is_empty() {
        return Ok(());
    }
    let writer = Arc::new(Materialiser::new(request.directory, request.owner, index, slices, runtime));
    let mut by_pack: Vec<(usize, Vec<u64>)> = Vec::new();
    for frame in writer.frames() {
        let (pack, _) = index.packs.locate(frame)?;
        match by_pack.last_mut() {
            Some((last, frames)) if *last == pack => frames.push(frame),
            _ => by_pack.push((pack, vec![frame])),
        }
    }
    futures::stream::iter(by_pack.into_iter().map(Ok))
        .try_for_each_concurrent(PACKS_IN_FLIGHT, |(_, frames)| {
            let writer = writer.clone();
            async move {
                match fetch(repository, request.environment, &index.packs, frames, writer).await {
                    // The files in it are lost here; another capture may have them elsewhere.
                    Err(e) if e.kind() == ErrorKind::Integrity => {
                        runtime.emit(Event::Warning(format!("attachments in a damaged pack are skipped: {e}")));
                        Ok(())
                    }
                    other => other,
                }
            }
        })
        .await?;
    writer.clean_up();
    for wish in wishes.iter_mut().filter(|w| w.state == State::Lost) {
        if let Some(file) = index.position(&wish.name).filter(|file| writer.is_done(*file)) {
            result.restored(wish, index.records[file].length);
        }
    }
    Ok(())
}

/// Why a file is not there. What no index knows and no capture names as damaged was seen by none: it
/// came after the last one, or came and went between two. But where a capture at or before the restored
/// state must have seen it, because the row is much older, the fault is ours.
fn cause(wish: &Wish, request: &Request<'_>, unread_index: bool) -> MissingCause {
    let must_have_seen = |c: &&FilestoreCapture| {
        let settled = seconds(c.restore_point.time - LONGEST_TRANSACTION).get();
        c.restore_point.lsn <= request.stop && (1..settled).contains(&wish.since)
    };
    match wish.state {
        State::Damaged => MissingCause::DamagedAtSource,
        State::Lost => MissingCause::LostByUs,
        // Nobody can prove that it did not stand in the index that cannot be read.
        _ if unread_index => MissingCause::LostByUs,
        _ if request.captures.iter().any(must_have_seen) => MissingCause::LostByUs,
        _ => MissingCause::NotCaptured,
    }
}

/// What reading a restored filestore again came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files that were looked for.
    pub looked_for: u64,
    /// Files that are there.
    pub present: u64,
    /// Files whose content is what their name says.
    pub verified: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Files that are absent or hold something else, sorted.
    pub wrong: Vec<FileName>,
}

/// Reads every file that `wanted` refers to below `directory`, independently of how it came there.
pub async fn verify(directory: &Path, wanted: impl Stream<Item = Result<Reference>>) -> Result<Verified> {
    let names: Vec<FileName> = wanted.try_filter_map(|r| std::future::ready(Ok(r.name))).try_collect().await?;
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    let share = names.len().div_ceil(threads).max(1);
    let parts: Vec<Vec<FileName>> = names.chunks(share).map(<[_]>::to_vec).collect();
    let results: Vec<Result<Verified>> = futures::stream::iter(parts)
        .map(|part| {
            let directory: PathBuf = directory.to_owned();
            blocking(move || Ok(verify_part(&directory, part)))
        })
        .buffered(threads)
        .collect()
        .await;
    let mut sum = Verified::default();
    for part in results {
        let part = part?;
        sum.looked_for += part.looked_for;
        sum.present += part.present;
        sum.verified += part.verified;
        sum.bytes += part.bytes;
        sum.wrong.extend(part.wrong);
    }
    Ok(sum)
}

fn verify_part(directory: &Path, names: Vec<FileName>) -> Verified {
    let mut result = Verified { looked_for: names.len() as u64, ..Default::default() };
    let mut reader = VerifiedReader::new();
    for name in names {
        let outcome = reader.read(directory, &name, &mut |_| Ok(())).expect("the receiver never fails");
        result.present += u64::from(!matches!(outcome, ReadOutcome::Vanished));
        match outcome {
            ReadOutcome::Good { size } => {
                result.verified += 1;
                result.bytes += size;
            }
            _ => result.wrong.push(name),
        }
    }
    result
}
