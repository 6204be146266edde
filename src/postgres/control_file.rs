//! `global/pg_control`: what a cluster is and where recovery would begin.
//!
//! Layout: `ControlFileData` in `src/include/catalog/pg_control.h`. `pg_control_version` is 1300 for
//! PostgreSQL 13 to 16, 1700 for 17, 1800 for 18. 17 put `wal_level` into padding of the checkpoint
//! and moved nothing; 18 put `default_char_signedness` before the nonce, so that only the checksum
//! moved. A file is believed only if its CRC-32C is right.

use chrono::{DateTime, Utc};

use crate::error::{self, Error, Result};
use crate::units::{Lsn, Timeline};

use super::wal::Fields;
use super::wal::record::{Checkpoint, Parameters, WalLevel};

/// Size of the file on disk (`PG_CONTROL_FILE_SIZE`); the part in use is below 512 bytes, so that a
/// write is atomic.
pub const FILE_SIZE: usize = 8192;

/// What the cluster was doing when the file was last written (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Starting up.
    StartingUp,
    /// Cleanly shut down.
    ShutDown,
    /// Cleanly shut down while a standby.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    InCrashRecovery,
    /// Recovering from an archive, or a standby.
    InArchiveRecovery,
    /// Running (or killed while running).
    InProduction,
}

/// The fields of `pg_control` that backup and recovery depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlFile {
    /// Identity of the cluster; clones share it.
    pub system_identifier: u64,
    /// Layout of this file.
    pub control_version: u32,
    /// Layout of the system catalogues; changes with every major version.
    pub catalog_version: u32,
    /// What the cluster was doing.
    pub state: ClusterState,
    /// When the file was last written, in whole seconds.
    pub time: DateTime<Utc>,
    /// Position of the last checkpoint record.
    pub checkpoint: Lsn,
    /// Its contents: redo position, timeline.
    pub checkpoint_copy: Checkpoint,
    /// WAL must be replayed at least to here before the data is consistent; 0 when not recovering.
    pub min_recovery_point: Lsn,
    /// Timeline of `min_recovery_point`; 0 when there is none.
    pub min_recovery_timeline: u32,
    /// Redo position of the base backup being recovered; 0 when none is.
    pub backup_start: Lsn,
    /// End of the base backup being recovered, if taken from a standby; else 0.
    pub backup_end: Lsn,
    /// Whether a record of the backup's end must still be seen.
    pub backup_end_required: bool,
    /// Settings that a recovering server must at least match.
    pub parameters: Parameters,
    /// Size of data pages.
    pub block_size: u32,
    /// Pages in each file of a relation.
    pub relation_segment_blocks: u32,
    /// Size of WAL pages.
    pub wal_block_size: u32,
    /// Size of WAL segments.
    pub wal_segment_size: u64,
    /// 0 without data checksums, otherwise the version of their algorithm.
    pub data_checksum_version: u32,
}

impl ControlFile {
    /// Reads the file, whole or cut behind the checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let f = Fields(bytes);
        let version = f.u32(8).ok_or_else(|| damaged("it is too short"))?;
        let crc_at = match version {
            1300 | 1700 => 288,
            1800 => 292,
            _ if version.swap_bytes() < 100_000 && version >= 100_000 => {
                return Err(damaged("it was written on a machine of the other byte order"));
            }
            _ => return Err(damaged(&format!("its version is {version}, not that of PostgreSQL 13 to 18"))),
        };
        let stored = f.u32(crc_at).ok_or_else(|| damaged("it is too short"))?;
        let found = crc32c::crc32c(&bytes[..crc_at]);
        if stored != found {
            return Err(damaged(&format!("its checksum is {stored:08X}, its bytes give {found:08X}")));
        }
        Self::fields(bytes).ok_or_else(|| damaged("it holds values that PostgreSQL does not write"))
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let f = Fields(bytes);
        // MAXIMUM_ALIGNOF and FLOATFORMAT_VALUE: what the offsets here rest on.
        if f.u32(204)? != 8 || f.u64(208)? != 1_234_567.0_f64.to_bits() {
            return None;
        }
        Some(Self {
            system_identifier: f.u64(0)?,
            control_version: f.u32(8)?,
            catalog_version: f.u32(12)?,
            state: match f.u32(16)? {
                0 => ClusterState::StartingUp,
                1 => ClusterState::ShutDown,
                2 => ClusterState::ShutDownInRecovery,
                3 => ClusterState::ShuttingDown,
                4 => ClusterState::InCrashRecovery,
                5 => ClusterState::InArchiveRecovery,
                6 => ClusterState::InProduction,
                _ => return None,
            },
            time: f.unix_time(24)?,
            checkpoint: Lsn(f.u64(32)?),
            checkpoint_copy: Checkpoint::parse(bytes.get(40..)?)?,
            min_recovery_point: Lsn(f.u64(136)?),
            min_recovery_timeline: f.u32(144)?,
            backup_start: Lsn(f.u64(152)?),
            backup_end: Lsn(f.u64(160)?),
            backup_end_required: f.bool(168)?,
            parameters: Parameters {
                wal_level: WalLevel::from_number(f.i32(172)?)?,
                wal_log_hints: f.bool(176)?,
                max_connections: f.i32(180)?,
                max_worker_processes: f.i32(184)?,
                max_wal_senders: f.i32(188)?,
                max_prepared_transactions: f.i32(192)?,
                max_locks_per_transaction: f.i32(196)?,
                track_commit_timestamp: f.bool(200)?,
            },
            block_size: f.u32(216)?,
            relation_segment_blocks: f.u32(220)?,
            wal_block_size: f.u32(224)?,
            wal_segment_size: f.u32(228)?.into(),
            data_checksum_version: f.u32(252)?,
        })
    }

    /// Redo position of the last checkpoint.
    pub fn redo(&self) -> Lsn {
        self.checkpoint_copy.redo
    }

    /// Timeline of the last checkpoint.
    pub fn timeline(&self) -> Timeline {
        self.checkpoint_copy.this_timeline
    }
}

