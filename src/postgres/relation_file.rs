//! Names of relation files: which relation a file of the data directory belongs to (`relpath.c`), and
//! which names are those of temporary relations (`fd.c`, `reinit.c`).

use super::wal::{Fork, RelationFork};

/// Tablespace `pg_default`, whose files are below `base`.
pub(super) const DEFAULT_TABLESPACE: u32 = 1663;

/// Tablespace `pg_global`, whose files are in `global`.
pub(super) const GLOBAL_TABLESPACE: u32 = 1664;

/// Blocks of a file of a relation but its last (`RELSEG_SIZE`).
pub(super) const BLOCKS_IN_FILE: u32 = 131_072;

/// A segment file of a fork of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    /// The fork.
    pub fork: RelationFork,
    /// Number of the segment file: 0 for the one without a suffix, 1 for `.1`.
    pub number: u32,
}

/// What the name of a relation's file says: `<relation>[_<fork>][.<segment>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileName {
    pub(super) relation: u32,
    pub(super) fork: Fork,
    pub(super) number: u32,
}

impl FileName {
    /// Reads the name of a file of an ordinary relation.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (name, number) = match name.split_once('.') {
            Some((name, number)) => (name, oid(number)?),
            None => (name, 0),
        };
        let (relation, fork) = match name.split_once('_') {
            Some((relation, "fsm")) => (relation, Fork::FreeSpaceMap),
            Some((relation, "vm")) => (relation, Fork::VisibilityMap),
            Some((relation, "init")) => (relation, Fork::Init),
            Some(_) => return None,
            None => (name, Fork::Main),
        };
        Some(Self { relation: oid(relation)?, fork, number })
    }

    /// The file of that name in the directory of a database.
    pub(super) fn of(self, tablespace: u32, database: u32) -> RelationFile {
        let fork = RelationFork { tablespace, database, relation: self.relation, fork: self.fork };
        RelationFile { fork, number: self.number }
    }
}

impl RelationFile {
    /// The relation file at `path`, relative to the data directory; none for every other file, also for
    /// those of temporary relations.
    pub fn at(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["global", name] => Some(FileName::parse(name)?.of(GLOBAL_TABLESPACE, 0)),
            ["base", database, name] => Some(FileName::parse(name)?.of(DEFAULT_TABLESPACE, oid(database)?)),
            ["pg_tblspc", tablespace, version, database, name] if version.starts_with("PG_") => {
                Some(FileName::parse(name)?.of(oid(tablespace)?, oid(database)?))
            }
            _ => None,
        }
    }

    /// Whether its pages carry the LSN of their last change, reliably: those of maps do not.
    pub(super) fn has_lsn(&self) -> bool {
        self.fork.fork.is_mapped()
    }
}

/// An object id or relation number: decimal, positive, without leading zeros.
pub(super) fn oid(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

/// Whether this is the name of a temporary relation's file: `t<backend>_<relation>…`.
pub(super) fn is_temporary(name: &str) -> bool {
    let Some((backend, relation)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_')) else { return false };
    // Backend numbers may be 0.
    let number = !backend.is_empty() && backend.bytes().all(|b| b.is_ascii_digit());
    number && FileName::parse(relation).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_relations() {
        let at = |path: &str| RelationFile::at(path);
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

    #[test]
    fn names_of_relations() {
        let file = |relation, fork, number| Some(FileName { relation, fork, number });
        assert_eq!(FileName::parse("16384"), file(16384, Fork::Main, 0));
        assert_eq!(FileName::parse("16384.12"), file(16384, Fork::Main, 12));
        assert_eq!(FileName::parse("16384_vm.1"), file(16384, Fork::VisibilityMap, 1));
        assert_eq!(FileName::parse("1_fsm"), file(1, Fork::FreeSpaceMap, 0));
        assert_eq!(FileName::parse("4294967295_init"), file(u32::MAX, Fork::Init, 0));
        let others = [
            "",
            ".",
            "_",
            "1.",
            "1_",
            "_vm",
            ".1",
            "01",
            "0",
            "1.0",
            "1.01",
            "1_vm.",
            "1_tmp",
            "4294967296",
            "+1",
            "1.+1",
            "t3_1",
            "1.1_vm",
            "1 ",
            "PG_VERSION",
            "pg_filenode.map",
            "1_init_init",
        ];
        for other in others {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_temporary_relations() {
        for name in ["t0_1", "t3_16384", "t3_16384_fsm", "t3_16384.1", "t12_16384_vm.2"] {
            assert!(is_temporary(name), "{name}");
        }
        for name in ["t_1", "3_1", "t3", "t3_", "tx_1", "t3_1_2", "16384"] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
