//! Metadata and packs: present, of the right size, with the content that their names and manifests say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::{By, Check, PARALLEL};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::evidence::Body;
use crate::evidence::entry::BaseBackup;
use crate::repository::base_manifest::BaseManifest;
use crate::repository::meta;
use crate::repository::packs::{PackInfo, PackTable, joined};
use crate::repository::retention::State;
use crate::storage::layout;
use crate::vault::object::TAIL_LENGTH;
use crate::vault::{Class, ObjectOpener, OpenKeys, OpenMemory};

/// Name of the phase that reads packs.
const READING: &str = "reading packs";

/// No sealed object is smaller: header, key block, sealed table, tail.
pub(super) const SMALLEST: u64 = 18 + 32 + 16 + TAIL_LENGTH as u64;

/// A pack, what its manifest says of it, and who needs it.
struct Needed {
    info: Option<PackInfo>,
    by: By,
}

impl Check<'_> {
    /// Everything that the ledger names under `data/` and `meta/`, and what is there beyond that.
    pub(super) async fn objects(&mut self, deep: bool) -> Result<()> {
        let phase = self.phase("listing objects", None);
        let mut there: BTreeMap<String, u64> = BTreeMap::new();
        for prefix in [layout::packs(self.environment), layout::meta(self.environment, "")] {
            there.extend(self.repository.store.list(&prefix).await?.into_iter().map(|o| (o.key, o.size)));
        }
        self.ended(phase);

        let (data, meta) = (layout::packs(self.environment), layout::meta(self.environment, ""));
        let mut packs: BTreeMap<String, Needed> = BTreeMap::new();
        let mut metas: BTreeMap<String, By> = BTreeMap::new();
        for (key, by) in self.references() {
            if key.starts_with(&data) {
                packs.insert(key, Needed { info: None, by });
            } else if key.starts_with(&meta) {
                metas.insert(key, by);
            }
        }
        self.pieces(&mut packs).await?;
        // Those that entries name as theirs come first: they lead to the others, and say who needs them.
        let state = State::of(&self.entries);
        let living = state.living(&self.entries);
        let roots: BTreeSet<String> = living.filter_map(|e| self.root(&e.statement.predicate.body)).collect();
        let others = metas.keys().filter(|key| !roots.contains(*key)).cloned();
        let mut unread: VecDeque<String> = roots.iter().cloned().chain(others.collect::<Vec<_>>()).collect();
        let phase = self.phase("reading manifests", None);
        while let Some(key) = unread.pop_front() {
            let by = metas.get(&key).cloned().unwrap_or_default();
            if !self.present(&there, &key, &by) {
                continue;
            }
            self.checked.meta_objects += 1;
            match self.manifest(&key).await {
                Ok((listed, more)) => {
                    for info in listed {
                        let pack = layout::pack(self.environment, &info.sha256);
                        let needed = packs.entry(pack).or_insert_with(|| Needed { info: None, by: By::new() });
                        needed.by.extend(&by);
                        needed.info = Some(info);
                    }
                    for sha256 in more {
                        let other = layout::meta(self.environment, &sha256);
                        if !metas.contains_key(&other) {
                            unread.push_back(other.clone());
                        }
                        metas.entry(other).or_default().extend(&by);
                    }
                }
                Err(damage) => {
                    let affects = self.unrestorable(&by);
                    self.damage(&key, damage, affects)?;
                }
            }
        }
        self.ended(phase);

        for (key, size) in &there {
            if !packs.contains_key(key) && !metas.contains_key(key) {
                self.unreferenced.0 += 1;
                self.unreferenced.1 += size;
            }
        }
        let mut sound = Vec::new();
        for (key, needed) in packs {
            self.checked.packs += 1;
            if !self.present(&there, &key, &needed.by) {
                continue;
            }
            let size = there.get(&key).copied().unwrap_or_default();
            self.checked.pack_bytes += size;
            match &needed.info {
                Some(info) if info.size != size => {
                    let what = format!("has {size} bytes instead of {}", info.size);
                    let affects = self.unrestorable(&needed.by);
                    self.problem(&key, what, affects);
                }
                _ => sound.push((key, needed)),
            }
        }
        if deep {
            self.packs(sound).await?;
        }
        Ok(())
    }

    /// What filestore watchers stored since the last captures: whole, and with its packs.
    async fn pieces(&mut self, packs: &mut BTreeMap<String, Needed>) -> Result<()> {
        for object in self.repository.store.list(&layout::filestore_live(self.environment)).await? {
            // One that a capture has taken over meanwhile is in the ledger now.
            let Some(bytes) = self.repository.store.find(&object.key).await? else { continue };
            self.checked.meta_objects += 1;
            let read = match object.key.ends_with(&format!("-{}", hex::encode(Sha256::digest(&bytes)))) {
                true => self.named(&object.key, &bytes),
                false => Err(error::integrity("its bytes do not match its name")),
            };
            match read {
                Ok((listed, _)) => {
                    for info in listed {
                        let needed = Needed { info: Some(info.clone()), by: By::new() };
                        packs.entry(layout::pack(self.environment, &info.sha256)).or_insert(needed);
                    }
                }
                Err(damage) => {
                    let affects = "attachments that the watcher stored since the last capture; the next capture stores \
                                   those again that are still at the source";
                    self.damage(&object.key, damage, vec![affects.to_owned()])?;
                }
            }
        }
        Ok(())
    }

    /// Whether an object is listed, with a size that a sealed object can have.
    fn present(&mut self, there: &BTreeMap<String, u64>, key: &str, by: &By) -> bool {
        let what = match there.get(key) {
            None => "missing".to_owned(),
            Some(size) if *size < SMALLEST => format!("has only {size} bytes"),
            Some(_) => return true,
        };
        let affects = self.unrestorable(by);
        self.problem(key, what, affects);
        false
    }

    /// Reads a metadata object: hash, seals and lines; gives the packs and the other metadata objects
    /// that it refers to.
    async fn manifest(&self, key: &str) -> Result<(Vec<PackInfo>, Vec<String>)> {
        let sha256 = key.rsplit('/').next().unwrap_or_default();
        let base = self.entries.iter().find_map(|e| match &e.statement.predicate.body {
            Body::BaseBackup(base) if base.manifest == sha256 => Some(base),
            _ => None,
        });
        if let Some(base) = base {
            let manifest = BaseManifest::read(self.repository, self.environment, sha256).await?;
            consistent(&manifest, base)?;
            let packs = manifest.packs.packs().to_vec();
            // Sums of pages were committed by the backup that stored the pack, which may be gone.
            let sums: BTreeSet<String> = packs.iter().filter_map(|p| p.sums.clone()).collect();
            return Ok((packs, sums.into_iter().collect()));
        }
        let object = self.repository.get_named(key, sha256).await?;
        self.named(key, &object)
    }

    /// The packs and further metadata objects that the metadata object `object` refers to.
    fn named(&self, key: &str, object: &[u8]) -> Result<(Vec<PackInfo>, Vec<String>)> {
        // Every kind of metadata names packs as {"pack": …} and further objects as {"segment": {"sha256": …}}.
        let (mut packs, mut more) = (Vec::new(), Vec::new());
        meta::lines(self.repository, key, object, |line: serde_json::Value| {
            if let Some(pack) = line.get("pack").cloned() {
                let pack = serde_json::from_value::<PackInfo>(pack);
                packs.push(pack.or_err(ErrorKind::Integrity, || "a line about a pack does not parse".to_owned())?);
            }
            more.extend(line.pointer("/segment/sha256").and_then(|v| v.as_str()).map(str::to_owned));
            Ok(())
        })?;
        Ok((packs, more))
    }

    /// Reads packs whole.
    async fn packs(&mut self, packs: Vec<(String, Needed)>) -> Result<()> {
        let phase = self.phase(READING, Some(self.checked.pack_bytes));
        let (store, runtime) = (self.repository.store.clone(), self.runtime.clone());
        let keys = self.repository.can_read_data().then(|| self.repository.keys.clone());
        let mut read = futures::stream::iter(packs)
            .map(|(key, needed)| {
                let (store, keys, runtime) = (store.clone(), keys.clone(), runtime.clone());
                async move {
                    let outcome = async {
                        let bytes = store.get(&key).await?;
                        let size = bytes.len() as u64;
                        let (name, info) = (key.clone(), needed.info);
                        let judged = move || judge_pack(&name, &bytes, info.as_ref(), keys.as_ref());
                        let frames = joined(tokio::task::spawn_blocking(judged).await)?;
                        Ok((size, frames))
                    };
                    let outcome = outcome.await;
                    if let Ok((bytes, _)) = outcome {
                        runtime.emit(Event::Progress { phase: READING.into(), bytes });
                    }
                    (key, needed.by, outcome)
                }
            })
            .buffer_unordered(PARALLEL);
        while let Some((key, by, outcome)) = read.next().await {
            self.checked.packs_read += 1;
            match outcome {
                Ok((bytes, frames)) => {
                    self.checked.bytes_read += bytes;
                    self.checked.frames_opened += frames;
                }
                Err(damage) => {
                    let affects = self.unrestorable(&by);
                    self.damage(&key, damage, affects)?;
                }
            }
        }
        self.ended(phase);
        Ok(())
    }
}

