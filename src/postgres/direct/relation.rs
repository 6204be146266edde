//! Names of relation files: `<relation>[_<fork>][.<segment>]`, as `parse_filename_for_nontemp_relation`
//! and `looks_like_temp_rel_name` (`src/backend/storage/file/reinit.c`, `fd.c`) read them.

use super::listing::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, Kind};

/// The forks of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fork {
    /// The rows themselves.
    Main,
    /// The free space map.
    Fsm,
    /// The visibility map.
    Vm,
    /// The empty state of an unlogged relation.
    Init,
}

/// What the name of a relation's file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RelationFile {
    pub(super) relation: u32,
    pub(super) fork: Fork,
    pub(super) segment: u32,
}

impl RelationFile {
    pub(super) fn kind(self, tablespace: u32, database: u32) -> Kind {
        Kind::Relation { tablespace, database, relation: self.relation, fork: self.fork, segment: self.segment }
    }
}

/// An object id or relation number: decimal, positive, without leading zeros.
pub(super) fn oid(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

/// Reads the name of a file of an ordinary relation.
pub(super) fn parse_relation(name: &str) -> Option<RelationFile> {
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) => (name, oid(segment)?),
        None => (name, 0),
    };
    let (relation, fork) = match name.split_once('_') {
        Some((relation, "fsm")) => (relation, Fork::Fsm),
        Some((relation, "vm")) => (relation, Fork::Vm),
        Some((relation, "init")) => (relation, Fork::Init),
        Some(_) => return None,
        None => (name, Fork::Main),
    };
    Some(RelationFile { relation: oid(relation)?, fork, segment })
}

/// What the file at a path below the data directory is.
pub(in crate::postgres) fn kind_of(path: &str) -> Kind {
    let parts: Vec<&str> = path.split('/').collect();
    let relation = |name, tablespace, database| Some(parse_relation(name)?.kind(tablespace, database));
    let kind = match parts.as_slice() {
        ["global", "pg_control"] => Some(Kind::Control),
        ["global", name] => relation(name, GLOBAL_TABLESPACE, 0),
        ["base", database, name] => oid(database).and_then(|db| relation(name, DEFAULT_TABLESPACE, db)),
        ["pg_tblspc", tablespace, _, database, name] => {
            oid(tablespace).zip(oid(database)).and_then(|(tablespace, db)| relation(name, tablespace, db))
        }
        _ => None,
    };
    kind.unwrap_or(Kind::Other)
}

/// Whether this is the name of a temporary relation's file: `t<backend>_<relation>…`.
pub(super) fn is_temporary(name: &str) -> bool {
    let Some((backend, relation)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_')) else { return false };
    // Backend numbers may be 0.
    let number = !backend.is_empty() && backend.bytes().all(|b| b.is_ascii_digit());
    number && parse_relation(relation).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_relations() {
        let file = |relation, fork, segment| Some(RelationFile { relation, fork, segment });
        assert_eq!(parse_relation("16384"), file(16384, Fork::Main, 0));
        assert_eq!(parse_relation("16384.12"), file(16384, Fork::Main, 12));
        assert_eq!(parse_relation("16384_vm.1"), file(16384, Fork::Vm, 1));
        assert_eq!(parse_relation("1_fsm"), file(1, Fork::Fsm, 0));
        assert_eq!(parse_relation("4294967295_init"), file(u32::MAX, Fork::Init, 0));
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
            assert_eq!(parse_relation(other), None, "{other}");
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
