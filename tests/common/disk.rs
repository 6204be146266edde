//! A disk that fills up.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::scratch::{Scratch, own};

/// A small file system of its own; only root can make one.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One at `name`; `None` where it cannot be made.
    pub(crate) fn new(scratch: &Scratch, name: &str, mib: u32) -> Option<Self> {
        let place = scratch.server_dir(name);
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0755"), "tmpfs"])
            .arg(&place)
            .stderr(std::process::Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return None;
        }
        own(&place);
        Some(Self(place))
    }

    /// Makes it larger.
    pub(crate) fn grow(&self, mib: u32) {
        let status = Command::new("mount").args(["-o", &format!("remount,size={mib}m")]).arg(&self.0).status();
        assert!(status.expect("mount").success());
    }

    /// A path on it; nothing is made.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes all of its room; it is free again once the file is removed.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.join("filling");
        let mut file = File::create(&path).expect("a file");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
