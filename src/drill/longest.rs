//! How much WAL a restore replays at worst: just before a base backup is complete, recovery still
//! starts from the one before. Pure.

use crate::evidence::entry::BaseBackup;
use crate::repository::window::Window;
use crate::units::{Lsn, Timeline};

/// The longest replay from one base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The base backup that recovery starts from.
    pub base: String,
    /// The timeline that it follows.
    pub line: Timeline,
    /// The last position before the next base backup can be used, or the end of the WAL.
    pub until: Lsn,
    /// Bytes of WAL from the base backup's start.
    pub bytes: u64,
    /// Whether no base backup ended it yet.
    pub still_growing: bool,
}

/// For each base backup that can be restored the longest replay from it, in the order of the windows.
pub fn replays<'a>(windows: &[Window], bases: impl IntoIterator<Item = &'a BaseBackup>) -> Vec<Replay> {
    let bases: Vec<&BaseBackup> = bases.into_iter().collect();
    let newest = windows.iter().max_by_key(|w| (w.to.time, w.line));
    let mut replays = Vec::new();
    for window in windows {
        let mut here: Vec<&BaseBackup> = bases.iter().copied().filter(|b| window.bases.contains(&b.id)).collect();
        here.sort_by_key(|base| base.stop_lsn);
        for (place, base) in here.iter().enumerate() {
            let next = here.get(place + 1).map(|next| next.stop_lsn);
            // One byte before: at its stop itself, recovery starts from the next.
            let until = next.map_or(window.to.lsn, |stop| Lsn(stop.0.saturating_sub(1)));
            replays.push(Replay {
                base: base.id.clone(),
                line: window.line,
                until,
                bytes: until.0.saturating_sub(base.start_lsn.0),
                still_growing: next.is_none() && Some(window) == newest,
            });
        }
    }
    replays
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::evidence::{Body, examples};
    use crate::repository::window::Point;

    fn base(id: &str, start: u64, stop: u64) -> BaseBackup {
        let Some(Body::BaseBackup(base)) = examples::backups().into_iter().next() else { panic!("a base backup") };
        BaseBackup { id: id.into(), start_lsn: Lsn(start), stop_lsn: Lsn(stop), ..base }
    }

    fn window(from: u64, to: u64, second: i64, bases: &[&str]) -> Window {
        let point = |lsn| Point {
            timeline: Timeline(1),
            lsn: Lsn(lsn),
            time: DateTime::from_timestamp(second, 0).expect("a time"),
        };
        Window {
            from: point(from),
            to: point(to),
            last_commit: None,
            bases: bases.iter().map(|b| (*b).to_owned()).collect(),
            line: Timeline(1),
            ended_by: None,
        }
    }

    #[test]
    fn the_longest_replay_ends_just_before_the_next_base_backup_is_complete() {
        let bases = [base("a", 100, 150), base("b", 400, 480), base("c", 1000, 1100)];
        let windows = [window(150, 600, 10, &["a", "b"]), window(1100, 1300, 20, &["c"])];
        let told: Vec<_> =
            replays(&windows, &bases).into_iter().map(|r| (r.base, r.until.0, r.bytes, r.still_growing)).collect();
        let expected = [("a", 479, 379, false), ("b", 600, 200, false), ("c", 1300, 300, true)]
            .map(|(b, u, n, g)| (b.to_owned(), u, n, g));
        assert_eq!(told, expected);
        assert!(replays(&[], &bases).is_empty());
    }
}
