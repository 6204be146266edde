//! Pages of relations: their header, their checksum, and whether a page can be believed.
//!
//! [`judge`] decides as `PageIsVerified` (`src/backend/storage/page/bufpage.c`) does when a server reads
//! the page: what it calls unsound, a query stumbles over. A page that is being written while it is read
//! looks unsound, too; so the caller reads such a page again before it believes the verdict.
//! The layouts are those of 13 to 18: `bufpage.h` (little-endian), `checksum_impl.h`.

use crate::postgres::relation_file::BLOCKS_IN_FILE;
use crate::repository::page_sums::PAGE;
use crate::units::Lsn;

/// The bits of `pd_flags` that have a meaning.
const VALID_FLAGS: u16 = 0x0007;

/// The header of a page, as far as backups look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageHeader {
    /// End of the WAL record that changed the page last.
    pub(crate) lsn: Lsn,
    /// The stored checksum.
    pub(crate) checksum: u16,
    /// Flags.
    pub(crate) flags: u16,
    /// Start of free space.
    pub(crate) lower: u16,
    /// End of free space.
    pub(crate) upper: u16,
    /// Start of the access method's own part.
    pub(crate) special: u16,
}

impl PageHeader {
    /// Reads the header of a page.
    pub(crate) fn of(page: &[u8; PAGE]) -> Self {
        let word = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        let half = |at: usize| u64::from(word(at)) | u64::from(word(at + 2)) << 16;
        Self {
            lsn: Lsn(half(0) << 32 | half(4)),
            checksum: word(8),
            flags: word(10),
            lower: word(12),
            upper: word(14),
            special: word(16),
        }
    }

    /// Whether the page was never initialised (`PageIsNew`).
    pub(crate) fn is_new(self) -> bool {
        self.upper == 0
    }

    /// Whether the header can be that of a page.
    fn is_sane(self) -> bool {
        self.flags & !VALID_FLAGS == 0
            && self.lower <= self.upper
            && self.upper <= self.special
            && usize::from(self.special) <= PAGE
            && self.special.is_multiple_of(8)
    }
}

/// What [`judge`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All zeros: allocated and not yet used.
    New,
    /// A page that a server would accept.
    Sound {
        /// End of the WAL record that changed it last.
        lsn: Lsn,
    },
    /// Its checksum is not that of its contents.
    Unsound {
        /// What stands where the LSN should be.
        lsn: Lsn,
        /// The checksum of the contents.
        expected: u16,
        /// The checksum in the page.
        found: u16,
    },
    /// Its header cannot be that of a page, whatever the checksum says.
    Malformed {
        /// What stands where the LSN should be.
        lsn: Lsn,
    },
}

impl Verdict {
    /// The LSN and what is wrong, where the page is not sound.
    pub(crate) fn flaw(self) -> Option<(Lsn, String)> {
        match self {
            Self::New | Self::Sound { .. } => None,
            Self::Unsound { lsn, expected, found } => {
                Some((lsn, format!("its checksum is {found:04X}, its bytes give {expected:04X}")))
            }
            Self::Malformed { lsn } => Some((lsn, "its header is not that of a page".to_owned())),
        }
    }
}

/// The LSN in the header of a page; 0 where there are too few bytes for one.
pub(crate) fn lsn(page: &[u8]) -> Lsn {
    page.try_into().map_or(Lsn(0), |page| PageHeader::of(page).lsn)
}

/// Judges page number `block` of a relation; `checksums` says whether the cluster has data checksums.
pub(crate) fn judge(page: &[u8; PAGE], block: u32, checksums: bool) -> Verdict {
    let header = PageHeader::of(page);
    let lsn = header.lsn;
    if header.is_new() {
        return if is_zero(page) { Verdict::New } else { Verdict::Malformed { lsn } };
    }
    if checksums {
        let expected = checksum(page, block);
        if expected != header.checksum {
            return Verdict::Unsound { lsn, expected, found: header.checksum };
        }
    }
    if header.is_sane() { Verdict::Sound { lsn } } else { Verdict::Malformed { lsn } }
}

/// The number in its relation of page `page` of file `segment`. Files beyond the largest relation do not exist; their
/// pages count as the last one.
pub(crate) fn block_number(segment: u32, page: u32) -> u32 {
    segment.saturating_mul(BLOCKS_IN_FILE).saturating_add(page)
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; PAGE] = [0; PAGE];
    bytes.chunks(PAGE).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Lanes of the checksum: as many independent FNV-1a hashes as wide registers can hold.
const LANES: usize = 32;

const FNV_PRIME: u32 = 16_777_619;

/// Where each lane begins (`checksumBaseOffsets`).
#[rustfmt::skip]
const BASES: [u32; LANES] = [
    0x5B1F_36E9, 0xB852_5960, 0x02AB_50AA, 0x1DE6_6D2A, 0x79FF_467A, 0x9BB9_F8A3, 0x217E_7CD2, 0x83E1_3D2C,
    0xF8D4_474F, 0xE39E_B970, 0x42C6_AE16, 0x9932_16FA, 0x7B09_3B5D, 0x98DA_FF3C, 0xF718_902A, 0x0B1C_9CDB,
    0xE58F_764B, 0x1876_36BC, 0x5D7B_3BB1, 0xE73D_E7DE, 0x92BE_C979, 0xCCA6_C0B2, 0x304A_0979, 0x85AA_43D4,
    0x7831_25BB, 0x6CA8_EAA2, 0xE407_EAC6, 0x4B5C_FC3E, 0x9FBF_8C76, 0x15CA_20BE, 0xF2CA_9FD3, 0x959B_D756,
];

