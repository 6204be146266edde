//! What the database refers to, held against what a capture has.
//!
//! Read in one snapshot that is taken *after* the scan, so it refers to every file that the restore
//! point needs and perhaps to some that came later. A file that is referred to, not stored and not on
//! disk is asked for once more, because Odoo may have dropped the reference and collected the file
//! meanwhile; what is then still referred to is missing at the source.
//!
//! Every reference is looked up at every capture. With a million of them that must be quick, so the server
//! sends the bare names in the order in which it finds them, and only for names that are in trouble it is
//! asked which attachment needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::TryStreamExt;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::Example;
use super::index::{Index, Record};
use super::name::FileName;
use super::referenced::{Reference, among};
use super::tenants::Tenant;
use super::uncovered::elsewhere;
use crate::error::{self, Result};
use crate::evidence::entry::NotCovered;
use crate::postgres::sql::explain;
use crate::runtime::blocking;

/// More missing or damaged files than this are no longer named one by one: nothing is captured then.
pub(super) const MAX_NAMED: usize = 100_000;

/// What the database's references say about a capture.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Files that the database refers to.
    pub(super) referenced: u64,
    /// Flawed files that it refers to, with one attachment each.
    pub(super) flawed: BTreeMap<FileName, Example>,
    /// References that are no names of files, and files that the source does not have.
    pub(super) odd: Vec<Reference>,
    /// Files that it refers to, and that neither the source nor the repository has.
    pub(super) missing: Vec<Reference>,
    /// Files that the source lost and the repository still has.
    pub(super) lost_at_source: Vec<Reference>,
    /// Files that it referred to, and that were collected before they could be read.
    pub(super) collected: u64,
    /// Attachments that are kept elsewhere.
    pub(super) not_covered: Vec<NotCovered>,
}

/// Whether the database refers to any file at all.
pub(super) async fn any(client: &Client) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT FROM public.ir_attachment WHERE store_fname ~ '^[0-9a-f]{2,3}/[0-9a-f]{40}$')";
    let row = client.query_one(query, &[]).await.map_err(|e| explain(e, "cannot look at the attachments"))?;
    Ok(row.get(0))
}

/// Holds the references against `index` and the `flawed` files (sorted).
pub(super) async fn hold(client: &mut Client, index: &Index, flawed: &[FileName], tenant: &Tenant) -> Result<Held> {
    let Sorted { mut held, unknown, gone } = sort(client, index, flawed, tenant).await?;
    let unknown = absent(unknown, &tenant.directory()).await?;
    let gone = absent(gone, &tenant.directory()).await?;
    let asked = unknown.len();
    let still = still_referenced(client, unknown).await?;
    held.collected = (asked - still.len()) as u64;
    held.missing = absent(still, &tenant.directory()).await?;
    held.lost_at_source = still_referenced(client, gone).await?;
    Ok(held)
}

/// The references of one snapshot, sorted by what the index says.
struct Sorted {
    held: Held,
    /// Neither stored nor flawed.
    unknown: Vec<Reference>,
    /// Stored, and not seen by the scan.
    gone: Vec<Reference>,
}

async fn sort(client: &mut Client, index: &Index, flawed: &[FileName], tenant: &Tenant) -> Result<Sorted> {
    let snapshot = snapshot(client).await?;
    let mut names = Names::new(&index.records);
    let copy = "COPY (SELECT store_fname FROM public.ir_attachment WHERE store_fname IS NOT NULL) TO STDOUT";
    let broke = |e| explain(e, "cannot read which files the attachments refer to");
    let mut rows = std::pin::pin!(snapshot.copy_out(copy).await.map_err(broke)?);
    while let Some(row) = rows.try_next().await.map_err(broke)? {
        row.split(|b| *b == b'\n').filter(|line| !line.is_empty()).for_each(|line| names.take(line));
        if names.trouble.len() > MAX_NAMED {
            return Err(too_many(tenant));
        }
    }
    let mut held = Held { referenced: names.distinct(), not_covered: elsewhere(&snapshot).await?, ..Held::default() };
    if names.foreign > 0 {
        let storage = "unknown".to_owned();
        held.not_covered.push(NotCovered { storage, attachments: names.foreign, bytes: 0, place: None });
    }
    let mut sorted = Sorted { held, unknown: Vec::new(), gone: Vec::new() };
    let wanted: Vec<&str> = names.trouble.iter().chain(&names.gone).map(String::as_str).collect();
    if wanted.is_empty() {
        return Ok(sorted);
    }
    for reference in among(&snapshot, &wanted).await? {
        let Some(name) = reference.name else {
            sorted.held.odd.push(reference);
            continue;
        };
        match index.find(&name) {
            Some(_) => sorted.gone.push(reference),
            None if flawed.binary_search(&name).is_ok() => drop(sorted.held.flawed.insert(name, reference.example)),
            None => sorted.unknown.push(reference),
        }
    }
    Ok(sorted)
}

/// The names that a database refers to, as they come.
struct Names<'a> {
    records: &'a [Record],
    /// Where the names with each first two bytes begin.
    starts: Vec<u32>,
    /// One bit for each record: referred to.
    seen: Vec<u64>,
    /// Names that are not in the index, or that no file can have.
    trouble: BTreeSet<String>,
    /// Names in the index that the scan did not see. A filestore that was lost as a whole makes this long; a
    /// part is enough for a warning.
    gone: BTreeSet<String>,
    /// References that are neither names of files nor those of another storage.
    foreign: u64,
}

