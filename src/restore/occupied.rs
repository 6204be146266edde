//! What may lie in the directories that a delta restore writes over: this cluster, stopped.
//!
//! [`admit`] refuses anything else: other files, another cluster, a cluster that holds transactions which the
//! repository lacks. The last two yield to `--force`, the first never. [`refuse_running`] refuses where a server
//! works in a directory that is to be written to; nothing overrides that.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::disk::failed;
use crate::error::{self, Error, Result};
use crate::postgres::control_file::ControlFile;
use crate::postgres::wal::{TimelineHistory, WalFileName, WalReader};
use crate::repository::coverage::Coverage;
use crate::units::{Lsn, Timeline};

/// Accepts an absent or empty directory and a data directory of the cluster `system_id` whose transactions are all in
/// the repository; with `force` any data directory.
pub(super) fn admit(pgdata: &Path, system_id: u64, wal: Option<&Coverage>, force: bool) -> Result<()> {
    let entries = match std::fs::read_dir(pgdata) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(error::usage(format!("cannot look into {}", pgdata.display())).source(e)),
    };
    if !entries {
        return Ok(());
    }
    if !pgdata.join("PG_VERSION").is_file() || !pgdata.join("global").is_dir() {
        return Err(error::usage(format!("{} holds something else than a PostgreSQL cluster", pgdata.display()))
            .meaning("nothing was touched: --delta removes what does not belong to the backup")
            .hint("name the data directory itself (it holds PG_VERSION), or an empty or absent directory"));
    }
    if force {
        return Ok(());
    }
    let control = match std::fs::read(pgdata.join("global/pg_control")).map(|bytes| ControlFile::parse(&bytes)) {
        Ok(Ok(control)) => control,
        Ok(Err(e)) => return Err(unknown(pgdata, e)),
        Err(e) => return Err(unknown(pgdata, e)),
    };
    if control.system_identifier != system_id {
        return Err(error::usage(format!(
            "{} holds another cluster (system identifier {}) than the backup ({system_id})",
            pgdata.display(),
            control.system_identifier
        ))
        .meaning("nothing was touched")
        .hint("check --pgdata; `--force` gives the other cluster up and puts the backup in its place"));
    }
    match only_here(pgdata, &control, wal)? {
        None => Ok(()),
        Some(lost) => Err(error::usage(format!(
            "{} holds {} transaction(s) that the repository lacks, behind {} on timeline {}{}",
            pgdata.display(),
            lost.commits,
            lost.behind,
            lost.timeline.0,
            lost.last.map(|t| format!("; the last is of {}", t.format("%Y-%m-%d %H:%M:%S UTC"))).unwrap_or_default()
        ))
        .meaning("nothing was touched; a delta restore empties pg_wal, and they would be gone for good")
        .hint("keep them: start that server once more while `lifeboat wal receive` runs, so that they arrive; or copy the directory away")
        .hint("or restore into another directory, and decide in the morning")
        .hint("`--force` gives them up")),
    }
}

fn unknown(pgdata: &Path, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    error::usage(format!("cannot tell whose cluster lies in {}: global/pg_control is not readable", pgdata.display()))
        .source(e)
        .meaning("nothing was touched")
        .hint("`--force` gives up what lies there and puts the backup in its place")
}

/// Transactions that stand in `pg_wal` and not in the repository.
#[derive(Debug, PartialEq, Eq)]
struct OnlyHere {
    timeline: Timeline,
    behind: Lsn,
    commits: u64,
    last: Option<DateTime<Utc>>,
}

