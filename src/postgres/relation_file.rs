//! Which relation a file of the data directory belongs to, told by its path (`relpath.c`).

use std::path::{Component, Path};

use super::wal::{Fork, RelationFork};

/// Number of the tablespace that is `base/`.
const PG_DEFAULT: u32 = 1663;
/// Number of the tablespace that is `global/`.
const PG_GLOBAL: u32 = 1664;

/// A segment file of a fork of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    /// The fork.
    pub fork: RelationFork,
    /// Number of the segment file: 0 for the one without a suffix, 1 for `.1`.
    pub number: u32,
}

impl RelationFile {
    /// The relation file at `path`, relative to the data directory; none for every other file, also for
    /// those of temporary relations.
    pub fn at(path: &Path) -> Option<Self> {
        let parts = path.components().map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        });
        let parts: Vec<&str> = parts.collect::<Option<_>>()?;
        let (tablespace, database, name) = match parts[..] {
            ["global", name] => (PG_GLOBAL, 0, name),
            ["base", database, name] => (PG_DEFAULT, number(database)?, name),
            ["pg_tblspc", tablespace, version, database, name] if version.starts_with("PG_") => {
                (number(tablespace)?, number(database)?, name)
            }
            _ => return None,
        };
        let (name, segment) = match name.split_once('.') {
            Some((name, segment)) => (name, number(segment).filter(|n| *n > 0)?),
            None => (name, 0),
        };
        let (relation, fork) = match name.split_once('_') {
            None => (name, Fork::Main),
            Some((relation, "fsm")) => (relation, Fork::FreeSpaceMap),
            Some((relation, "vm")) => (relation, Fork::VisibilityMap),
            Some((relation, "init")) => (relation, Fork::Init),
            Some(_) => return None,
        };
        let fork = RelationFork { tablespace, database, relation: number(relation).filter(|n| *n > 0)?, fork };
        Some(Self { fork, number: segment })
    }
}

/// A number as PostgreSQL writes it: digits only, no zero in front.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_relations() {
        let at = |path: &str| RelationFile::at(Path::new(path));
        let file = |tablespace, database, relation, fork, number| {
            Some(RelationFile { fork: RelationFork { tablespace, database, relation, fork }, number })
        };
        assert_eq!(at("base/5/16384"), file(1663, 5, 16384, Fork::Main, 0));
        assert_eq!(at("base/5/16384.12"), file(1663, 5, 16384, Fork::Main, 12));
        assert_eq!(at("base/5/16384_vm.1"), file(1663, 5, 16384, Fork::VisibilityMap, 1));
        assert_eq!(at("global/1262_fsm"), file(1664, 0, 1262, Fork::FreeSpaceMap, 0));
        assert_eq!(at("pg_tblspc/17000/PG_15_202209061/5/9_init"), file(17000, 5, 9, Fork::Init, 0));
        for other in [
            "base/5/pg_filenode.map",
            "base/5/t3_16384",
            "base/5/16384_new",
            "base/5/016",
            "base/5/16384.0",
            "base/5/+1",
            "base/pgsql_tmp/16384",
            "global/pg_control",
            "base/5/pg_internal.init",
            "/base/5/16384",
            "../base/5/16384",
            "pg_wal/000000010000000000000001",
            "base/5/",
        ] {
            assert_eq!(at(other), None, "{other}");
        }
    }
}
