//! Made-up drills for the tests of the reports: one that passed, one that failed, one that was too
//! slow, one that crashed.

use chrono::{DateTime, TimeDelta, Utc};

use super::drill_record::*;
use super::ledger::Appended;
use super::report_json::Place;
use super::sampled::{Restored, Sampling, SamplingMethod};
use super::testing::key;
use crate::units::{Lsn, Timeline};

pub(crate) use super::examples_backups::backups;
pub(crate) use super::examples_service::service;

pub(crate) fn at(seconds: f64) -> DateTime<Utc> {
    let start: DateTime<Utc> = "2026-11-22T03:00:00Z".parse().expect("a time");
    start + TimeDelta::microseconds((seconds * 1e6) as i64)
}

pub(crate) fn place(appended: &Appended) -> Place<'_> {
    Place {
        repository_url: "file:///srv/backups/estate",
        appended,
        signer_name: "db-1.example.com",
        signer: key_of(1),
        outlook: None,
    }
}

fn key_of(number: u8) -> crate::vault::signing::VerifyingKey {
    key(number).verifying_key()
}

pub(crate) fn appended() -> Appended {
    Appended {
        sequence: 4711,
        sha256: "9f2c1d6be0c54f4d8a2f6a7a3a2a8f3f0d1b3c9e77a64f5a5b1f0e2d3c4b5a69".into(),
        previous: Some("41c0ffee5e7d2a9b8c6f1d3e5a7b9c0d2e4f6a8b0c1d3e5f7a9b1c3d5e7f9a0b".into()),
        signer: key_of(1).id(),
    }
}

fn phase(name: &str, offset: f64, seconds: f64, note: Option<&str>) -> Phase {
    Phase {
        name: name.into(),
        started_at: Some(at(offset)),
        seconds,
        basis: Basis::Measured,
        note: note.map(Into::into),
    }
}

fn check(id: &str, severity: Severity, title: &str, why: &str, result: CheckResult, detail: &str) -> Check {
    Check {
        id: id.into(),
        title: title.into(),
        why: why.into(),
        severity,
        scope: "retail".into(),
        result,
        detail: detail.into(),
        rows: Vec::new(),
        seconds: 0.21,
    }
}

