//! Marking: which packs and metadata objects are needed by what stays.
//!
//! The listing of the store is held as 32 bytes of name, size and time for each object, and needed ones are marked in it:
//! half a million packs take some 30 MiB. Manifests are read one line at a time, and only what they refer to is kept.
//! What cannot be read ends the run: what it refers to would look unneeded.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::list::{self, Object, Phase};
use super::state::State;
use crate::error::{self, ErrorKind, Result};
use crate::evidence::{Body, LedgerEntry};
use crate::repository::Repository;
use crate::repository::meta;
use crate::storage::layout;

/// Manifests read at the same time.
const PARALLEL: usize = 4;

/// SHA-256 of an object's bytes, its name.
type Name = [u8; 32];

fn parse(sha256: &str) -> Option<Name> {
    let mut name = [0; 32];
    hex::decode_to_slice(sha256, &mut name).ok().map(|()| name)
}

#[derive(Debug, Clone, Copy)]
struct Listed {
    name: Name,
    size: u64,
    modified: DateTime<Utc>,
    needed: bool,
    /// In a list of a `retire` entry that waits to be carried out.
    waiting: bool,
}

/// The objects of one folder, by name.
#[derive(Debug)]
struct Folder {
    prefix: &'static str,
    objects: Vec<Listed>,
}

impl Folder {
    async fn list(repository: &Repository, environment: &str, prefix: &'static str) -> Result<Self> {
        let below = format!("{environment}/{prefix}/");
        let mut objects = repository
            .store
            .list_as(&below, None, |object| {
                let name = parse(object.key.strip_prefix(&below)?)?;
                Some(Listed { name, size: object.size, modified: object.modified, needed: false, waiting: false })
            })
            .await?;
        objects.sort_unstable_by_key(|o| o.name);
        Ok(Self { prefix, objects })
    }

    fn find(&mut self, name: &Name) -> Option<&mut Listed> {
        let at = self.objects.binary_search_by(|o| o.name.cmp(name)).ok()?;
        Some(&mut self.objects[at])
    }

    /// Marks an object; whether it is there, with the size that it must have.
    fn need(&mut self, name: &Name, size: Option<u64>) -> bool {
        self.find(name).is_some_and(|found| {
            found.needed = true;
            size.is_none_or(|size| size == found.size)
        })
    }

    fn name_of(&self, object: &Listed) -> String {
        format!("{}/{}", self.prefix, hex::encode(object.name))
    }
}

/// What a line of any metadata object refers to.
#[derive(Deserialize)]
struct Line {
    pack: Option<PackRef>,
    segment: Option<SegmentRef>,
}

#[derive(Deserialize)]
struct PackRef {
    sha256: String,
    size: u64,
    sums: Option<String>,
}

#[derive(Deserialize)]
struct SegmentRef {
    sha256: Option<String>,
}

/// What a metadata object refers to.
#[derive(Debug, Default)]
struct References {
    packs: Vec<(Name, u64)>,
    sums: BTreeSet<Name>,
    segments: Vec<String>,
}

impl References {
    fn of(repository: &Repository, key: &str, object: &[u8]) -> Result<Self> {
        let mut found = Self::default();
        let name =
            |sha256: &str| parse(sha256).ok_or_else(|| error::integrity(format!("{key} names no object: {sha256}")));
        meta::lines(repository, key, object, |line: Line| {
            if let Some(pack) = line.pack {
                found.packs.push((name(&pack.sha256)?, pack.size));
                found.sums.extend(pack.sums.as_deref().map(name).transpose()?);
            }
            found.segments.extend(line.segment.and_then(|s| s.sha256));
            Ok(())
        })?;
        Ok(found)
    }
}

/// The objects of an environment under `data/` and `meta/`, marked.
#[derive(Debug)]
pub(super) struct Marks {
    data: Folder,
    meta: Folder,
    /// Base backups that lack objects, by entry, and what they lack.
    pub(super) damaged: BTreeMap<u64, String>,
}

impl Marks {
    /// Marks what the backups need that `stays` tells to stay, and all that entries about anything else name.
    pub(super) async fn make(
        repository: &Repository,
        environment: &str,
        entries: &[LedgerEntry],
        state: &State,
        stays: impl Fn(u64) -> bool,
    ) -> Result<Self> {
        let mut marks = Self {
            data: Folder::list(repository, environment, "data").await?,
            meta: Folder::list(repository, environment, "meta").await?,
            damaged: BTreeMap::new(),
        };
        let staying: Vec<&LedgerEntry> = entries
            .iter()
            .filter(|e| root(e).is_none() || (stays(e.sequence) && !state.deleted.entries.contains(e.sequence)))
            .collect();
        let (data, meta) = (format!("{environment}/data/"), format!("{environment}/meta/"));
        for entry in &staying {
            for subject in &entry.statement.subject {
                if let Some(name) = subject.name.strip_prefix(&data).and_then(parse) {
                    marks.data.need(&name, None);
                } else if let Some(name) = subject.name.strip_prefix(&meta).and_then(parse) {
                    marks.meta.need(&name, None);
                }
            }
        }
        state.lists().into_iter().filter_map(parse).for_each(|name| {
            marks.meta.need(&name, None);
        });
        marks.follow(repository, environment, &staying).await?;
        marks.pieces(repository, environment).await?;
        for (_, retire) in &state.waiting {
            let each = |object| marks.waits(&object);
            list::objects_where_sound(repository, environment, &retire.list, Phase::Retire, each).await?;
        }
        Ok(marks)
    }

