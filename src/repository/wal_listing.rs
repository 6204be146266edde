//! What lies in a WAL archive, by names alone: one listing for all that is complete, one for all that is being written. What
//! looks often (the service) must not ask once for each timeline and segment.

use std::collections::BTreeMap;

use super::wal_archive::{Piece, WalArchive};
use crate::error::Result;
use crate::storage::layout;
use crate::units::Timeline;
use crate::wal_name::{SegmentName, WalFileName};

/// The pieces of each segment of a timeline, by offset; an error where one of them is not named as a piece.
pub(super) type LiveSegments = BTreeMap<SegmentName, Result<Vec<Piece>>>;

/// The complete files of each timeline, and the objects among them that are not named as WAL files.
pub(super) async fn complete(archive: WalArchive<'_>) -> Result<(BTreeMap<Timeline, Vec<WalFileName>>, Vec<String>)> {
    let (mut files, mut strange): (BTreeMap<Timeline, Vec<WalFileName>>, _) = (BTreeMap::new(), Vec::new());
    let prefix = layout::wal(archive.environment());
    for object in archive.store().list(&prefix).await? {
        let Some((timeline, name)) = parts(&prefix, &object.key) else { continue };
        match name.rsplit('/').next().unwrap_or_default().parse() {
            Ok(name) => files.entry(timeline).or_default().push(name),
            Err(_) => strange.push(object.key),
        }
    }
    Ok((files, strange))
}

/// The segments of each timeline that have pieces.
pub(super) async fn live(archive: WalArchive<'_>) -> Result<BTreeMap<Timeline, LiveSegments>> {
    let mut live: BTreeMap<Timeline, LiveSegments> = BTreeMap::new();
    let prefix = layout::wal_live(archive.environment());
    for object in archive.store().list(&prefix).await? {
        let Some((timeline, rest)) = parts(&prefix, &object.key) else { continue };
        let Some(Ok(segment)) = rest.split_once('/').map(|(segment, _)| segment.parse()) else { continue };
        let pieces = live.entry(timeline).or_default().entry(segment).or_insert_with(|| Ok(Vec::new()));
        match (pieces, Piece::of(object)) {
            (Ok(known), Ok(piece)) => known.push(piece),
            (known @ Ok(_), Err(strange)) => *known = Err(strange),
            (Err(_), _) => {}
        }
    }
    for pieces in live.values_mut().flat_map(BTreeMap::values_mut).flatten() {
        pieces.sort_by_key(|piece| (piece.offset, piece.end));
    }
    Ok(live)
}

/// The timeline that an object's name begins with, and the rest of it.
fn parts<'a>(prefix: &str, key: &'a str) -> Option<(Timeline, &'a str)> {
    let (timeline, rest) = key.strip_prefix(prefix)?.split_once('/')?;
    Some((Timeline(u32::from_str_radix(timeline, 16).ok()?), rest))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::error::ErrorKind;
    use crate::repository::testing;

    #[tokio::test]
    async fn everything_is_told_by_its_name_and_one_strange_name_hides_only_its_segment() {
        let (repository, _) = testing::repository_and_writer().await;
        let (one, two) = ("000000010000000000000002", "000000020000000000000003");
        let objects = [
            format!("wal/00000001/{one}"),
            "wal/00000002/00000002.history".to_owned(),
            "wal/00000002/notes.txt".to_owned(),
            format!("wal-live/00000001/{one}/{:010}-{:010}", 8192, 9000),
            format!("wal-live/00000001/{one}/{:010}-{:010}", 0, 8192),
            format!("wal-live/00000002/{two}/{:010}-{:010}", 0, 10),
            format!("wal-live/00000002/{two}/strange"),
            "wal-live/00000002/not-a-segment/x".to_owned(),
        ];
        for name in objects {
            let key = format!("production/{name}");
            repository.store.create(&key, Bytes::from_static(b"x")).await.expect("put");
        }
        let archive = WalArchive::new(&repository, "production");
        let (files, strange) = complete(archive).await.expect("listed");
        let named = |timeline| files[&Timeline(timeline)].iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((named(1), named(2)), (vec![one.to_owned()], vec!["00000002.history".to_owned()]));
        assert_eq!(strange, ["production/wal/00000002/notes.txt"]);
        let live = live(archive).await.expect("listed");
        let pieces = live[&Timeline(1)].values().next().expect("one").as_ref().expect("sound");
        assert_eq!(pieces.iter().map(|p| (p.offset, p.end)).collect::<Vec<_>>(), [(0, 8192), (8192, 9000)]);
        let strange = live[&Timeline(2)].values().collect::<Vec<_>>();
        assert_eq!(strange.len(), 1);
        assert_eq!(strange[0].as_ref().expect_err("not a piece").kind(), ErrorKind::Integrity);
    }
}