/// Reads the WAL of the stopped cluster from where the archive ends. What it cannot read does not count: it
/// is the end of WAL, or was there before and is recycled.
fn only_here(pgdata: &Path, control: &ControlFile, wal: Option<&Coverage>) -> Result<Option<OnlyHere>> {
    let (timeline, size) = (control.timeline(), control.wal_segment_size);
    let folder = pgdata.join("pg_wal");
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        if let Ok(WalFileName::Segment(name)) = entry.file_name().to_string_lossy().parse()
            && name.timeline == timeline
        {
            numbers.insert(name.number(size)?);
        }
    }
    let behind = archived_to(&folder, timeline, wal);
    let Some(&first) = numbers.range(behind.segment(size)..).next() else { return Ok(None) };
    let mut reader = WalReader::new(size, Lsn(first * size), Some(control.system_identifier))?;
    let mut lost = OnlyHere { timeline, behind, commits: 0, last: None };
    for number in (first..).take_while(|number| numbers.contains(number)) {
        let path = folder.join(crate::wal_name::segment_name(timeline, number, size));
        let bytes = std::fs::read(&path).map_err(|e| failed("cannot read", &path, e))?;
        let read = reader.feed(&bytes, |record| {
            if let Some(time) = record.kind.commit_time().filter(|_| record.end > behind) {
                lost.commits += 1;
                lost.last = Some(time);
            }
        });
        // Not WAL any more: a recycled segment, or what a crash left.
        if read.is_err() {
            break;
        }
    }
    Ok((lost.commits > 0).then_some(lost))
}

/// Up to where the repository has this timeline: WAL behind that is only here.
fn archived_to(folder: &Path, timeline: Timeline, wal: Option<&Coverage>) -> Lsn {
    if let Some((known, size)) = wal.and_then(|wal| Some((wal.timelines.get(&timeline)?, wal.segment_size))) {
        let complete = known.segments.last().map_or(0, |last| (last + 1) * size);
        let live = known.live.last_key_value().map_or(0, |(number, covered)| number * size + covered);
        if complete.max(live) > 0 {
            return Lsn(complete.max(live));
        }
    }
    // A timeline that was never archived is this copy's own from where it forked.
    let history = std::fs::read_to_string(folder.join(format!("{timeline}.history"))).unwrap_or_default();
    let history = TimelineHistory::parse(timeline, &history);
    history.ok().and_then(|h| h.ancestors().last().map(|a| a.switch)).unwrap_or_default()
}

/// Refuses where a server works in the data directory, or another one in one of the tablespaces' places.
pub(super) fn refuse_running(pgdata: &Path, tablespaces: &[PathBuf]) -> Result<()> {
    let place = |path: &Path| std::fs::metadata(path).ok().map(|about| (about.dev(), about.ino()));
    let Some(data) = place(pgdata) else { return Ok(()) };
    if let Some(pid) = postmaster(pgdata, data) {
        return Err(running(pgdata, pid));
    }
    let spaces: HashSet<(u64, u64)> = tablespaces.iter().filter_map(|path| place(path)).collect();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
        if !matches!(name.trim(), "postgres" | "postmaster") {
            continue;
        }
        // A server works in its data directory; a place is the same by its inode, whatever its path.
        let cwd = process.path().join("cwd");
        if place(&cwd) == Some(data) {
            return Err(running(pgdata, pid));
        }
        for link in std::fs::read_dir(cwd.join("pg_tblspc")).into_iter().flatten().flatten() {
            if place(&link.path()).is_some_and(|place| spaces.contains(&place)) {
                let of = std::fs::read_link(&cwd).unwrap_or_default();
                let at = std::fs::read_link(link.path()).unwrap_or_default();
                return Err(error::usage(format!(
                    "the server {pid} in {} uses the tablespace {}",
                    of.display(),
                    at.display()
                ))
                .meaning("nothing was touched; two clusters cannot share a tablespace")
                .hint("send it elsewhere with `--tablespace-mapping OLD=NEW`, or stop that server first"));
            }
        }
    }
    Ok(())
}

/// The live process that `postmaster.pid` names. One that works elsewhere has only got the number of a dead server.
fn postmaster(pgdata: &Path, data: (u64, u64)) -> Option<i32> {
    let text = std::fs::read_to_string(pgdata.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse::<i32>().ok().filter(|pid| *pid > 0)?;
    let alive = !matches!(kill(Pid::from_raw(pid), None), Err(nix::errno::Errno::ESRCH));
    let elsewhere = std::fs::metadata(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| (cwd.dev(), cwd.ino()) != data);
    (alive && !elsewhere).then_some(pid)
}

fn running(pgdata: &Path, pid: i32) -> Error {
    error::usage(format!("a PostgreSQL server (process {pid}) runs in {}", pgdata.display()))
        .meaning("nothing was touched; its data is as it was")
        .hint("stop it with its service manager (`systemctl stop postgresql@…`, `pg_ctlcluster … stop`), then run the same command again")
}
