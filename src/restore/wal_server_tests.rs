//! WAL is laid down ahead of recovery, as far as the target and no further.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::wal_server::{LOOK, Places, SOCKET, WalServer};
use crate::repository::catalogue::Catalogue;
use crate::repository::coverage::{Coverage, Leg, TimelineWal};
use crate::repository::testing;
use crate::repository::wal_archive::WalArchive;
use crate::restore::messenger::hand_over;
use crate::units::{Lsn, Timeline};
use crate::vault::Class;
use crate::wal_name::{SegmentName, WalFileName};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_ahead_is_taken_without_asking() {
    let (repository, _) = testing::repository_and_writer().await;
    let repository = Arc::new(repository);
    let archive = WalArchive::new(&repository, "production");
    let name = |number: u64| SegmentName::new(Timeline(1), number, MIB);
    let content = |number: u64| vec![number as u8; MIB as usize];
    for number in 1..=100 {
        let mut sealer = archive.sealer(Class::Wal, 1).expect("a sealer");
        sealer.write(&content(number));
        archive.put(&WalFileName::Segment(name(number)), sealer, None).await.expect("stored");
    }
    let wal = TimelineWal { segments: (1..=100).collect(), ..TimelineWal::default() };
    let coverage = Coverage { segment_size: MIB, timelines: BTreeMap::from([(Timeline(1), wal)]) };
    let catalogue = Catalogue {
        environment: "production".into(),
        entries: Vec::new(),
        ledger_problems: Vec::new(),
        wal: Some(coverage),
        live: Vec::new(),
        retention: Default::default(),
    };
    let line = vec![Leg { timeline: Timeline(1), from: Lsn(0), to: None }];
    let folder = tempfile::tempdir().expect("dir");
    let program = folder.path().join("program");
    std::fs::write(&program, "#!/bin/sh\nexit 77\n").expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let spool = folder.path().join("spool");
    let places = Places { spool: &spool, folder: folder.path(), program: &program, withheld: None };
    let wanted = Lsn(MIB + 40)..Lsn(90 * MIB + 5);
    let server =
        WalServer::start(repository.clone(), Arc::new(catalogue), line, wanted, &places, None).expect("started");
    let destination = folder.path().join("RECOVERYXLOG");
    // The messenger is the program that exits with 77 here.
    let take = async |number: u64| {
        let command = server.restore_command().replace("%f", &name(number).to_string());
        let command = command.replace("%p", &destination.display().to_string());
        let status = tokio::process::Command::new("/bin/sh").arg("-c").arg(command).status().await.expect("sh");
        status.code().expect("an exit code")
    };
    let ask = async |number: u64| {
        let (socket, name, to) = (folder.path().join(SOCKET), name(number).to_string(), destination.clone());
        tokio::task::spawn_blocking(move || hand_over(&socket, &name, &to)).await.expect("a thread").expect("OK");
        assert_eq!(std::fs::read(&destination).expect("moved"), content(number));
    };
    let ready = |number: u64| spool.join("ready").join(name(number).to_string());
    let is_there = async |number: u64| {
        while !ready(number).exists() {
            tokio::time::sleep(LOOK).await;
        }
    };
    // Recovery looks at the checkpoint first, which lies behind the place where replay begins.
    ask(3).await;
    for number in (1..=90).filter(|number| *number != 3) {
        is_there(number).await;
        assert_eq!(take(number).await, 0, "{number}");
        assert_eq!(std::fs::read(&destination).expect("moved"), content(number));
        if number == 2 {
            assert_eq!(take(3).await, 77, "it was handed over before; the messenger asks again");
            ask(3).await;
        }
    }
    assert_eq!(server.bytes(), 91 * MIB);
    assert!(!ready(91).exists() && server.is_idle(), "behind the target nothing is wanted");
    assert_eq!(take(91).await, 77);
    ask(91).await;
}