impl<'a> Names<'a> {
    fn new(records: &'a [Record]) -> Self {
        let mut starts = vec![0; (1 << 16) + 1];
        for record in records {
            starts[usize::from(prefix(&record.name)) + 1] += 1;
        }
        (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
        let seen = vec![0; records.len().div_ceil(64)];
        Self { records, starts, seen, trouble: BTreeSet::new(), gone: BTreeSet::new(), foreign: 0 }
    }

    fn take(&mut self, line: &[u8]) {
        let text = std::str::from_utf8(line).unwrap_or_default();
        let Some((directory, file)) = text.split_once('/') else {
            self.foreign += 1;
            return;
        };
        let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !(matches!(directory.len(), 2 | 3) && file.len() == 40 && hex(directory) && hex(file)) {
            self.foreign += u64::from(!text.contains("://"));
            return;
        }
        let found = FileName::in_directory(directory, file).map(|name| (name, self.position(&name)));
        match found {
            Some((_, Some(at))) => {
                self.seen[at / 64] |= 1 << (at % 64);
                if self.records[at].last_seen().is_some() && self.gone.len() < MAX_NAMED {
                    self.gone.insert(text.to_owned());
                }
            }
            _ => drop(self.trouble.insert(text.to_owned())),
        }
    }

    fn position(&self, name: &FileName) -> Option<usize> {
        let prefix = usize::from(prefix(name));
        let (from, to) = (self.starts[prefix] as usize, self.starts[prefix + 1] as usize);
        self.records[from..to].binary_search_by(|r| r.name.cmp(name)).ok().map(|at| from + at)
    }

    /// How many different files there are.
    fn distinct(&self) -> u64 {
        self.seen.iter().map(|bits| u64::from(bits.count_ones())).sum::<u64>() + self.trouble.len() as u64
    }
}

fn prefix(name: &FileName) -> u16 {
    let sha1 = name.sha1();
    u16::from_be_bytes([sha1[0], sha1[1]])
}

async fn snapshot(client: &mut Client) -> Result<Transaction<'_>> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    builder.start().await.map_err(|e| explain(e, "cannot begin to read the attachments"))
}
/// Those whose file is not on disk now.
async fn absent(references: Vec<Reference>, directory: &Path) -> Result<Vec<Reference>> {
    if references.is_empty() {
        return Ok(references);
    }
    let directory = directory.to_owned();
    let look = move || {
        let there = |r: &Reference| directory.join(&r.store_fname).symlink_metadata().is_ok();
        Ok(references.into_iter().filter(|r| !there(r)).collect())
    };
    blocking(look).await
}

/// Those that a new snapshot still refers to.
async fn still_referenced(client: &Client, references: Vec<Reference>) -> Result<Vec<Reference>> {
    if references.is_empty() {
        return Ok(references);
    }
    let names: Vec<&str> = references.iter().map(|r| r.store_fname.as_str()).collect();
    let query = "SELECT DISTINCT store_fname FROM public.ir_attachment WHERE store_fname = ANY ($1)";
    let rows = client.query(query, &[&names]).await.map_err(|e| explain(e, "cannot ask again for missing files"))?;
    let still: std::collections::HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(references.into_iter().filter(|r| still.contains(&r.store_fname)).collect())
}

pub(super) fn too_many(tenant: &Tenant) -> error::Error {
    error::source(format!(
        "database {} refers to more than {MAX_NAMED} files that are missing or damaged in {}",
        tenant.database,
        tenant.directory().display()
    ))
    .meaning("this is not the filestore of this database, or most of it is lost; nothing was captured")
    .hint("check `[[environment.odoo]] data_dir`, that the file system is mounted, and that Lifeboat may read it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_counted_once_and_told_apart() {
        let name = |n: u8, last: u8| {
            let mut sha1 = [n; 20];
            sha1[19] = last;
            FileName::new(sha1)
        };
        let record = |name| Record::new(name, 1, 0, 0, 1).expect("small");
        let mut records: Vec<Record> = (0..=255).flat_map(|n| [name(n, 1), name(n, 7)]).map(record).collect();
        records.sort_unstable_by_key(|r| r.name);
        let lost = records[30].name;
        records[30] = records[30].gone(std::num::NonZeroU32::new(9));
        let mut names = Names::new(&records);
        for record in &records {
            names.take(record.name.to_string().as_bytes());
            names.take(record.name.to_string().as_bytes());
        }
        assert_eq!((names.distinct(), names.trouble.len()), (512, 0));
        assert_eq!(names.gone, BTreeSet::from([lost.to_string()]));
        let odd = format!("ab/{}", "cd".repeat(20));
        for line in [odd.as_str(), &odd, &name(9, 9).to_string(), "s3://bucket/key", "readme.txt", "a/b"] {
            names.take(line.as_bytes());
        }
        assert_eq!(names.trouble, BTreeSet::from([odd, name(9, 9).to_string()]));
        assert_eq!((names.distinct(), names.foreign), (514, 2));
    }
}
