//! Tests of the streamed reader's intake, on tar streams made by hand.

use super::*;
use crate::repository::base_manifest::{BaseManifest, Header, Run};
use crate::repository::page_sums::{PageSum, Sums};
use crate::repository::{Repository, Written, pack_stream, testing};
use crate::units::Timeline;

pub(in crate::postgres) fn tar_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, name, content.as_slice()).expect("append");
    }
    builder.into_inner().expect("tar")
}

pub(in crate::postgres) fn header() -> Header {
    Header {
        id: "b".into(),
        system_id: 1,
        timeline: Timeline(1),
        start_lsn: Lsn(1),
        server_version: 150_000,
        wal_segment_size: 16 << 20,
        hints_logged: true,
        previous: None,
    }
}

/// Sends a tar of `files` through the intake; the manifest that comes of it.
async fn taken(repository: &Repository, files: &[(&str, Vec<u8>)], previous: Previous) -> (BaseManifest, Written) {
    let tar = tar_of(files);
    let (send, items) = mpsc::channel(100);
    let (content, task) = pack_stream::start(repository, "production", 3);
    let previous = Arc::new(previous);
    let known = previous.clone();
    let intake = tokio::task::spawn_blocking(move || take_in(items, content, known, None, Names::default()));
    send.send(Item::Archive(String::new())).await.expect("send");
    for chunk in tar.chunks(1000) {
        send.send(Item::Data(Bytes::copy_from_slice(chunk))).await.expect("send");
    }
    send.send(Item::Finished).await.expect("send");
    let (harvest, _) = intake.await.expect("thread").expect("taken");
    let written = task.written().await.expect("written");
    let manifest = harvest.into_manifest(header(), &previous, &written).expect("manifest");
    let object = manifest.put(repository, "production").await.expect("put");
    (BaseManifest::read(repository, "production", &object.sha256).await.expect("read"), written)
}

/// A page that says it was changed at `lsn`.
pub(in crate::postgres) fn page(lsn: u32, fill: u8) -> Vec<u8> {
    let mut page = vec![fill; PAGE];
    page[..8].copy_from_slice(&(u64::from(lsn) << 32).to_le_bytes());
    page
}

#[tokio::test]
async fn zero_pages_are_left_out_and_small_files_share_a_frame() {
    let (repository, _) = testing::repository_and_writer().await;
    let holey = [vec![1; PAGE], vec![0; 3 * PAGE], vec![2; PAGE + 100]].concat();
    let files = [("PG_VERSION", b"15\n".to_vec()), ("base/1/1", holey), ("base/1/2", vec![0; 2 * PAGE])];
    let (read, written) = taken(&repository, &files, Previous::default()).await;
    assert_eq!(read.logical_bytes(), 3 + 5 * PAGE as u64 + 100 + 2 * PAGE as u64);
    let page = PAGE as u64;
    assert_eq!(written.plain_bytes, 4 * page, "each page at a page's border");
    assert_eq!(
        read.files[1].runs,
        [
            Run { file_offset: 0, length: page, frame: 0, offset: PAGE as u32 },
            Run { file_offset: 4 * page, length: page + 100, frame: 0, offset: 2 * PAGE as u32 },
        ]
    );
    assert!(read.files[2].runs.is_empty());
    assert_eq!(read.files[2].size, 2 * page);
    let sums = Sums::read(&repository, "production", &read.packs).await.expect("sums");
    assert_eq!(sums.page(&read.packs, 0, 0), Some(PageSum::of(b"15\n")), "padding does not count");
    assert_eq!(sums.page(&read.packs, 0, 3 * PAGE as u32), Some(PageSum::of(&[2; 100])));
    assert_eq!((sums.page(&read.packs, 0, 4 * PAGE as u32), sums.page(&read.packs, 0, 1)), (None, None));
}

#[tokio::test]
async fn only_newer_pages_are_stored_again_and_the_manifest_is_complete() {
    let (repository, _) = testing::repository_and_writer().await;
    let first = [("base/1/1", [page(3, 1), page(4, 2), page(5, 3)].concat()), ("base/1/1_fsm", page(3, 9))];
    let (manifest, _) = taken(&repository, &first, Previous::default()).await;
    let previous = Previous::built_on(manifest, Lsn(6)).expect("previous");
    let second =
        [("base/1/1", [page(3, 1), page(7, 4), vec![0; PAGE], page(5, 8)].concat()), ("base/1/1_fsm", page(3, 9))];
    let (manifest, written) = taken(&repository, &second, previous).await;
    // The changed page, the one behind the old end, and the map of free space, which has no LSN.
    assert_eq!(written.plain_bytes, 3 * PAGE as u64);
    assert_eq!(manifest.packs.packs().len(), 2);
    let page = PAGE as u64;
    let run = |file_offset, frame, offset: usize| Run { file_offset, length: page, frame, offset: offset as u32 };
    assert_eq!(manifest.files[0].runs, [run(0, 0, 0), run(page, 1, 0), run(3 * page, 1, PAGE)]);
    assert_eq!(manifest.files[1].runs, [run(0, 1, 2 * PAGE)]);
}

#[tokio::test]
async fn damage_that_the_server_does_not_send_again_is_not_forgotten() {
    let (repository, _) = testing::repository_and_writer().await;
    let first = [("base/1/1", [page(3, 1), page(4, 2), page(5, 3)].concat())];
    let (mut manifest, _) = taken(&repository, &first, Previous::default()).await;
    manifest.files[0].damaged = vec![0, 1];
    let previous = Previous::built_on(manifest, Lsn(6)).expect("previous");
    // One changed block, number 1, of a file that is three long.
    let mut incremental: Vec<u8> = [0xD3AE_1F0D_u32, 1, 3, 1].iter().flat_map(|w| w.to_le_bytes()).collect();
    incremental.resize(PAGE, 0);
    incremental.extend(page(7, 4));
    let (manifest, _) = taken(&repository, &[("base/1/INCREMENTAL.1", incremental)], previous).await;
    assert_eq!((manifest.files[0].path.as_str(), manifest.files[0].size), ("base/1/1", 3 * PAGE as u64));
    assert_eq!(manifest.files[0].damaged, [0], "block 1 was written anew");
}

#[tokio::test]
async fn a_stream_that_ends_early_is_an_error() {
    let (repository, _) = testing::repository_and_writer().await;
    let tar = tar_of(&[("base/1/1", vec![1; 5 * PAGE])]);
    let (send, items) = mpsc::channel(100);
    let (content, task) = pack_stream::start(&repository, "production", 3);
    let intake = tokio::task::spawn_blocking(move || take_in(items, content, Arc::default(), None, Names::default()));
    send.send(Item::Archive(String::new())).await.expect("send");
    send.send(Item::Data(Bytes::copy_from_slice(&tar[..2 * PAGE]))).await.expect("send");
    drop(send);
    let failure = intake.await.expect("thread").expect_err("cut off");
    assert_eq!(failure.kind(), ErrorKind::Source);
    task.abort();
}
