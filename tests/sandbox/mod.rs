//! The sandbox of a drill: what every kind must hold (`contract`), limits, and what a killed Lifeboat leaves.

mod contract;
mod kills;
mod limits;

use std::path::Path;

use lifeboat::drill::sandbox::processes;

/// A process that works below `directory`, or has one of its directories mounted, is named.
#[track_caller]
fn assert_nobody_below(directory: &Path) {
    let entries: Vec<_> = std::fs::read_dir(directory).expect("a directory").flatten().collect();
    let mut places: Vec<_> = entries.iter().map(std::fs::DirEntry::path).collect();
    places.push(directory.to_owned());
    for place in places {
        assert_eq!(processes::working_in(&place), Vec::<u32>::new(), "somebody lives in {}", place.display());
    }
}
