//! Which blocks each WAL segment changes, kept in the host's state directory: a cache that lets the next
//! base backup read only what changed.
//!
//! It promises: what a file says is complete for the positions that the file says it covers, or the
//! file is not read at all. Nothing else is promised: a file may be missing, damaged or older than the
//! WAL, and then the backup looks at every page instead. So nothing here ever fails the archiving of
//! WAL; what goes wrong is told once as a warning.
//!
//! ```text
//! <state_dir>/blocks/<environment>/<timeline>/<segment>
//! ```
//!
//! `stretch` is the format, `keeper` writes while WAL passes, [`ChangedBlocks`](super::changed_blocks)
//! reads. Files are replaced as a whole, and not flushed: a file lost in a crash is only a scan.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::wal::{SegmentName, WalFileName};
use crate::event::Event;
use crate::repository::StateDir;
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};

mod keeper;
mod stretch;

pub(super) use keeper::Keeper;
pub(super) use stretch::Stretch;

/// No more files are kept for an environment.
const MOST_FILES: usize = 50_000;

/// No more bytes are kept for an environment.
const MOST_BYTES: u64 = 1 << 30;

/// The limits are looked after once in so many segments.
const LOOK_EVERY: u64 = 64;

/// The files of one environment.
#[derive(Debug, Clone)]
pub struct BlockFiles {
    directory: PathBuf,
    runtime: Runtime,
    warned: Arc<AtomicBool>,
}

