//! Made-up ledger entries about backups and a restore, for tests.

use super::Body;
use super::bodies::*;
use super::examples::{at, passed};
use crate::units::{Lsn, Timeline};

/// One entry of each kind of backup, and a restore.
pub(crate) fn backups() -> Vec<Body> {
    let sources = passed().sources.expect("sources");
    let stop = passed().target.resolved.expect("resolved");
    vec![
        Body::BaseBackup(BaseBackup {
            id: sources.base_backup.clone(),
            label: "lifeboat 20261122T010000Z".into(),
            system_id: "7412345678901234567".into(),
            timeline: Timeline(1),
            start_lsn: sources.start_lsn,
            stop_lsn: sources.stop_lsn,
            start_time: at(-7200.0),
            stop_time: at(-7105.0),
            server_version: "15.14".into(),
            wal_segment_size: 16 << 20,
            data_checksums: true,
            tablespaces: 0,
            databases: vec!["postgres".into(), "retail".into()],
            files: 1944,
            logical_bytes: 4_509_715_660,
            stored_bytes: 1_181_116_006,
            new_packs: 36,
            manifest: sources.manifest.clone(),
            reader: "streamed".into(),
            bytes_read: 0,
            previous: None,
            damaged: Vec::new(),
            wal: WalNeeded { first: sources.wal_first.clone(), last: "00000001000000030000009A".into() },
            baseline: None,
            seconds: 95.0,
        }),
        Body::WalRange(WalRange {
            timeline: Timeline(1),
            first: sources.wal_first,
            last: sources.wal_last,
            segments: 21,
            stored_bytes: 91_226_112,
            digest: wal_digest([("000000010000000300000090", 4_344_101, "00ff")]),
            end_lsn: Lsn(0x3_A500_0000),
            last_commit_time: stop.time,
        }),
        Body::FilestoreCapture(FilestoreCapture {
            id: "20261122T025900Z-retail".into(),
            data_dir: "/var/lib/odoo".into(),
            database: "retail".into(),
            database_uuid: Some("0b7e5a1c-2f43-11ef-9d6b-0242ac120002".into()),
            restore_point: RestorePoint {
                name: "lifeboat-20261122T025900Z".into(),
                lsn: Lsn(0x3_A400_0000),
                time: at(-60.0),
            },
            scan_started: at(-60.0),
            scan_finished: at(-58.0),
            files_present: 906,
            files_new: 12,
            bytes_new: 3 << 20,
            files_disappeared: 0,
            suspects: vec![Suspect {
                name: "89/89e6c98d".into(),
                reason: "content does not belong to the name".into(),
            }],
            referenced: 906,
            missing_at_source: Vec::new(),
            index: "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9".into(),
            complete: true,
            not_covered: Vec::new(),
            collection: None,
        }),
        Body::ConfigurationExport(ConfigurationExport {
            id: "20261122T010212Z".into(),
            taken_at: at(-7068.0),
            files: 14,
            bytes: 48_213,
            manifest: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
            digest: "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752".into(),
            masked: None,
            changed: vec!["odoo.conf".into()],
            unreadable: Vec::new(),
        }),
        Body::Restore(Restore {
            id: "restore-20261122T031500Z".into(),
            requested: "latest".into(),
            resolved: stop,
            base_backup: sources.base_backup,
            reached_lsn: Some(Lsn(0x3_A412_7F80)),
            pgdata: "/var/lib/postgresql/restored".into(),
            filestore: Some("/var/lib/odoo/filestore".into()),
            configuration: None,
            bytes: 4_509_715_660,
            kept_bytes: 0,
            missing_attachments: Vec::new(),
            started_at: at(900.0),
            seconds: 47.3,
            phases: passed().phases,
            tenant: None,
        }),
    ]
}
