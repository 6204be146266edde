//! What a drill may take of its host: disk, memory, time. Held against what is known before, and watched while
//! it runs. Whatever takes too much is ended, and the drill fails with that reason.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::journal::Journal;
use super::processes;
use super::seal::Seal;
use crate::config::DrillConfig;
use crate::disk::failed;
use crate::error::{self, Error, Result};
use crate::runtime::blocking;
use crate::units::{ByteSize, Span};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// A look at all files takes time; at most this part of the drill's.
const SHARE: u32 = 20;
/// What a drill leaves free on its disk, whatever it may take: a hundredth, within these bounds.
const RESERVE: (u64, u64) = (16 << 20, 1 << 30);
/// What a private server and its judges need at least.
const LEAST_MEMORY: u64 = 384 << 20;

/// Limits of a drill; `None`: what the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes on disk, of everything that the drill makes.
    pub disk: Option<u64>,
    /// Bytes of memory, of all its processes together.
    pub memory: Option<u64>,
    /// From its beginning to its end.
    pub duration: Option<Duration>,
}

impl From<&DrillConfig> for Limits {
    fn from(config: &DrillConfig) -> Self {
        Self {
            disk: config.max_disk.map(|size| size.0),
            memory: config.max_memory.map(|size| size.0),
            duration: config.max_duration,
        }
    }
}

impl Limits {
    /// The limits that are set, for the record.
    pub fn words(&self) -> Vec<String> {
        let size = |name: &str, size: Option<u64>| size.map(|size| format!("{name}: {}", ByteSize(size)));
        let duration = self.duration.map(|most| format!("duration: {}", Span(most)));
        [size("disk", self.disk), size("memory", self.memory), duration].into_iter().flatten().collect()
    }

    /// Refuses a drill that cannot end within its limits, or for which the host has no room. `needed` is what is
    /// known of the space that it takes, below `parent`.
    ///
    /// # Errors
    /// Check failed: the drill would show only that it has no room.
    pub fn admit(&self, needed: u64, parent: &Path) -> Result<()> {
        let (free, reserve) = space(parent)?;
        if let Some(most) = self.disk.filter(|most| needed > *most) {
            return Err(error::check_failed(format!(
                "the restored copy takes at least {}, and `max_disk` is {}",
                ByteSize(needed),
                ByteSize(most)
            ))
            .hint("raise `max_disk` in [environment.drill]"));
        }
        if needed + reserve > free {
            return Err(error::check_failed(format!(
                "the restored copy takes at least {} in {}, and {} is free, of which {} must stay free",
                ByteSize(needed),
                parent.display(),
                ByteSize(free),
                ByteSize(reserve)
            ))
            .hint("free space, or let `work_dir` in [environment.drill] name another disk"));
        }
        if let Some(most) = self.memory {
            let available = available_memory().unwrap_or(u64::MAX);
            if most < LEAST_MEMORY {
                return Err(error::check_failed(format!(
                    "a drill takes at least {} of memory, and `max_memory` is {}",
                    ByteSize(LEAST_MEMORY),
                    ByteSize(most)
                ))
                .hint("raise `max_memory` in [environment.drill]"));
            }
            if most > available {
                return Err(error::check_failed(format!(
                    "the drill may take {} of memory, and this host has {} to give",
                    ByteSize(most),
                    ByteSize(available)
                ))
                .hint("run it when less runs on this host, or lower `max_memory` in [environment.drill]"));
            }
        }
        Ok(())
    }
}

/// Watches a running drill.
#[derive(Debug)]
pub struct Watch<'a> {
    limits: Limits,
    directories: Vec<PathBuf>,
    seal: &'a dyn Seal,
    journal: Arc<Journal>,
    began: Instant,
    reason: Mutex<Option<Error>>,
}

impl<'a> Watch<'a> {
    /// Over what is made in `directories` by Lifeboat and the programs behind `seal`, since `began`; `journal`
    /// tells the stage.
    pub fn new(
        limits: Limits,
        directories: Vec<PathBuf>,
        seal: &'a dyn Seal,
        journal: Arc<Journal>,
        began: Instant,
    ) -> Self {
        Self { limits, directories, seal, journal, began, reason: Mutex::new(None) }
    }