/// The checksum that page number `block` should carry (`pg_checksum_page`). The loops are plain so that
/// the compiler makes vector instructions of them: 13 to 20 GB/s on one core with SSE2 alone.
pub(crate) fn checksum(page: &[u8; PAGE], block: u32) -> u16 {
    let mix = |sum: u32, value: u32| {
        let mixed = sum ^ value;
        mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
    };
    let mut sums = BASES;
    for (at, row) in page.chunks_exact(4 * LANES).enumerate() {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let mut word = u32::from_le_bytes([row[4 * lane], row[4 * lane + 1], row[4 * lane + 2], row[4 * lane + 3]]);
            if at == 0 && lane == 2 {
                // The checksum itself counts as zero.
                word &= 0xFFFF_0000;
            }
            *sum = mix(*sum, word);
        }
    }
    for _ in 0..2 {
        for sum in &mut sums {
            *sum = mix(*sum, 0);
        }
    }
    let all = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    // Never 0, which would look like a page without checksum.
    (all % 65535 + 1) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::control_file::ControlFile;
    use crate::postgres::direct::listing::{Kind, Rules, list};
    use crate::postgres::relation_file::RelationFile;
    use crate::postgres::replication::testing::TestServer;

    fn pages(bytes: &[u8]) -> impl Iterator<Item = &[u8; PAGE]> {
        bytes.as_chunks::<PAGE>().0.iter()
    }

    #[tokio::test]
    async fn every_page_of_a_real_cluster_is_sound_and_a_flipped_bit_is_seen() {
        let Some(server) = TestServer::start(&["autovacuum = off"], &[]).await else { return };
        let sql = server.sql().await;
        for statement in [
            "CREATE TABLE t AS SELECT n, md5(n::text) AS body FROM generate_series(1, 20000) AS n",
            "CREATE INDEX ON t (n)",
            "CREATE INDEX ON t USING hash (body)",
            "CREATE INDEX ON t USING brin (n)",
            "CREATE INDEX ON t USING gin (string_to_array(body, 'a'))",
            "CREATE INDEX ON t USING spgist (body)",
            "CREATE INDEX ON t USING gist (point(n, n))",
            "CREATE SEQUENCE s",
            "VACUUM t",
            "CHECKPOINT",
        ] {
            sql.batch_execute(statement).await.expect(statement);
        }
        let now: String = sql.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("a row").get(0);
        let now: Lsn = now.parse().expect("a position");
        let major: i32 = sql
            .query_one("SELECT current_setting('server_version_num')::int / 10000", &[])
            .await
            .expect("a version")
            .get(0);
        let control = std::fs::read(server.data().join("global/pg_control")).expect("readable");
        let catalog = ControlFile::parse(&control).expect("valid").catalog_version;
        let rules = Rules { major: major as u32, catalog, stats_temp_directory: None };
        let (mut sound, mut unused) = (0, 0);
        for file in list(&server.data(), &rules).expect("listed").files {
            let Kind::Relation(RelationFile { number: segment, .. }) = file.kind else { continue };
            let bytes = std::fs::read(server.data().join(&file.path)).expect("readable");
            assert_eq!(bytes.len() % PAGE, 0, "{}", file.path);
            for (page, number) in pages(&bytes).zip(0..) {
                let block = block_number(segment, number);
                match judge(page, block, true) {
                    Verdict::New => unused += 1,
                    Verdict::Sound { lsn } => {
                        assert!(lsn <= now, "{} {block}: {lsn}", file.path);
                        sound += 1;
                    }
                    other => panic!("{} {block}: {other:?}", file.path),
                }
                if number == 0 && !PageHeader::of(page).is_new() {
                    assert!(matches!(judge(page, 1, true), Verdict::Unsound { .. }), "{}: misplaced", file.path);
                    for bit in [0, 12 * 8, 4096 * 8 + 3, PAGE * 8 - 1] {
                        let mut flipped = *page;
                        flipped[bit / 8] ^= 1 << (bit % 8);
                        assert!(matches!(judge(&flipped, 0, true), Verdict::Unsound { .. }), "{} {bit}", file.path);
                    }
                }
            }
        }
        assert!(sound > 1000, "{sound} sound, {unused} new");
    }

    #[test]
    fn headers_are_judged_without_checksums_too() {
        let zero = [0; PAGE];
        assert_eq!(judge(&zero, 7, true), Verdict::New);
        let mut page = zero;
        page[100] = 1;
        assert_eq!(judge(&page, 7, false), Verdict::Malformed { lsn: Lsn(0) }, "a page without header, but not empty");
        page[..18].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 9, 9, 4, 0, 24, 0, 0, 32, 0, 32]);
        let lsn = Lsn(0x1_0000_0002);
        assert_eq!(judge(&page, 7, false), Verdict::Sound { lsn });
        let expected = checksum(&page, 7);
        assert_eq!(judge(&page, 7, true), Verdict::Unsound { lsn, expected, found: 0x0909 });
        page[8..10].copy_from_slice(&expected.to_le_bytes());
        assert_eq!(judge(&page, 7, true), Verdict::Sound { lsn });
        for (at, byte, why) in [(10, 8, "flags"), (13, 33, "lower"), (15, 33, "upper"), (16, 4, "special")] {
            let mut bad = page;
            bad[at] = byte;
            assert_eq!(judge(&bad, 7, false), Verdict::Malformed { lsn }, "{why}");
        }
    }

    #[test]
    fn blocks_are_counted_across_files() {
        assert_eq!(block_number(0, 5), 5);
        assert_eq!(block_number(2, 5), 262_149);
        assert_eq!(block_number(32_767, 131_071), u32::MAX);
        assert_eq!(block_number(u32::MAX, 5), u32::MAX);
    }
}