impl BlockFiles {
    /// Those of `environment` in a host's state directory; there need not be any.
    pub fn new(state: &StateDir, environment: &str, runtime: &Runtime) -> Self {
        let directory = state.path().join("blocks").join(environment);
        Self { directory, runtime: runtime.clone(), warned: Arc::default() }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    fn file(&self, segment: &SegmentName) -> PathBuf {
        self.directory.join(segment.timeline.to_string()).join(segment.to_string())
    }

    /// What is kept of a segment; `Err` says why nothing can be used.
    pub(super) fn read(&self, segment: &SegmentName) -> Result<Stretch, String> {
        let path = self.file(segment);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => format!("the changed blocks of {segment} are not kept"),
            _ => format!("cannot read {}: {e}", path.display()),
        })?;
        let stretch = Stretch::decode(&bytes).ok_or_else(|| format!("{} is damaged", path.display()))?;
        if stretch.segment().is_none_or(|own| own != *segment) {
            return Err(format!("{} is that of another segment", path.display()));
        }
        Ok(stretch)
    }

    /// The record that goes on where `segment` begins, as far as the segment before has it.
    pub(super) fn before(&self, system_id: u64, segment: &SegmentName, segment_size: u64) -> Option<Stretch> {
        let number = segment.number(segment_size).ok()?.checked_sub(1)?;
        let timelines = fs::read_dir(&self.directory).ok()?;
        let mut timelines: Vec<Timeline> = timelines
            .filter_map(|entry| u32::from_str_radix(entry.ok()?.file_name().to_str()?, 16).ok().map(Timeline))
            .filter(|timeline| *timeline <= segment.timeline)
            .collect();
        timelines.sort_unstable();
        let stretch = timelines
            .iter()
            .rev()
            .find_map(|timeline| self.read(&SegmentName::new(*timeline, number, segment_size)).ok())?;
        (stretch.system_id == system_id && stretch.segment_size == segment_size).then_some(stretch)
    }

    /// Keeps what is known of a segment, in place of what was known before.
    pub(super) fn write(&self, stretch: &Stretch) {
        let Some(segment) = stretch.segment() else { return };
        let path = self.file(&segment);
        let temporary = path.with_extension("new");
        let bytes = stretch.encode();
        let directory = path.parent().expect("it lies in a timeline's directory");
        let written = match fs::write(&temporary, &bytes) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(directory).and_then(|()| fs::write(&temporary, &bytes))
            }
            written => written,
        };
        if let Err(e) = written.and_then(|()| fs::rename(&temporary, &path)) {
            // What was kept before of this segment covers less, but nothing wrong.
            self.warn(format_args!("cannot write {}: {e}", path.display()));
        }
    }

    /// Like [`BlockFiles::write`], for a segment that is complete; keeps the number of files bounded.
    pub(super) fn complete(&self, stretch: &Stretch) {
        self.write(stretch);
        if stretch.number().is_some_and(|number| number.is_multiple_of(LOOK_EVERY)) {
            self.bound(MOST_FILES, MOST_BYTES);
        }
    }

    /// Removes what no backup needs that follows one which started at `before`.
    pub fn prune(&self, before: Lsn, segment_size: u64) {
        for (segment, path) in self.list() {
            if segment.start(segment_size).is_ok_and(|start| start.0 + segment_size <= before.0) {
                self.remove(&path);
            }
        }
    }

    /// Removes the oldest files until there are at most so many and they are at most so large.
    fn bound(&self, files: usize, bytes: u64) {
        let mut listed = self.list();
        // By position: whichever timeline it is on, the oldest is needed least.
        listed.sort_unstable_by_key(|(s, _)| (s.log, s.segment, s.timeline));
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |m| m.len());
        let mut total: u64 = listed.iter().map(|(_, path)| size(path)).sum();
        let mut left = listed.len();
        for (_, path) in listed {
            if left <= files && total <= bytes {
                return;
            }
            total = total.saturating_sub(size(&path));
            left -= 1;
            self.remove(&path);
        }
    }

    /// All files, also such that were not finished.
    fn list(&self) -> Vec<(SegmentName, PathBuf)> {
        let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
        entries(&self.directory)
            .flat_map(|timeline| entries(&timeline))
            .filter_map(|path| match path.file_stem()?.to_str()?.parse() {
                Ok(WalFileName::Segment(segment)) => Some((segment, path)),
                _ => None,
            })
            .collect()
    }

    fn remove(&self, path: &Path) {
        if let Err(e) = fs::remove_file(path).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
        {
            self.warn(format_args!("cannot remove {}: {e}", path.display()));
        }
    }

    fn warn(&self, what: std::fmt::Arguments<'_>) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            self.runtime.emit(Event::Warning(format!(
                "{what}; WAL is archived all the same, but the next base backup may have to look at every page"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::postgres::wal::BlockMap;

    const SIZE: u64 = 16 << 20;

    fn files(folder: &Path) -> (BlockFiles, Arc<Mutex<Vec<String>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let runtime = Runtime::new(move |event| sink.lock().expect("sound").push(format!("{event:?}")));
        (BlockFiles::new(&StateDir::new(folder), "production", &runtime), told)
    }

    fn stretch(timeline: u32, number: u64) -> Stretch {
        Stretch {
            system_id: 7,
            timeline: Timeline(timeline),
            segment_size: SIZE,
            at: Lsn(number * SIZE),
            start: Lsn(number * SIZE),
            end: Lsn((number + 1) * SIZE),
            map: BlockMap::default(),
            unfinished: None,
        }
    }

    fn kept(files: &BlockFiles) -> Vec<String> {
        let mut names: Vec<String> = files.list().iter().map(|(segment, _)| segment.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_is_found_again() {
        let folder = tempfile::tempdir().expect("dir");
        let (files, told) = files(folder.path());
        assert!(files.read(&SegmentName::new(Timeline(1), 300, SIZE)).expect_err("none").contains("not kept"));
        files.write(&stretch(1, 300));
        let name = "00000001000000010000002C";
        assert!(folder.path().join("blocks/production/00000001").join(name).exists());
        assert_eq!(files.read(&SegmentName::new(Timeline(1), 300, SIZE)), Ok(stretch(1, 300)));
        let next = SegmentName::new(Timeline(2), 301, SIZE);
        assert_eq!(files.before(7, &next, SIZE), Some(stretch(1, 300)));
        assert_eq!(files.before(8, &next, SIZE), None, "another cluster");
        fs::rename(files.path().join("00000001").join(name), files.path().join("00000001/00000001000000010000002D"))
            .expect("renamed");
        assert!(files.read(&SegmentName::new(Timeline(1), 301, SIZE)).expect_err("moved").contains("another segment"));
        assert!(told.lock().expect("sound").is_empty());
    }

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().expect("dir");
        let (files, _) = files(folder.path());
        files.write(&stretch(1, 3));
        let name = SegmentName::new(Timeline(1), 3, SIZE);
        assert!(files.read(&name).is_ok());
        let sound = fs::read(files.file(&name)).expect("written");
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 4;
            fs::write(files.file(&name), &damaged).expect("written");
            assert!(files.read(&name).is_err(), "bit flipped in byte {at}");
            fs::write(files.file(&name), &sound[..at]).expect("written");
            assert!(files.read(&name).is_err(), "cut at byte {at}");
        }
    }

    #[test]
    fn old_files_are_removed() {
        let folder = tempfile::tempdir().expect("dir");
        let (files, _) = files(folder.path());
        for (timeline, number) in [(1, 255), (1, 256), (1, 257), (2, 256), (2, 257), (2, 258)] {
            files.write(&stretch(timeline, number));
        }
        fs::write(files.path().join("00000001/0000000100000000000000FF.new"), "half").expect("written");
        files.prune(Lsn(256 * SIZE + 5), SIZE);
        assert_eq!(kept(&files).len(), 5, "{:?}", kept(&files));
        files.bound(3, u64::MAX);
        let names = ["000000010000000100000001", "000000020000000100000001", "000000020000000100000002"];
        assert_eq!(kept(&files), names);
        let one = fs::metadata(files.list()[0].1.as_path()).expect("there").len();
        files.bound(100, one * 2);
        assert_eq!(kept(&files), names[1..]);
    }

    #[test]
    fn a_failing_disk_is_told_once_and_is_no_error() {
        let folder = tempfile::tempdir().expect("dir");
        let (files, told) = files(folder.path());
        fs::create_dir_all(files.path().parent().expect("blocks")).expect("made");
        fs::write(files.path(), "a file in the way").expect("written");
        files.write(&stretch(1, 1));
        files.complete(&stretch(1, 64));
        let told = told.lock().expect("sound");
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("archived all the same"), "{told:?}");
    }
}
