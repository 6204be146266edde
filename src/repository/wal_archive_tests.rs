//! Tests of the WAL archive, on stores in a folder.

use super::*;
use crate::repository::testing;

fn name(text: &str) -> WalFileName {
    text.parse().expect("name")
}

async fn put(archive: WalArchive<'_>, file: &WalFileName, content: &[u8]) -> Result<StoredWal> {
    let mut sealer = archive.sealer(Class::Wal, 1).expect("sealer");
    sealer.write(content);
    archive.put(file, sealer, None).await
}

#[tokio::test]
async fn the_same_bytes_again_are_success_and_other_bytes_are_refused() {
    let (repository, writer) = testing::repository_and_writer().await;
    let archive = WalArchive::new(&writer, "production");
    for file in ["000000010000000000000002", "00000002.history"].map(name) {
        assert_eq!(put(archive, &file, b"first").await.expect("new").created, Created::New);
        assert_eq!(put(archive, &file, b"first").await.expect("same").created, Created::Same);
        let refused = put(archive, &file, b"other").await.expect_err("other bytes");
        assert_eq!(refused.kind(), ErrorKind::Integrity);
        assert_eq!(archive.read(&file).await.expect_err("writer cannot read").kind(), ErrorKind::Denied);
        let reader = WalArchive::new(&repository, "production");
        assert_eq!(reader.read(&file).await.expect("reads").as_deref(), Some(&b"first"[..]));
    }
}

#[tokio::test]
async fn pieces_make_a_padded_segment_until_the_complete_one_is_there() {
    let (repository, _) = testing::repository_and_writer().await;
    let archive = WalArchive::new(&repository, "production");
    let segment: SegmentName = "000000010000000000000002".parse().expect("name");
    let summary = |start: u64, end: u64| SegmentSummary {
        system_id: 1,
        start: Lsn(start),
        end: Lsn(end),
        last_record_end: None,
        commits: 0,
        restore_points: Vec::new(),
        first_commit_time: None,
        last_commit_time: None,
    };
    for (offset, content) in [(0, "abc"), (3, "de"), (0, "abcde"), (4, "ef"), (9, "behind a hole")] {
        let mut piece = archive.sealer(Class::WalPiece, 1).expect("sealer");
        piece.write(content.as_bytes());
        let end = offset + content.len() as u64;
        archive.put_piece(&segment, offset, piece, summary(offset, end)).await.expect("piece");
    }
    assert_eq!(archive.read_live(&segment).await.expect("live"), b"abcdef");
    let padded = archive.read_segment(&segment, 16).await.expect("reads").expect("there");
    assert_eq!(padded, b"abcdef\0\0\0\0\0\0\0\0\0\0");
    let pieces = archive.pieces(&segment).await.expect("pieces");
    assert_eq!(archive.piece_summary(&pieces[2]).await.expect("ok").expect("summary").1, summary(3, 5));

    put(archive, &WalFileName::Segment(segment), b"complete").await.expect("put");
    assert_eq!(archive.read_segment(&segment, 16).await.expect("reads").as_deref(), Some(&b"complete"[..]));
    let none = archive.read_segment(&"000000010000000000000003".parse().expect("name"), 16).await;
    assert_eq!(none.expect("reads"), None);
}
