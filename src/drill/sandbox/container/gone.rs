//! The end of containers: by the names in the drill's journal and by the label in the engine, and then it is
//! looked whether they are gone. An engine that does not answer is a residue too: nobody knows what it still has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::engine::Engine;
use crate::drill::sandbox::journal::Contained;
use crate::error::Result;

/// Ends the name of the container that all others depend on.
const GATE: &str = "-gate";

/// What became of the containers of a drill.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::drill::sandbox) struct Gone {
    /// All that there may have been.
    pub(in crate::drill::sandbox) created: Vec<String>,
    /// What is still there, or may be.
    pub(in crate::drill::sandbox) residue: Vec<String>,
}

/// How long a container that was asked for may take to appear, when nobody knows whether it was made.
const MAKING: Duration = Duration::from_secs(15);
/// Between two looks for it.
const POLL: Duration = Duration::from_millis(250);

/// Waits for the last container of a journal, whose Lifeboat was killed while an engine was making it.
pub(in crate::drill::sandbox) async fn await_last(contained: &[Contained]) {
    let Some(last) = contained.last() else { return };
    let began = Instant::now();
    while began.elapsed() < MAKING {
        let Ok(engine) = Engine::connect(&last.engine).await else { return };
        match engine.container(&last.name).await {
            Ok(None) => tokio::time::sleep(POLL).await,
            // It is there, or nothing can be said of it.
            _ => return,
        }
    }
}

/// Removes every container of a drill from every engine that its journal names.
pub(in crate::drill::sandbox) async fn remove(drill: &str, contained: &[Contained]) -> Gone {
    let mut by_engine: BTreeMap<&PathBuf, BTreeSet<String>> = BTreeMap::new();
    for one in contained {
        // The journal is this account's own; even so nothing is removed but what a drill makes.
        if one.name.starts_with(&format!("lifeboat-{drill}-")) {
            by_engine.entry(&one.engine).or_default().insert(one.name.clone());
        }
    }
    let mut gone = Gone::default();
    for (socket, names) in by_engine {
        let mut all = names.clone();
        let left = at(socket, drill, &mut all).await;
        let word = |name: &String| format!("container {name} of the engine at {}", socket.display());
        gone.created.extend(all.iter().map(word));
        match left {
            Ok(left) => gone.residue.extend(left.iter().map(word)),
            Err(e) => gone.residue.extend(all.iter().map(|name| format!("{}: {}", word(name), e.message()))),
        }
    }
    gone
}

/// Removes the containers of one engine; those that are left. Adds to `names` what the label finds beside them.
async fn at(socket: &Path, drill: &str, names: &mut BTreeSet<String>) -> Result<Vec<String>> {
    let engine = Engine::connect(socket).await?;
    names.extend(engine.of_drill(drill).await?);
    // Others live in the namespaces of the gate, which engines do not remove before them.
    let (gates, others): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| name.ends_with(GATE));
    for name in others.into_iter().chain(gates) {
        // What cannot be removed is found below.
        let _ = engine.remove(name).await;
    }
    let mut left: BTreeSet<String> = engine.of_drill(drill).await?.into_iter().collect();
    for name in names.iter() {
        if engine.container(name).await?.is_some() {
            left.insert(name.clone());
        }
    }
    Ok(left.into_iter().collect())
}
