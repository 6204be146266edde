//! A wall clock of the program's own, which a test sets ahead and back while the program runs. The machine's is left alone,
//! and so is the clock that only counts, as it is where somebody sets a machine's clock.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use super::lifeboat::Lifeboat;
use super::scratch::Scratch;

/// The clock of whatever runs [`Clock::under`] it, and of its children.
#[derive(Debug)]
pub(crate) struct Clock {
    library: PathBuf,
    path: PathBuf,
    offset: File,
}

impl Clock {
    /// A clock that is right; `None` where there is no C compiler, or the program asks the kernel without libc.
    pub(crate) fn new(scratch: &Scratch) -> Option<Self> {
        let (library, path) = (scratch.join("clock.so"), scratch.join("clock.offset"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/clock.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        let linked = Command::new("ldd").arg(Lifeboat::program()).output().ok()?;
        if !built.is_ok_and(|status| status.success()) || !String::from_utf8_lossy(&linked.stdout).contains("libc.so") {
            return None;
        }
        let offset = File::create(&path).expect("a file");
        let clock = Self { library, path, offset };
        clock.set(0);
        Some(clock)
    }

    /// The program, with this clock.
    pub(crate) fn under(&self, lifeboat: &Lifeboat) -> Lifeboat {
        let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
        lifeboat.clone().env("LD_PRELOAD", text(&self.library)).env("LIFEBOAT_TEST_CLOCK", text(&self.path))
    }

    /// Sets it to so many seconds from the machine's.
    pub(crate) fn set(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).expect("a file");
    }
}