/// A pack's name, and with keys its frames; tells how many were opened.
fn judge_pack(key: &str, bytes: &Bytes, info: Option<&PackInfo>, keys: Option<&OpenKeys>) -> Result<u64> {
    if !key.ends_with(&hex::encode(Sha256::digest(bytes))) {
        return Err(error::integrity(format!("{key} is damaged: its bytes do not match its name")));
    }
    let Some(keys) = keys else { return Ok(0) };
    let opener = ObjectOpener::new(Class::Pack, bytes, keys)?;
    let frames = match opener.table(bytes) {
        // Sealed for an epoch whose key is not at hand: its hash is all that can be told.
        Err(e) if e.kind() == ErrorKind::Denied => return Ok(0),
        other => other?,
    };
    if let Some(info) = info {
        let told = frames.iter().map(|f| (f.stored_len, f.plain_len, f.coding as u8));
        if !told.eq(info.frames.iter().copied()) || frames.first().is_some_and(|f| f.offset != info.first) {
            return Err(error::integrity("its frames are not those that the manifest lists"));
        }
    }
    let mut memory = OpenMemory::default();
    for (number, frame) in frames.iter().enumerate() {
        let stored = &bytes[frame.offset as usize..][..frame.stored_len as usize];
        opener
            .frame(number as u32, frame, stored, &mut memory)
            .map_err(|e| e.context(format_args!("frame {number}")))?;
    }
    Ok(frames.len() as u64)
}

