//! The WAL archive: holes and what they cost, ranges that the ledger recorded, history files; in a
//! deep run every file.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::objects::SMALLEST;
use super::{Check, PARALLEL, WalJudge};
use crate::error::{self, ErrorKind, Result};
use crate::event::Event;
use crate::evidence::Body;
use crate::evidence::bodies::wal_digest;
use crate::evidence::entry::WalRange;
use crate::repository::coverage::{Coverage, Gap};
use crate::repository::packs::joined;
use crate::repository::wal_archive::WalArchive;
use crate::storage::layout;
use crate::units::{Lsn, Timeline};
use crate::vault::index_key::IndexKey;
use crate::vault::{Class, ObjectOpener, OpenKeys, Tail};
use crate::wal_name::{SegmentName, WalFileName, segment_name};

/// Name of the phase that reads WAL.
const READING: &str = "reading WAL";

/// Memory that WAL being read may take.
const MEMORY: u64 = 64 << 20;

/// Stored size and, in a deep run, SHA-256 of a WAL file.
type Stored = (u64, Option<[u8; 32]>);

impl Check<'_> {
    /// The WAL archive.
    pub(super) async fn wal(&mut self, judge: Option<&mut dyn WalJudge>) -> Result<()> {
        let archive = WalArchive::new(self.repository, self.environment);
        let mut files: Vec<(WalFileName, String, u64)> = Vec::new();
        if let Some(wal) = self.catalogue.as_ref().and_then(|c| c.wal.clone()) {
            for timeline in wal.timelines.keys() {
                for (name, size) in archive.list(*timeline).await? {
                    if self.is_given_up(&name, wal.segment_size) {
                        continue;
                    }
                    let key = layout::wal_file(self.environment, *timeline, &name.to_string());
                    if size < SMALLEST {
                        let affects = self.needing_file(&wal, &name);
                        self.problem(&key, format!("has only {size} bytes"), affects);
                    }
                    files.push((name, key, size));
                }
            }
            self.checked.wal_files = files.len() as u64;
            self.checked.wal_bytes = files.iter().map(|f| f.2).sum();
            self.holes(&wal);
            self.histories(&wal);
        } else {
            self.incomplete_bases();
        }
        let mut stored: BTreeMap<String, Stored> =
            files.iter().map(|(name, _, size)| (name.to_string(), (*size, None))).collect();
        if let Some(judge) = judge
            && let Some(wal) = self.catalogue.as_ref().and_then(|c| c.wal.clone())
        {
            self.read_all(&wal, files, judge, &mut stored).await?;
            self.read_pieces(&wal, archive).await?;
        }
        self.ranges(&stored);
        Ok(())
    }

    /// Whether retention gave up a WAL file: it may be there still, or not.
    fn is_given_up(&self, name: &WalFileName, size: u64) -> bool {
        let (WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupHistory { segment, .. }) = name
        else {
            return false;
        };
        let number = segment.number(size).ok();
        self.catalogue.iter().zip(number).any(|(c, number)| c.retention.gave_up(segment.timeline, number))
    }

    /// Base backups whose own WAL is not complete.
    fn incomplete_bases(&mut self) {
        for reach in self.reaches.clone() {
            if let (Some(why), Some(missing)) = (reach.broken, reach.missing) {
                let key = layout::wal_file(self.environment, reach.stop.timeline, &missing);
                let affects = vec![format!("base backup {} cannot be restored: {why}", reach.id)];
                self.problem(&key, format!("missing WAL segment {missing}"), affects);
            }
        }
    }

    /// Segments that are missing where something needs them.
    fn holes(&mut self, wal: &Coverage) {
        self.incomplete_bases();
        let oldest = self.bases().map(|b| b.1).min();
        let mut gaps: Vec<Gap> = self.reaches.iter().filter_map(|r| r.gap.clone()).chain(wal.gaps()).collect();
        let retired = gaps.iter().filter(|g| g.retired).map(|g| g.segments).sum::<u64>();
        if retired > 0 {
            self.notes.push("between some recovery points WAL was given up by retention; that is no damage".to_owned());
        }
        gaps.retain(|g| !g.retired);
        gaps.sort_by(|a, b| (a.from, &a.first).cmp(&(b.from, &b.first)));
        gaps.dedup();
        for gap in gaps {
            let which = match gap.segments {
                1 => format!("missing WAL segment {}", gap.first),
                n => format!("missing WAL segments {} to {} ({n})", gap.first, gap.last),
            };
            if oldest.is_none_or(|start| gap.to <= start) {
                self.notes.push(format!("{which}: older than every base backup, so nothing needs it"));
                continue;
            }
            let key = layout::wal_file(self.environment, gap.timeline, &gap.first);
            let affects = self.needing(gap.timeline, gap.from, gap.to, &format!("{} to {}", gap.from, gap.to));
            if self.never_archived(&gap, wal.segment_size) && !affects.iter().any(|a| a.contains("cannot be restored"))
            {
                self.notes.push(format!(
                    "no WAL was archived from {} to {}: nothing in between can be restored to; keep `lifeboat wal \
                     receive` running",
                    gap.from, gap.to
                ));
                continue;
            }
            // A base that cannot be restored for want of this very segment has named it already.
            self.problems.retain(|p| !(p.object == key && p.what == format!("missing WAL segment {}", gap.first)));
            self.problem(&key, format!("{which} makes {} to {} unreachable", gap.from, gap.to), affects);
        }
    }

    /// Whether the segments of a gap were missing already when the ledger recorded what follows them:
    /// between base backups without a receiver there is no WAL. That is no damage of the repository.
    fn never_archived(&self, gap: &Gap, size: u64) -> bool {
        let number = |name: &str| name.parse::<SegmentName>().and_then(|n| n.number(size)).ok();
        let (first, next) = (number(&gap.first), gap.to.segment(size));
        let recorded = |wanted: u64| {
            self.entries.iter().any(|e| match &e.statement.predicate.body {
                Body::WalRange(range) => {
                    number(&range.first).is_some_and(|n| n <= wanted)
                        && number(&range.last).is_some_and(|n| wanted <= n)
                }
                _ => false,
            })
        };
        recorded(next) && first.is_some_and(|first| !(first..next).any(recorded))
    }

    /// (id, start) of the base backups.
    fn bases(&self) -> impl Iterator<Item = (&str, Lsn)> {
        self.catalogue.iter().flat_map(|c| c.bases()).map(|b| (b.id.as_str(), b.start_lsn))
    }

    /// What cannot be restored without WAL `from` to `to`, which people know as `words`.
    fn needing(&self, timeline: Timeline, from: Lsn, to: Lsn, words: &str) -> Vec<String> {
        let mut affected = Vec::new();
        let Some(catalogue) = &self.catalogue else { return affected };
        for (base, reach) in catalogue.bases().zip(&self.reaches) {
            let on_line = catalogue.wal.as_ref().is_some_and(|wal| {
                let line = wal.line(reach.line);
                line.iter().any(|leg| leg.timeline == timeline && leg.to.is_none_or(|end| from < end))
            });
            let reached = reach.end.map_or(base.start_lsn, |(end, _)| end);
            if !on_line || base.start_lsn >= to || reached < from {
                continue;
            }
            affected.push(match from < base.stop_lsn {
                true => format!("base backup {} cannot be restored: it needs {words}", base.id),
                false => format!("from base backup {} nothing behind {from} can be reached", base.id),
            });
        }
        affected
    }

    fn needing_file(&self, wal: &Coverage, name: &WalFileName) -> Vec<String> {
        match name {
            WalFileName::Segment(segment) => {
                let Ok(start) = segment.start(wal.segment_size) else { return Vec::new() };
                let end = Lsn(start.0 + wal.segment_size);
                self.needing(segment.timeline, start, end, &segment.to_string())
            }
            WalFileName::History { timeline } => {
                vec![format!("timeline {} cannot be reached from backups of older timelines", timeline.0)]
            }
            WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => Vec::new(),
        }
    }

    /// A later timeline is reached from an older base only by its history file.
    fn histories(&mut self, wal: &Coverage) {
        for (timeline, files) in &wal.timelines {
            if timeline.0 == 1 || !files.ancestors.is_empty() {
                continue;
            }
            let name = WalFileName::History { timeline: *timeline };
            let key = layout::wal_file(self.environment, *timeline, &name.to_string());
            let older: Vec<String> = self
                .catalogue
                .iter()
                .flat_map(|c| c.bases())
                .filter(|b| b.timeline < *timeline)
                .map(|b| format!("from base backup {} timeline {} cannot be reached", b.id, timeline.0))
                .collect();
            match older.is_empty() {
                true => self.notes.push(format!("{key} is not archived; no base backup is older than its timeline")),
                false => self.problem(&key, "missing or unreadable history file", older),
            }
        }
    }

    /// What the ledger recorded about ranges of WAL, held against what is there.
    fn ranges(&mut self, stored: &BTreeMap<String, Stored>) {
        let ranges: Vec<WalRange> = self
            .entries
            .iter()
            .filter_map(|e| match &e.statement.predicate.body {
                Body::WalRange(range) => Some(range.clone()),
                _ => None,
            })
            .collect();
        let Some(size) = self.catalogue.as_ref().and_then(|c| c.wal.as_ref()).map(|w| w.segment_size) else { return };
        let mut reported = BTreeSet::new();
        for range in ranges {
            let label = format!("WAL {} to {}", range.first, range.last);
            let number = |name: &str| name.parse::<SegmentName>().and_then(|n| n.number(size));
            let (Ok(first), Ok(last)) = (number(&range.first), number(&range.last)) else { continue };
            let gave_up = |n: u64| self.catalogue.iter().any(|c| c.retention.gave_up(range.timeline, n));
            let all = last.saturating_sub(first) + 1;
            let kept: Vec<u64> = (first..=last).filter(|n| !gave_up(*n)).collect();
            // The digest is over all of them: where some were given up, the others are only looked for.
            let whole = kept.len() as u64 == all;
            let names: Vec<String> = kept.into_iter().map(|n| segment_name(range.timeline, n, size)).collect();
            let missing: Vec<&String> = names.iter().filter(|name| !stored.contains_key(*name)).collect();
            for name in &missing {
                let key = layout::wal_file(self.environment, range.timeline, name);
                let known = self.problems.iter().any(|p| p.object == key || p.what.contains(name.as_str()));
                if !known && reported.insert(key.clone()) {
                    self.problem(&key, format!("missing WAL segment {name}, which the ledger recorded"), Vec::new());
                }
            }
            if !missing.is_empty() || !whole {
                continue;
            }
            let objects: Vec<(&str, u64, Option<[u8; 32]>)> =
                names.iter().filter_map(|n| stored.get(n).map(|(size, sha)| (n.as_str(), *size, *sha))).collect();
            let bytes: u64 = objects.iter().map(|o| o.1).sum();
            let key = layout::wal_file(self.environment, range.timeline, &range.first);
            if bytes != range.stored_bytes {
                let what = format!("{label}: {bytes} bytes are stored, the ledger recorded {}", range.stored_bytes);
                self.problem(&key, what, vec![format!("a segment of {label} was cut short or replaced")]);
            } else if let Some(hashed) =
                objects.iter().map(|o| Some((o.0, o.1, hex::encode(o.2?)))).collect::<Option<Vec<_>>>()
                && wal_digest(hashed.iter().map(|(n, s, h)| (*n, *s, h.as_str()))) != range.digest
            {
                let what = format!("{label}: the stored bytes are not those that the ledger recorded");
                self.problem(&key, what, vec![format!("a segment of {label} was replaced")]);
            }
        }
    }

    /// Reads every complete file.
    async fn read_all(
        &mut self,
        wal: &Coverage,
        files: Vec<(WalFileName, String, u64)>,
        judge: &mut dyn WalJudge,
        stored: &mut BTreeMap<String, Stored>,
    ) -> Result<()> {
        let phase = self.phase(READING, Some(self.checked.wal_bytes));
        let system_id =
            self.catalogue.iter().flat_map(|c| c.bases()).next_back().and_then(|b| b.system_id.parse().ok());
        judge.expect(system_id, wal.segment_size);
        let parallel = (MEMORY / wal.segment_size).clamp(1, PARALLEL as u64) as usize;
        let (store, keys) = (self.repository.store.clone(), self.repository.keys.clone());
        let opens = self.repository.can_read_data();
        let mut reading = futures::stream::iter(files)
            .map(|(name, key, _)| {
                let (store, keys) = (store.clone(), keys.clone());
                async move {
                    let opened = async {
                        let bytes = store.get(&key).await?;
                        let open = move || {
                            let sha256: [u8; 32] = Sha256::digest(&bytes).into();
                            (bytes.len() as u64, sha256, open(Class::Wal, &bytes, &keys, opens))
                        };
                        joined(tokio::task::spawn_blocking(move || Ok(open())).await)
                    };
                    let opened = opened.await;
                    (name, key, opened)
                }
            })
            .buffered(parallel);
        while let Some((name, key, read)) = reading.next().await {
            let judged = match read {
                Ok((size, sha256, content)) => {
                    self.runtime.emit(Event::Progress { phase: READING.into(), bytes: size });
                    self.checked.wal_read += 1;
                    self.checked.bytes_read += size;
                    stored.insert(name.to_string(), (size, Some(sha256)));
                    match content {
                        Ok(Some((frames, content))) => {
                            self.checked.frames_opened += frames;
                            judge.judge(&name, &content)
                        }
                        other => other.map(drop),
                    }
                }
                Err(gone) => Err(gone),
            };
            if let Err(damage) = judged {
                let affects = self.needing_file(wal, &name);
                self.damage(&key, damage, affects)?;
            }
        }
        self.ended(phase);
        Ok(())
    }

    /// Reads the pieces of segments that are still being written.
    async fn read_pieces(&mut self, wal: &Coverage, archive: WalArchive<'_>) -> Result<()> {
        let opens = self.repository.can_read_data();
        for (timeline, files) in &wal.timelines {
            for number in files.live.keys() {
                let segment = SegmentName::new(*timeline, *number, wal.segment_size);
                for piece in archive.pieces(&segment).await? {
                    // A piece that vanished was merged into another or into the complete segment.
                    let Some(bytes) = self.repository.store.find(&piece.key).await? else { continue };
                    self.checked.wal_read += 1;
                    self.checked.bytes_read += bytes.len() as u64;
                    if let Err(damage) = open(Class::WalPiece, &bytes, &self.repository.keys, opens) {
                        let start = Lsn(number * wal.segment_size + piece.offset);
                        let end = Lsn(number * wal.segment_size + piece.end);
                        let affects = self.needing(*timeline, start, end, &format!("{start} to {end}"));
                        self.damage(&piece.key, damage, affects)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Opens a stored WAL object as far as the keys at hand go: its summary always, its content with a
/// recovery identity. Gives the number of frames and the content.
fn open(class: Class, bytes: &[u8], keys: &OpenKeys, opens: bool) -> Result<Option<(u64, Vec<u8>)>> {
    let opener = ObjectOpener::new(class, bytes, keys)?;
    let tail = Tail::parse(bytes)?;
    if tail.summary_len > 0 {
        let to = bytes.len() - crate::vault::object::TAIL_LENGTH;
        let from = to.checked_sub(tail.summary_len as usize);
        let sealed = from.map(|from| &bytes[from..to]).ok_or_else(|| error::integrity("it is truncated"))?;
        opener.summary(sealed)?;
    }
    if !opens {
        return Ok(None);
    }
    let content = match opener.whole(bytes) {
        // Sealed for an epoch whose key is not at hand.
        Err(e) if e.kind() == ErrorKind::Denied => return Ok(None),
        other => other?,
    };
    if digest(&keys.index, &content) != tail.mac {
        return Err(error::integrity("its content is not what its keyed digest was made of"));
    }
    Ok(Some((opener.table(bytes)?.len() as u64, content)))
}

fn digest(index: &IndexKey, content: &[u8]) -> crate::vault::index_key::ContentMac {
    let mut mac = index.content_mac();
    mac.update(content);
    mac.finish()
}
