//! Cleaning up after a drill whose Lifeboat was killed. As a rule only directories and stopped containers are left:
//! the sandbox ended with its pipe or line. Whatever else is found is ended too, and what cannot be ended is named.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::journal::{Dead, PREFIX};
use super::place::{self, SHORT_PREFIX};
use super::{container, processes};
use crate::error::Result;
use crate::evidence::drill_record::Cleanup;

/// The stage in which sandboxes are made.
pub(in crate::drill) const MAKING: &str = "provisioning";

/// Where the sinkhole of a dead drill wrote what the copy tried to reach. To be read before it is cleaned up.
pub fn egress_log(dead: &Dead) -> Option<PathBuf> {
    let root = format!("{PREFIX}{}", dead.begun.id);
    dead.directories
        .iter()
        .find(|dir| dir.file_name().is_some_and(|name| *name == *root))
        .map(|dir| place::egress_log(dir))
}

/// Ends the processes of a dead drill, removes what it made, and looks whether it is gone.
pub async fn clean(dead: &Dead, now: DateTime<Utc>) -> Result<Cleanup> {
    // The journal is this account's own; even so nothing is removed but what a drill makes.
    let named = |name: &str| [PREFIX, SHORT_PREFIX].iter().any(|prefix| name == format!("{prefix}{}", dead.begun.id));
    let ours = dead.directories.iter().filter(|dir| dir.file_name().and_then(|n| n.to_str()).is_some_and(named));
    let directories: Vec<_> = ours.cloned().collect();
    if dead.stage == MAKING {
        container::gone::await_last(&dead.contained).await;
    }
    for directory in &directories {
        // Who does not end shows as residue.
        let _ = processes::end(|| processes::working_in(directory)).await;
    }
    place::destroy(&dead.begun.id, &directories, &dead.contained, now).await
}

#[cfg(test)]
mod tests {
    use super::super::journal::{Journal, dead, tests::begun};
    use super::*;

    #[tokio::test]
    async fn the_dead_are_ended_and_nothing_else_is_touched() {
        let parent = tempfile::tempdir().expect("dir");
        let journal = Journal::begin(parent.path(), &begun("x")).expect("begun");
        let (made, foreign) = (parent.path().join("lifeboat-drill-x"), parent.path().join("precious"));
        for directory in [&made, &foreign] {
            journal.make_dir(directory).expect("made");
        }
        drop(journal);
        let mut child = std::process::Command::new("sleep").arg("600").current_dir(&made).spawn().expect("sleep");
        let waiting = std::thread::spawn(move || child.wait());
        let found = dead(parent.path()).expect("looked");
        let cleanup = clean(&found[0], Utc::now()).await.expect("cleaned");
        assert_eq!((cleanup.residue.len(), &cleanup.destroyed), (0, &vec![made.display().to_string()]));
        assert!(!waiting.join().expect("joined").expect("waited").success());
        assert!(!made.exists() && foreign.exists());
    }
}