fn damaged(why: &str) -> Error {
    error::integrity(format!("pg_control cannot be used: {why}"))
        .meaning("without it PostgreSQL cannot start from this data directory")
        .hint("read while a server runs it can be caught half-written: read it again; otherwise take it from a backup")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The used part of `global/pg_control` of a PostgreSQL 15 cluster with segments of 1 MiB.
    const REAL: &str = "\
        f3633ec0f759036b1405000025770d0c0100000000000000f859036b0000000068076000000000006807600000000000\
        01000000010000000100000000000000d402000000000000043500000100000000000000cc0200000100000001000000\
        0100000000000000f859036b0000000000000000000000000000000000000000e8030000000000000000000000000000\
        00000000000000000000000000000000000000000000000000000000010000000000000064000000080000000a000000\
        000000004000000000000000080000000000000087d63241002000000000020000200000000010004000000020000000\
        cc0700000008000001000000000000000dd09c3bcd884fca29b3320d9a379627a1ce493928684ae3bcf42f2f44a02ff2\
        94b9f76b00000000";

    fn real() -> Vec<u8> {
        hex::decode(REAL).expect("hex")
    }

    /// What `pg_controldata` printed for the same file.
    #[test]
    fn a_real_file_says_what_pg_controldata_says() {
        let c = ControlFile::parse(&real()).expect("valid");
        assert_eq!(c.system_identifier, 7711105907605529587);
        assert_eq!((c.control_version, c.catalog_version), (1300, 202209061));
        assert_eq!(c.state, ClusterState::ShutDown);
        assert_eq!(c.time.to_rfc3339(), "2026-11-22T21:09:12+00:00");
        assert_eq!((c.checkpoint, c.redo(), c.timeline()), (Lsn(0x600768), Lsn(0x600768), Timeline(1)));
        assert_eq!((c.checkpoint_copy.next_xid, c.checkpoint_copy.time), (724, c.time));
        assert_eq!((c.min_recovery_point, c.min_recovery_timeline), (Lsn(0), 0));
        assert_eq!((c.backup_start, c.backup_end, c.backup_end_required), (Lsn(0), Lsn(0), false));
        let parameters = Parameters {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
            wal_level: WalLevel::Replica,
            wal_log_hints: false,
            track_commit_timestamp: false,
        };
        assert_eq!(c.parameters, parameters);
        assert_eq!((c.block_size, c.wal_block_size, c.relation_segment_blocks), (8192, 8192, 131072));
        assert_eq!((c.wal_segment_size, c.data_checksum_version), (1 << 20, 0));
    }

    /// The same of a PostgreSQL 18 cluster, which has data checksums and one field more.
    const REAL_18: &str = "\
        338f9353625c036b080700003300120c0100000000000000665c036b0000000008c413030000000008c4130300000000\
        01000000010000000100000002000000ab12000000000000006000000100000000000000e80200000100000001000000\
        0100000000000000665c036b00000000f0020000aa1200000000000000000000e8030000000000000000000000000000\
        00000000000000000000000000000000000000000000000000000000020000000000000064000000080000000a000000\
        050000004000000001000000080000000000000087d63241002000000000020000200000000010004000000020000000\
        cc0700000008000001000000010000000105b8452ae6b37e1be876982c821fc493247d43a291d9f5571e0e7dc306f54b\
        3a00000092eef28c";

    #[test]
    fn version_18_has_its_checksum_four_bytes_later() {
        let c = ControlFile::parse(&hex::decode(REAL_18).expect("hex")).expect("valid");
        assert_eq!((c.control_version, c.system_identifier), (1800, 7711108564367150899));
        assert_eq!((c.checkpoint, c.data_checksum_version), (Lsn(0x313C408), 1));
        assert_eq!((c.parameters.wal_level, c.parameters.max_prepared_transactions), (WalLevel::Logical, 5));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = real();
        for at in 0..292 {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(ControlFile::parse(&bad).is_err(), "byte {at}");
        }
        for length in 0..292 {
            assert!(ControlFile::parse(&good[..length]).is_err(), "length {length}");
        }
    }
}