    /// Returns when a limit is exceeded, after the programs of the drill were ended.
    pub async fn until_exceeded(&self) {
        let mut next_count = Instant::now();
        loop {
            let stage = self.journal.stage_now();
            if let Some(reason) = self.look(&mut next_count).await {
                // Noted first: whoever waits for a program sees its end, and asks why.
                *self.reason.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(reason.context(format!("while {stage}")));
                // What does not end shows as residue.
                let _ = self.seal.end().await;
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks once more after a stage has failed: a disk that filled up between two looks is why, whatever the
    /// program said that met its end.
    pub async fn look_back(&self) {
        let found = self.look(&mut Instant::now()).await;
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if reason.is_none() {
            *reason = found.map(|found| found.context(format!("while {}", self.journal.stage_now())));
        }
    }

    /// Why the drill was ended, if it was.
    pub fn take_reason(&self) -> Option<Error> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn look(&self, next_count: &mut Instant) -> Option<Error> {
        if let Some(most) = self.limits.duration.filter(|most| self.began.elapsed() > *most) {
            return Some(exceeded(&format!("it took longer than {}", Span(most)), "max_duration"));
        }
        if let Some(most) = self.limits.memory {
            if self.seal.was_out_of_memory() {
                let what = format!("the kernel ended one of its processes, which together may take {}", ByteSize(most));
                return Some(exceeded(&what, "max_memory"));
            }
            let taken = processes::memory(&self.seal.processes());
            if taken > most {
                let what = format!("its processes took {} of memory, and may take {}", ByteSize(taken), ByteSize(most));
                return Some(exceeded(&what, "max_memory"));
            }
        }
        // A disk that cannot be asked has other troubles, which will show.
        if let Ok((free, reserve)) = space(self.directories.first()?)
            && free < reserve
        {
            let what =
                format!("only {} was left free on its disk, and {} must stay free", ByteSize(free), ByteSize(reserve));
            return Some(
                error::check_failed(format!("the drill was ended: {what}"))
                    .hint("free space, or let `work_dir` in [environment.drill] name another disk"),
            );
        }
        if let Some(most) = self.limits.disk.filter(|_| Instant::now() >= *next_count) {
            let (began, directories) = (Instant::now(), self.directories.clone());
            let taken = blocking(move || Ok(used(&directories))).await.unwrap_or(0);
            *next_count = Instant::now() + began.elapsed() * SHARE;
            if taken > most {
                let what = format!("it took {} of disk, and may take {}", ByteSize(taken), ByteSize(most));
                return Some(exceeded(&what, "max_disk"));
            }
        }
        None
    }
}

fn exceeded(what: &str, key: &str) -> Error {
    error::check_failed(format!("the drill was ended: {what} (`{key}`)"))
        .hint(format!("find out what takes so much, or raise `{key}` in [environment.drill]"))
}

/// Bytes on disk of everything below directories; of a file with several names once, and not of this program,
/// which is linked there.
fn used(directories: &[PathBuf]) -> u64 {
    let identity = |meta: &Metadata| (meta.dev(), meta.ino());
    let mut counted: HashSet<_> = std::fs::metadata("/proc/self/exe").iter().map(identity).collect();
    let entries = directories.iter().flat_map(walkdir::WalkDir::new).filter_map(std::result::Result::ok);
    let files = entries.filter_map(|entry| entry.metadata().ok());
    files
        .filter(|meta| meta.nlink() == 1 || meta.is_dir() || counted.insert(identity(meta)))
        .map(|m| m.blocks() * 512)
        .sum()
}

/// Bytes free to this account on the file system of `directory`, and those that must stay free.
fn space(directory: &Path) -> Result<(u64, u64)> {
    let stat =
        rustix::fs::statvfs(directory).map_err(|e| failed("cannot ask for the space of", directory, e.into()))?;
    let reserve = (stat.f_blocks * stat.f_frsize / 100).clamp(RESERVE.0, RESERVE.1);
    Ok((stat.f_bavail * stat.f_frsize, reserve))
}

fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::begun;
    use super::super::unsealed::Unsealed;
    use super::*;

    #[test]
    fn what_has_no_room_is_refused_before() {
        let folder = tempfile::tempdir().expect("dir");
        let refused = |limits: Limits, needed| limits.admit(needed, folder.path()).expect_err("refused").message();
        Limits::default().admit(1 << 20, folder.path()).expect("room");
        let small = Limits { disk: Some(1 << 20), ..Limits::default() };
        assert!(refused(small, 2 << 20).contains("max_disk"));
        small.admit(1 << 20, folder.path()).expect("fits exactly");
        assert!(refused(Limits::default(), u64::MAX / 2).contains("is free"));
        assert!(refused(Limits { memory: Some(1 << 50), ..Limits::default() }, 0).contains("this host has"));
        assert!(refused(Limits { memory: Some(1 << 20), ..Limits::default() }, 0).contains("at least"));
    }

    #[tokio::test]
    async fn who_takes_too_much_is_ended_with_the_reason() {
        let folder = tempfile::tempdir().expect("dir");
        let journal = Arc::new(Journal::begin(folder.path(), &begun("x")).expect("begun"));
        journal.stage("replaying WAL").expect("written");
        std::fs::write(folder.path().join("big"), vec![1; 3 << 20]).expect("written");
        for (limits, key) in [
            (Limits { disk: Some(2 << 20), ..Limits::default() }, "max_disk"),
            (Limits { memory: Some(1 << 12), ..Limits::default() }, "max_memory"),
            (Limits { duration: Some(Duration::ZERO), ..Limits::default() }, "max_duration"),
        ] {
            let mut sleeper =
                std::process::Command::new("sleep").arg("600").current_dir(folder.path()).spawn().expect("sleep");
            let waiting = std::thread::spawn(move || sleeper.wait());
            let seal = Unsealed::new(folder.path().to_owned(), None);
            let watch = Watch::new(limits, vec![folder.path().to_owned()], &seal, journal.clone(), Instant::now());
            watch.until_exceeded().await;
            let reason = watch.take_reason().expect("a reason").message();
            assert!(reason.starts_with("while replaying WAL: ") && reason.contains(key), "{reason}");
            waiting.join().expect("joined").expect("ended");
        }
    }
}