/// Restored, sound, fast enough.
pub(crate) fn passed() -> DrillRecord {
    use CheckResult::{Info, NotApplicable, Passed};
    use Severity::{Baseline, Hard};
    let stop = StopPoint { timeline: Timeline(1), lsn: Lsn(0x3_A412_7F80), time: Some(at(-0.84)) };
    let residue_free = vec!["/var/tmp/lifeboat-drill-7Qk2".to_owned(), "PostgreSQL server (pid 48213)".to_owned()];
    DrillRecord {
        id: "drill-20261122T030000Z-5f3a".into(),
        schema_version: SCHEMA_VERSION,
        environment: "production".into(),
        purpose: "production".into(),
        owner: "erp-platform".into(),
        trigger: Trigger { kind: TriggerKind::Calendar, reference: Some("restore-tests/weekly.toml".into()) },
        operator: "lifeboat@db-1.example.com".into(),
        tool: Tool {
            version: "0.1.0".into(),
            binary_sha256: Some("b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c".into()),
        },
        config_digest: "7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730".into(),
        sources: Some(SourceSet {
            base_backup: "20261122T010000Z".into(),
            manifest: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae".into(),
            start_lsn: Lsn(0x3_9000_0028),
            stop_lsn: Lsn(0x3_9A00_1148),
            wal_first: "000000010000000300000090".into(),
            wal_last: "0000000100000003000000A4".into(),
            timeline: Timeline(1),
            filestores: vec![FilestoreSource {
                database: "retail".into(),
                capture: "20261122T025900Z-retail".into(),
                index: "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9".into(),
            }],
            configuration: Some("20261122T010212Z".into()),
            key_ids: vec!["epoch 1".into(), "age1qyqszqgp…kx5v".into()],
        }),
        incident_time: at(0.0),
        target: Target {
            requested: "latest".into(),
            resolved: Some(stop.clone()),
            actual: Some(stop),
            as_intended: true,
        },
        sampling: Some(Sampling {
            method: SamplingMethod::Latest,
            why: "the last transaction in the repository".into(),
            draw: None,
        }),
        restored: Some(Restored {
            databases: vec!["postgres".into(), "retail".into()],
            base_bytes: 4_509_715_660,
            wal_bytes: 0x1412_7F58,
            attachment_bytes: 224_706_560,
        }),
        sandbox: Some(Sandbox {
            kind: "local".into(),
            account: "postgres".into(),
            network: "Unix socket only".into(),
            server_version: "15.14 (Debian 15.14-0+deb12u1)".into(),
            sealed: Some(true),
            namespaces: ["ipc", "mnt", "net", "pid", "user", "uts"].map(Into::into).to_vec(),
            landlock_abi: Some(7),
            limits: vec!["disk: 40.0 GiB".into()],
            engine: None,
            images: Vec::new(),
        }),
        phases: vec![
            Phase {
                name: "detect and decide".into(),
                started_at: None,
                seconds: 900.0,
                basis: Basis::Assumed,
                note: Some("from the environment's objectives; a drill cannot measure people".into()),
            },
            phase("provision", 0.4, 0.6, None),
            phase("restoring files", 1.0, 22.4, Some("4.2 GiB at 192 MiB/s")),
            phase("replaying WAL", 23.4, 9.1, Some("336 MiB of WAL")),
            phase("restoring attachments", 27.9, 6.8, Some("906 files, 214.3 MiB")),
            phase("verifying files", 34.7, 5.2, None),
            phase("check", 39.9, 7.8, None),
        ],
        checks: vec![
            check(
                "A1",
                Hard,
                "Every journal entry balances",
                "An unbalanced entry means that lines of a booking were lost.",
                Passed,
                "18 402 entries, none unbalanced",
            ),
            check(
                "A2",
                Hard,
                "Balance equals debit minus credit",
                "A line that contradicts itself was not written by Odoo.",
                Passed,
                "0 rows",
            ),
            check(
                "A5",
                Hard,
                "Lines carry the state of their entry",
                "Out of step means that a transaction was restored by half.",
                Passed,
                "0 rows",
            ),
            check(
                "P1",
                Hard,
                "Paid orders are covered by payments",
                "A till order without its payment is money that cannot be explained.",
                Passed,
                "2 117 orders, all covered",
            ),
            check(
                "PG1",
                Hard,
                "Every page has the checksum it was written with",
                "A wrong checksum means that the storage or the backup damaged a page.",
                Passed,
                "539 812 pages read, 0 wrong",
            ),
            check(
                "PG2",
                Hard,
                "Indexes and tables agree (pg_amcheck)",
                "A damaged index gives wrong answers without an error.",
                Passed,
                "1 944 relations, no complaint",
            ),
            check(
                "A4",
                Baseline,
                "Invoice numbers have no gaps",
                "The tax office asks about gaps; they may exist in the source as well.",
                Passed,
                "0 rows",
            ),
            check(
                "S3",
                Baseline,
                "Stock valuation agrees with stock on hand",
                "Differences usually stem from the source.",
                NotApplicable,
                "stock_account is not installed",
            ),
            check(
                "A7",
                Severity::Info,
                "Digest of the trial balance",
                "Two restores of the same second must agree.",
                Info,
                "c3ab8ff13720e8ad9047dd39466b3c89",
            ),
        ],
        attachments: vec![AttachmentReconciliation {
            database: "retail".into(),
            referenced: 906,
            present: 906,
            verified: 906,
            bytes: 224_706_560,
            missing: Vec::new(),
        }],
        neutralised: Vec::new(),
        boots: Vec::new(),
        egress: None,
        rpo: Some(Rpo {
            objective_seconds: 60.0,
            exposure_seconds: 0.84,
            loss_window_seconds: Some(0.61),
            lost_transactions: Some(2),
            lost_bytes: Some(4312),
            left_out_on_purpose: false,
            incident_time: at(0.0),
            last_recovered_commit_time: Some(at(-0.84)),
            last_durable_commit_time: Some(at(-0.84)),
            components: RpoComponents {
                database: Some(0.61),
                filestore: Some(0.61),
                configuration: Some(0.0),
                composite: Some(0.84),
            },
            met: true,
        }),
        rto: Rto::new(3600.0, Some(47.3), 900.0),
        selftest: None,
        cleanup: Cleanup {
            created: residue_free.clone(),
            destroyed: residue_free,
            residue: Vec::new(),
            verified_at: Some(at(49.1)),
        },
        findings: Vec::new(),
        error: None,
        killed_in: None,
        verdict: Verdict::Passed,
        started_at: at(0.4),
        finished_at: at(49.2),
    }
}