/// Whether a manifest is the one of this backup, and its runs lie inside its files and its packs.
fn consistent(manifest: &BaseManifest, base: &BaseBackup) -> Result<()> {
    let header = &manifest.header;
    if header.id != base.id || header.start_lsn != base.start_lsn || header.system_id.to_string() != base.system_id {
        return Err(error::integrity(format!("the manifest is that of base backup {}", header.id)));
    }
    for file in &manifest.files {
        let mut covered = 0;
        for run in &file.runs {
            let end = run.file_offset.checked_add(run.length);
            if run.file_offset < covered || end.is_none_or(|end| end > file.size) || run.length == 0 {
                let what = format!("a run of {} at {} does not lie inside the file", run.length, run.file_offset);
                return Err(error::integrity(format!("{}: {what}", file.path)));
            }
            covered = run.file_offset + run.length;
            within(&manifest.packs, run.frame, u64::from(run.offset), run.length).map_err(|e| e.context(&file.path))?;
        }
    }
    Ok(())
}

/// Whether a run of `length` bytes from (`frame`, `offset`) on lies inside the packs.
fn within(packs: &PackTable, mut frame: u64, mut offset: u64, mut length: u64) -> Result<()> {
    loop {
        let plain = u64::from(packs.plain_len(frame)?);
        let here = plain.checked_sub(offset).filter(|here| *here > 0).ok_or_else(|| {
            error::integrity(format!("a run begins at {offset} in frame {frame}, which holds {plain} bytes"))
        })?;
        if length <= here {
            return Ok(());
        }
        length -= here;
        (frame, offset) = (frame + 1, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_must_lie_inside_the_frames() {
        let pack = |frames: &[u32]| PackInfo {
            sha256: String::new(),
            size: 1,
            first: 0,
            frames: frames.iter().map(|plain| (1, *plain, 0)).collect(),
            sums: None,
        };
        let packs = PackTable::new(vec![pack(&[100, 100]), pack(&[50])]);
        for (frame, offset, length, good) in [
            (0, 0, 250, true),
            (0, 0, 251, false),
            (1, 99, 51, true),
            (1, 100, 1, false),
            (2, 0, 50, true),
            (2, 1, 50, false),
            (3, 0, 1, false),
        ] {
            assert_eq!(within(&packs, frame, offset, length).is_ok(), good, "{frame} {offset} {length}");
        }
    }
}