    /// Marks what the manifests and indexes of these entries refer to.
    async fn follow(&mut self, repository: &Repository, environment: &str, entries: &[&LedgerEntry]) -> Result<()> {
        let roots = entries.iter().filter_map(|e| Some((Some(e.sequence), root(e)?.to_owned())));
        let mut next: Vec<(Option<u64>, String)> = roots.collect();
        let mut seen: HashSet<String> = HashSet::new();
        while !next.is_empty() {
            let wave: Vec<_> =
                std::mem::take(&mut next).into_iter().filter(|(_, sha)| seen.insert(sha.clone())).collect();
            let mut reading = futures::stream::iter(wave)
                .map(|(entry, sha256)| async move {
                    let key = layout::meta(environment, &sha256);
                    let object = repository.get_named(&key, &sha256).await?;
                    Ok::<_, error::Error>((entry, sha256, References::of(repository, &key, &object)?))
                })
                .buffered(PARALLEL);
            while let Some((entry, sha256, found)) = reading.try_next().await.map_err(unreadable)? {
                if let Some(name) = parse(&sha256) {
                    self.meta.need(&name, None);
                }
                let missing = self.mark(&found);
                if let (Some(entry), Some(missing)) = (entry, missing) {
                    self.damaged.insert(entry, missing);
                }
                next.extend(found.segments.into_iter().map(|sha256| (entry, sha256)));
            }
        }
        Ok(())
    }

    /// Marks what one object refers to; the first thing that is missing, or has another size.
    fn mark(&mut self, found: &References) -> Option<String> {
        let mut missing = None;
        for (name, size) in &found.packs {
            if !self.data.need(name, Some(*size)) {
                missing.get_or_insert_with(|| format!("data/{} is missing or has another size", hex::encode(name)));
            }
        }
        for name in &found.sums {
            if !self.meta.need(name, None) {
                missing.get_or_insert_with(|| format!("meta/{} is missing", hex::encode(name)));
            }
        }
        missing
    }

    /// Marks what watchers stored since the last captures.
    async fn pieces(&mut self, repository: &Repository, environment: &str) -> Result<()> {
        for object in repository.store.list(&layout::filestore_live(environment)).await? {
            // One that is gone was taken over by a capture, which the ledger tells of.
            let Some(bytes) = repository.store.find(&object.key).await? else { continue };
            if !object.key.ends_with(&format!("-{}", hex::encode(Sha256::digest(&bytes)))) {
                return Err(unreadable(error::integrity(format!("{} is damaged", object.key))));
            }
            let found = References::of(repository, &object.key, &bytes).map_err(unreadable)?;
            self.mark(&found);
        }
        Ok(())
    }

    fn waits(&mut self, object: &Object) {
        let (folder, name) = match object.name.split_once('/') {
            Some(("data", name)) => (&mut self.data, name),
            Some(("meta", name)) => (&mut self.meta, name),
            _ => return,
        };
        if let Some(listed) = parse(name).as_ref().and_then(|name| folder.find(name)) {
            listed.waiting = true;
        }
    }

    /// Whether an object under `data/` or `meta/` is there, and whether something needs it; `None`: it is gone.
    pub(super) fn is_needed(&mut self, name: &str) -> Option<bool> {
        let (folder, name) = match name.split_once('/')? {
            ("data", name) => (&mut self.data, name),
            ("meta", name) => (&mut self.meta, name),
            _ => return None,
        };
        Some(folder.find(&parse(name)?)?.needed)
    }

    /// Objects that nothing needs, written before `old`, that no list names yet.
    pub(super) fn expendable(&self, old: DateTime<Utc>) -> Vec<Object> {
        let of = |folder: &Folder| {
            let objects = folder.objects.iter().filter(|o| !o.needed && !o.waiting && o.modified < old);
            objects.map(|o| Object { name: folder.name_of(o), size: o.size }).collect::<Vec<_>>()
        };
        [of(&self.data), of(&self.meta)].concat()
    }

    /// Names of the objects that something needs.
    pub(super) fn needed(&self) -> impl Iterator<Item = String> + '_ {
        let of = |folder: &'_ Folder| {
            folder.objects.iter().filter(|o| o.needed).map(|o| folder.name_of(o)).collect::<Vec<_>>()
        };
        of(&self.data).into_iter().chain(of(&self.meta))
    }
}

/// The metadata object that a backup begins with.
fn root(entry: &LedgerEntry) -> Option<&str> {
    match &entry.statement.predicate.body {
        Body::BaseBackup(base) => Some(&base.manifest),
        Body::FilestoreCapture(capture) => Some(&capture.index),
        Body::ConfigurationExport(export) => Some(&export.manifest),
        _ => None,
    }
}

fn unreadable(failure: error::Error) -> error::Error {
    match failure.kind() {
        ErrorKind::Integrity => failure
            .meaning("what it refers to cannot be told, so nothing is retired or deleted")
            .hint("put the object back from the bucket's object versions or a copy; `lifeboat verify` names all that is damaged"),
        _ => failure,
    }
}