/// Restored, but the data is not what it must be.
pub(crate) fn failed() -> DrillRecord {
    let mut record = passed();
    record.id = "drill-20261129T030000Z-77c1".into();
    let unbalanced = &mut record.checks[0];
    unbalanced.result = CheckResult::Failed;
    unbalanced.detail = "3 entries do not balance".into();
    unbalanced.rows = vec![
        "move 88121 · INV/2026/11/0412 · debit 1 249.00 · credit 1 049.00".into(),
        "move 88124 · INV/2026/11/0415 · debit 318.40 · credit 0.00".into(),
        "move 88130 · <script>alert('never')</script> · debit 9.90 · credit 0.00".into(),
    ];
    record.checks[5].result = CheckResult::Error;
    record.checks[5].detail = "pg_amcheck: connection to server was lost after 1 203 relations".into();
    record.checks[6].result = CheckResult::Failed;
    record.checks[6].detail = "1 gap: BNK1/2026/00077 is followed by BNK1/2026/00079".into();
    record.attachments[0].present = 904;
    record.attachments[0].verified = 904;
    record.attachments[0].missing = vec![
        MissingAttachment {
            store_fname: "3f/3f786850e387550fdab836ed7e6dc881de23001b".into(),
            model: Some("account.move".into()),
            id: 5123,
            cause: MissingCause::LostByUs,
        },
        MissingAttachment {
            store_fname: "89/89e6c98d92887913cadf06b2adb97f26cde4849b".into(),
            model: None,
            id: 88,
            cause: MissingCause::DamagedAtSource,
        },
    ];
    record.findings = vec![
        "the clock of db-1 is 2.4 s ahead of the repository's".into(),
        "1 attachment was already damaged before it could be backed up".into(),
    ];
    record.cleanup.destroyed.pop();
    record.cleanup.residue = vec!["PostgreSQL server (pid 48213)".into()];
    record.verdict = Verdict::Failed;
    record
}

/// Restored and sound, but too slow.
pub(crate) fn missed() -> DrillRecord {
    let mut record = passed();
    record.rto = Rto::new(600.0, Some(47.3), 900.0);
    record.verdict = Verdict::ObjectiveMissed;
    record
}

/// Ended before anything could be measured.
pub(crate) fn crashed() -> DrillRecord {
    let mut record = passed();
    record.error = Some("data/9f2c… is missing in file:///srv/backups/estate".into());
    record.phases.truncate(2);
    record.checks.clear();
    record.attachments.clear();
    record.rpo = None;
    record.rto = Rto::new(3600.0, None, 900.0);
    record.target.actual = None;
    record.target.as_intended = false;
    record.sandbox = None;
    record.restored = None;
    record.verdict = Verdict::Failed;
    record
}

/// Lifeboat was killed, and the next start recorded it.
pub(crate) fn killed() -> DrillRecord {
    let mut record = crashed();
    record.id = "drill-20261122T050000Z-0c11".into();
    record.error = Some("Lifeboat was killed while replaying WAL".into());
    record.killed_in = Some("replaying WAL".into());
    record.verdict = Verdict::NotCompleted;
    record
}
