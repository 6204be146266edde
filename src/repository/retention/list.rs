//! The list of a `retire` or `delete` entry: every object, and why each recovery point stays or goes. A metadata
//! object, sealed under the index key, named by the entry.
//!
//! ```text
//! {"retention": header} {"verdict": …}… {"object": [name below the environment, stored size]}…
//! ```

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::rules::Verdict;
use crate::error::{self, ErrorKind, Result};
use crate::repository::Repository;
use crate::repository::meta::{self, MetaObject, MetaWriter};

/// The format that this Lifeboat writes and reads.
const FORMAT: u32 = 1;

/// What the list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Of a `retire` entry.
    Retire,
    /// Of a `delete` entry.
    Delete,
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    phase: Phase,
    decided_at: DateTime<Utc>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Retention(Header),
    Verdict(&'a Verdict),
    Object(&'a str, u64),
}

/// The lines that carry something out; what is said about recovery points is for people.
#[derive(Debug, Default, Deserialize)]
struct Read {
    retention: Option<Header>,
    object: Option<(String, u64)>,
}

/// An object that goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    /// Its name below the environment: `data/…`, `meta/…`, `wal/…`, `wal-live/…`.
    pub(super) name: String,
    /// Its stored size in bytes.
    pub(super) size: u64,
}

/// Puts a list.
pub(super) async fn put(
    repository: &Repository,
    environment: &str,
    phase: Phase,
    decided_at: DateTime<Utc>,
    verdicts: &[Verdict],
    objects: &[Object],
) -> Result<MetaObject> {
    let mut writer = MetaWriter::new(repository)?;
    writer.line(&Line::Retention(Header { format: FORMAT, phase, decided_at }))?;
    for verdict in verdicts {
        writer.line(&Line::Verdict(verdict))?;
    }
    for object in objects {
        writer.line(&Line::Object(&object.name, object.size))?;
    }
    writer.put(repository, environment).await
}

/// Reads the objects of a list, in its order.
pub(super) async fn objects(
    repository: &Repository,
    environment: &str,
    sha256: &str,
    phase: Phase,
    mut each: impl FnMut(Object),
) -> Result<()> {
    let mut begun = false;
    meta::read(repository, environment, sha256, |line: Read| {
        if let Some(header) = line.retention {
            if header.format != FORMAT || header.phase != phase {
                return Err(error::integrity(format!("meta/{sha256} is not the list that its entry says"))
                    .meaning("nothing of it is deleted"));
            }
            begun = true;
        }
        match line.object {
            Some((name, size)) if begun && is_deletable(&name) => each(Object { name, size }),
            Some((name, _)) => {
                return Err(error::integrity(format!("meta/{sha256} names \"{name}\", which is never deleted"))
                    .meaning("nothing of it is deleted"));
            }
            None => {}
        }
        Ok(())
    })
    .await
}

/// The same for those who can go on without: whether the list is sound. Nobody deletes by one that is not, and what it
/// names is found by the next marking.
pub(super) async fn objects_where_sound(
    repository: &Repository,
    environment: &str,
    sha256: &str,
    phase: Phase,
    each: impl FnMut(Object),
) -> Result<bool> {
    match objects(repository, environment, sha256, phase, each).await {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::Integrity => Ok(false),
        Err(other) => Err(other),
    }
}

/// Whether retention may delete an object of this name at all: never the ledger, never keys.
pub(super) fn is_deletable(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let named = |s: &str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
    match parts.as_slice() {
        ["data" | "meta", name] => named(name),
        ["wal", _, file] => file.len() >= 24 && !file.ends_with(".history"),
        ["wal-live", _, _, _] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::repository_and_writer;

    #[test]
    fn the_ledger_keys_and_histories_are_never_deleted() {
        let sha = "a".repeat(64);
        for name in [
            format!("data/{sha}"),
            format!("meta/{sha}"),
            "wal/00000001/000000010000000000000002".into(),
            "wal/00000001/000000010000000000000002.00000028.backup".into(),
            "wal-live/00000001/000000010000000000000002/0000000000-0000000512".into(),
        ] {
            assert!(is_deletable(&name), "{name}");
        }
        for name in [
            "ledger/00000000000000000001.json",
            "ledger/checkpoint",
            "data/short",
            "../keys/1.age",
            "wal/00000002/00000002.history",
            "leases/wal/1",
            "data",
            "",
        ] {
            assert!(!is_deletable(name), "{name}");
        }
    }

    #[tokio::test]
    async fn what_was_listed_is_read_back_and_nothing_else() {
        let (_, writer) = repository_and_writer().await;
        let object = |n: u8, size| Object { name: format!("data/{}", format!("{n:02x}").repeat(32)), size };
        let all = [object(1, 5), object(2, 7)];
        let now = DateTime::UNIX_EPOCH;
        let put_as = |objects: Vec<Object>| {
            let writer = &writer;
            async move { put(writer, "e", Phase::Retire, now, &[], &objects).await.expect("put").sha256 }
        };
        let list = put_as(all.to_vec()).await;
        let mut found = Vec::new();
        objects(&writer, "e", &list, Phase::Retire, |o| found.push(o)).await.expect("read");
        assert_eq!(found, all);
        assert!(objects(&writer, "e", &list, Phase::Delete, |_| {}).await.is_err(), "another phase");
        let foul = put_as(vec![Object { name: "ledger/00000000000000000001.json".into(), size: 1 }]).await;
        let refused = objects(&writer, "e", &foul, Phase::Retire, |_| {}).await.expect_err("never");
        assert!(refused.message().contains("never deleted"), "{refused}");
    }
}
