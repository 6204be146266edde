//! Directories that need not be listed again, because nothing in them can have changed.
//!
//! Odoo never writes into a file that is there, so all that can happen in a directory is that names come
//! and go, and both change its times. A directory whose identity and times are those of its last listing
//! holds the names of that listing. This is believed only where it is safe:
//!
//! * the change time counts too, which nobody can set: times restored by `cp -a` or `rsync` do not deceive;
//! * a directory that was touched shortly before it was listed gets no stamp: a later change could bear the
//!   same time, as the clocks of file systems tick slowly;
//! * neither does one that holds a file which was not stored (damaged, or not Odoo's): it is looked at each time;
//! * on file systems of this host only: the times of others come from other clocks and through caches;
//! * all directories are listed once a day whatever the stamps say, and when the clock went back.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// A directory that was touched this shortly before it was listed gets no stamp.
const MARGIN: TimeDelta = TimeDelta::seconds(2);

/// Stamps are believed this long after all directories were listed.
const BELIEVED: TimeDelta = TimeDelta::hours(24);

/// A directory as it was when it was listed: name, device, inode, time of change of content and of itself
/// in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(pub(super) String, u64, u64, i64, i64);

impl Stamp {
    /// The stamp of the directory `name` at `path`.
    pub(super) fn of(name: &str, path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        let time = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        let (changed, itself) = (time(found.mtime(), found.mtime_nsec()), time(found.ctime(), found.ctime_nsec()));
        Ok(Self(name.to_owned(), found.dev(), found.ino(), changed, itself))
    }

    /// Whether it was left alone for long enough when it was listed, at `listed`.
    pub(super) fn is_settled(&self, listed: DateTime<Utc>) -> bool {
        let before = (listed - MARGIN).timestamp_nanos_opt().unwrap_or(i64::MIN);
        self.3 < before && self.4 < before
    }
}

/// Whether stamps count now, when all directories were listed last at `listed_at`.
pub(super) fn believed(listed_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    listed_at.is_some_and(|at| at <= now && now - at < BELIEVED)
}

/// Whether the directory lies on a file system whose times this host makes.
pub(super) fn is_local(directory: &Path) -> bool {
    /// ext2 to ext4, XFS, Btrfs, tmpfs, overlay, ZFS, F2FS, bcachefs.
    const LOCAL: [u32; 8] =
        [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1, 0xF2F5_2010, 0xCA45_1A4E];
    rustix::fs::statfs(directory).is_ok_and(|found| LOCAL.contains(&(found.f_type as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_settled_after_the_margin_and_changes_with_the_content() {
        let dir = tempfile::tempdir().expect("temp dir");
        let stamp = Stamp::of("ab", dir.path()).expect("there");
        let now = Utc::now();
        assert!(!stamp.is_settled(now));
        assert!(stamp.is_settled(now + TimeDelta::seconds(3)));
        assert_eq!(Stamp::of("ab", dir.path()).expect("there"), stamp);
        // The times of the directory itself come from a clock that ticks every few milliseconds.
        let touched = (0..10_000).find(|n| {
            std::fs::write(dir.path().join(n.to_string()), "").expect("written");
            Stamp::of("ab", dir.path()).expect("there") != stamp
        });
        assert!(touched.is_some(), "a new name did not change the stamp");
        let times = std::fs::File::open(dir.path()).expect("open");
        let before = Stamp::of("ab", dir.path()).expect("there");
        std::fs::write(dir.path().join("late"), "").expect("written");
        times.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(before.3 as u64)).expect("set");
        let after = Stamp::of("ab", dir.path()).expect("there");
        assert_eq!(after.3, before.3, "the time of content was put back");
        assert!(after.4 >= before.4);
    }

    #[test]
    fn stamps_are_believed_for_a_day_and_not_from_the_future() {
        let now = Utc::now();
        assert!(!believed(None, now));
        assert!(believed(Some(now), now) && believed(Some(now - TimeDelta::hours(23)), now));
        assert!(!believed(Some(now - TimeDelta::hours(24)), now));
        assert!(!believed(Some(now + TimeDelta::seconds(1)), now), "the clock went back");
    }
}
