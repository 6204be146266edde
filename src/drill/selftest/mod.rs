//! Checks that are themselves checked: damage is done to copies of a restored, green cluster, and every damage must
//! turn a check red. What nobody notices here, nobody would notice on the day.
//!
//! * `cases`: what is done, as data;
//! * `copy`: copies to be damaged;
//! * `facts`: what of this cluster can be damaged;
//! * `attachments`: attachments verified where they lie.
//!
//! The drill itself is the first half of the test: the undamaged copy must be green.

mod attachments;
mod cases;
mod copy;
mod facts;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use async_trait::async_trait;
use tokio_postgres::Client;

use self::attachments::verify;
use self::cases::{CASES, Case, Damage, Sql};
use self::copy::Copy;
pub use self::facts::Facts;
use super::checks::{Circumstances, Reference};
use super::run::Request;
use super::{checks, judges, reconcile};
use crate::checks::Answers;
use crate::disk::failed;
use crate::error::{self, Result};
use crate::event::Event;
use crate::evidence::drill_record::{AttachmentReconciliation, Check};
use crate::evidence::selftest::{DamageCase, DamageOutcome};
use crate::postgres::server::PrivateServer;
use crate::restore::tools::work_dir;
use crate::restore::{Plan, Resolved, Tools};

/// Size of a page.
const PAGE: u64 = 8192;

/// Files of attachments that a case damages.
const FILES_DAMAGED: usize = 3;

/// Asserts that a database of a copy is neutralised. A drill that neutralises brings its own assertion here, for the
/// case in which a mail server is revived.
#[async_trait]
pub trait Neutralised: std::fmt::Debug + Send + Sync {
    /// Neutralises the database as a drill does.
    async fn neutralise(&self, server: &PrivateServer, database: &str) -> Result<()>;
    /// The checks that a drill makes of a neutralised database.
    async fn verify(&self, server: &PrivateServer, database: &str) -> Result<Vec<Check>>;
}

/// How a self-test is to be run.
#[derive(Debug, Default)]
pub struct Options {
    /// Another place behind the target to which recovery could go on.
    pub beyond: Option<Resolved>,
    /// How this drill neutralises; `None`: it does not.
    pub neutralised: Option<Box<dyn Neutralised>>,
}

/// What the undamaged copy told.
#[derive(Debug, Clone, Copy)]
pub struct Sound<'a> {
    /// What of it can be damaged.
    pub facts: &'a Facts,
    /// Attachments of each database.
    pub attachments: &'a [AttachmentReconciliation],
    /// What the source said of this state.
    pub answers: Option<&'a Answers>,
    /// Why the source said nothing.
    pub why_not: &'a str,
}

/// What damage came to.
enum Came {
    Found(Vec<String>, String),
    Missed(String),
    Skipped(String),
}

/// The cases that need the restored files before recovery.
pub async fn before_recovery(tools: &Tools, request: &Request<'_>, options: &Options) -> Vec<DamageCase> {
    let mut done = Vec::new();
    for case in CASES.iter().filter(|c| matches!(c.damage, Damage::LoseSegment | Damage::StopShort)) {
        let began = Instant::now();
        let came = recover(tools, request, case, options).await;
        done.push(told(tools, case, came, began));
    }
    done
}

/// The cases that need the recovered, stopped cluster.
pub async fn after(tools: &Tools, request: &Request<'_>, options: &Options, sound: &Sound<'_>) -> Vec<DamageCase> {
    let mut done = Vec::new();
    for case in CASES.iter().filter(|c| !matches!(c.damage, Damage::LoseSegment | Damage::StopShort)) {
        let began = Instant::now();
        let came = damaged(tools, request, case, options, sound).await;
        done.push(told(tools, case, came, began));
    }
    done
}

/// Every case, not done.
pub fn not_done(why: &str) -> Vec<DamageCase> {
    let skipped = |case: &Case| DamageCase {
        id: case.id.to_owned(),
        title: case.title.to_owned(),
        outcome: DamageOutcome::Skipped,
        caught_by: Vec::new(),
        detail: why.to_owned(),
        seconds: 0.0,
    };
    CASES.iter().map(skipped).collect()
}

/// An error of the self-test itself is no find: the damage was not shown to anybody.
fn told(tools: &Tools, case: &Case, came: Result<Came>, began: Instant) -> DamageCase {
    let (outcome, caught_by, detail) = match came {
        Ok(Came::Found(by, detail)) => (DamageOutcome::Found, by, detail),
        Ok(Came::Missed(detail)) => (DamageOutcome::Missed, Vec::new(), detail),
        Ok(Came::Skipped(why)) => (DamageOutcome::Skipped, Vec::new(), why),
        Err(e) => (DamageOutcome::Missed, Vec::new(), format!("the case could not be carried out: {e}")),
    };
    tools.runtime.emit(Event::Note(match outcome {
        DamageOutcome::Found => format!("{}: found by {}", case.id, caught_by.join(", ")),
        DamageOutcome::Missed => format!("{}: MISSED ({detail})", case.id),
        DamageOutcome::Skipped => format!("{}: skipped, {detail}", case.id),
    }));
    DamageCase {
        id: case.id.to_owned(),
        title: case.title.to_owned(),
        outcome,
        caught_by,
        detail,
        seconds: began.elapsed().as_secs_f64(),
    }
}

/// The stop of recovery, as every drill asserts it.
const STOP: &str = "R1";

async fn recover(tools: &Tools, request: &Request<'_>, case: &Case, options: &Options) -> Result<Came> {
    let target = options.beyond.as_ref().unwrap_or(&request.plan.target);
    let copy = Copy::make(&request.plan, request.sandbox.root().join("damaged"), true, false).await?;
    let mut plan = copy.plan.clone();
    plan.target = target.clone();
    let work = work_dir(&tools.temporary)?;
    match case.damage {
        Damage::LoseSegment => {
            let number = target.stop_end.previous_segment(plan.base.wal_segment_size);
            let what = format!("segment {number} of WAL");
            Ok(match tools.recover_without(&plan, number, work.path()).await {
                Ok(_) => Came::Missed(format!("recovery reached {} without {what}", target.stop_end)),
                Err(e) => Came::Found(vec![STOP.to_owned()], format!("{what}: {e}")),
            })
        }
        _ => {
            if options.beyond.is_none() {
                return Ok(Came::Skipped("the repository holds nothing behind the target".into()));
            }
            let stopped = tools.recover_elsewhere(&plan, &request.plan.target, work.path()).await?;
            let places = format!("stopped at {} instead of {}", stopped.lsn, target.stop_end);
            Ok(match stopped.as_intended(target) {
                true => Came::Missed(places),
                false => Came::Found(vec![STOP.to_owned()], places),
            })
        }
    }
}

async fn damaged(
    tools: &Tools,
    request: &Request<'_>,
    case: &Case,
    options: &Options,
    sound: &Sound<'_>,
) -> Result<Came> {
    let needs_files = matches!(
        case.damage,
        Damage::DeleteAttachments | Damage::CorruptAttachments | Damage::EmptyFilestore
    );
    if let Some(why) = impossible(case, request, options, sound) {
        return Ok(Came::Skipped(why));
    }
    let copy = Copy::make(&request.plan, request.sandbox.root().join("damaged"), true, needs_files).await?;
    let mut detail = on_disk(case, &copy.plan, sound.facts)?;
    let work = work_dir(&tools.temporary)?;
    let server = match tools.recover(&copy.plan, work.path()).await {
        Ok((server, _)) => server,
        Err(e) => return Ok(Came::Found(vec![STOP.to_owned()], format!("the server does not start: {e}"))),
    };
    let mut red = Vec::new();
    match case.damage {
        Damage::Sql(sql) => match change(&server, &sql, sound.facts).await? {
            Some(done) => detail = done,
            None => return Ok(Came::Skipped(sql.otherwise.to_owned())),
        },
        Damage::ReviveMailServer => {
            let (Some(neutralised), Some(database)) = (&options.neutralised, &sound.facts.odoo) else {
                return Ok(Came::Skipped("this drill does not neutralise".into()));
            };
            neutralised.neutralise(&server, database).await?;
            let client = server.sql(database).await?;
            let revive = "INSERT INTO public.ir_mail_server (name, smtp_host, smtp_port, smtp_authentication, \
                          smtp_encryption, active) VALUES ('revived', 'mail.example.com', 25, 'login', 'none', true)";
            client.batch_execute(revive).await.map_err(|e| error::internal(format!("cannot revive it: {e}")))?;
            red.extend(reds(&neutralised.verify(&server, database).await?));
        }
        _ => {}
    }
    if !matches!(case.damage, Damage::ReviveMailServer) {
        red.extend(look(tools, request, &copy.plan, &server, sound).await?);
    }
    server.stop().await?;
    // What a drill asks last is asked last here too, and only where nothing was found before.
    if red.is_empty() {
        let checksums = copy.plan.base.data_checksums;
        let pages = judges::page_checksums(&tools.bin_dir, tools.launch.as_ref(), &copy.plan.pgdata, checksums).await?;
        red.extend(reds(&[pages]));
    }
    red.sort();
    red.dedup();
    Ok(if red.is_empty() { Came::Missed(detail) } else { Came::Found(red, detail) })
}

/// Everything that a drill asks of a recovered cluster.
async fn look(
    tools: &Tools,
    request: &Request<'_>,
    plan: &Plan,
    server: &PrivateServer,
    sound: &Sound<'_>,
) -> Result<Vec<String>> {
    let mut results = Vec::new();
    if let Some(root) = &plan.filestore {
        for before in sound.attachments {
            // A database that is not there under its name is found below.
            if let Ok(now) = verify(server, root, before).await {
                results.push(reconcile::files(&now));
            }
        }
    }
    let captures: Vec<_> = tools.catalogue.captures().collect();
    results.extend(reconcile::tenants(server, request.environment, &captures).await?);
    let circumstances = Circumstances {
        reference: match sound.answers {
            Some(answers) => Reference::Here(answers),
            None => Reference::Nowhere(sound.why_not),
        },
        rpo: request.environment.objectives.rpo,
        now: plan.target.last_kept.map(|t| t.time),
        launch: tools.launch.as_ref(),
        filestore: plan.filestore.as_deref(),
    };
    results.extend(checks::run(server, &request.checks, &circumstances).await?);
    let red = reds(&results);
    if !red.is_empty() {
        return Ok(red);
    }
    Ok(reds(&[judges::structure(&tools.bin_dir, tools.launch.as_ref(), server).await?]))
}

fn reds(results: &[Check]) -> Vec<String> {
    results.iter().filter(|c| c.fails_the_drill()).map(|c| c.id.clone()).collect()
}

/// Why a case cannot be done here, where that is known before a copy is made.
fn impossible(case: &Case, request: &Request<'_>, options: &Options, sound: &Sound<'_>) -> Option<String> {
    let facts = sound.facts;
    let reason = match case.damage {
        Damage::TruncateRelation | Damage::FlipPage if facts.relation.is_none() => "no table holds a row",
        Damage::FlipPage if !request.plan.base.data_checksums => {
            "the cluster has no page checksums, so a changed byte in a value looks like any other value"
        }
        Damage::DeleteAttachments | Damage::CorruptAttachments | Damage::EmptyFilestore
            if sound.attachments.iter().all(|a| a.verified == 0) =>
        {
            "no attachment was restored"
        }
        Damage::ReviveMailServer if options.neutralised.is_none() => "this drill does not neutralise",
        Damage::Sql(Sql { in_odoo: true, .. }) | Damage::ReviveMailServer if facts.odoo.is_none() => {
            "no database of the cluster is Odoo's"
        }
        Damage::Sql(sql) if sql.statements.contains("{database}") && facts.odoo.is_none() => {
            "no database of the cluster is Odoo's"
        }
        _ => return None,
    };
    Some(reason.to_owned())
}

/// Damages files of the stopped copy; tells which.
fn on_disk(case: &Case, plan: &Plan, facts: &Facts) -> Result<String> {
    match case.damage {
        Damage::TruncateRelation | Damage::FlipPage => {
            let relation = facts.relation.as_ref().ok_or_else(|| error::internal("no relation was chosen"))?;
            let path = plan.pgdata.join(&relation.path);
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path);
            let file = file.map_err(|e| failed("cannot open", &path, e))?;
            let length = file.metadata().map_err(|e| failed("cannot look at", &path, e))?.len();
            let work = match case.damage {
                Damage::TruncateRelation => file.set_len(length / PAGE / 2 * PAGE),
                // The end of the first page: values of its first row.
                _ => flip(&file, PAGE - 8),
            };
            work.map_err(|e| failed("cannot damage", &path, e))?;
            Ok(format!("{} ({})", relation.name, relation.path))
        }
        Damage::DeleteAttachments | Damage::CorruptAttachments | Damage::EmptyFilestore => {
            let root = plan.filestore.as_deref().ok_or_else(|| error::internal("there are no attachments"))?;
            attachments_on_disk(case.damage, root)
        }
        _ => Ok(String::new()),
    }
}

fn attachments_on_disk(damage: Damage, root: &Path) -> Result<String> {
    if matches!(damage, Damage::EmptyFilestore) {
        std::fs::remove_dir_all(root).map_err(|e| failed("cannot remove", root, e))?;
        std::fs::create_dir(root).map_err(|e| failed("cannot create", root, e))?;
        return Ok("every file".to_owned());
    }
    let mut files: Vec<_> = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().filter_map(|e| e.ok()).collect();
    files.retain(|e| e.file_type().is_file());
    let step = (files.len() / FILES_DAMAGED).max(1);
    let mut named = Vec::new();
    for file in files.iter().step_by(step).take(FILES_DAMAGED) {
        let path = file.path();
        let done = match damage {
            Damage::DeleteAttachments => std::fs::remove_file(path),
            _ => std::fs::OpenOptions::new().read(true).write(true).open(path).and_then(|f| flip(&f, 0)),
        };
        done.map_err(|e| failed("cannot damage", path, e))?;
        named.push(path.strip_prefix(root).unwrap_or(path).display().to_string());
    }
    Ok(named.join(", "))
}

/// Changes one byte.
fn flip(file: &std::fs::File, at: u64) -> std::io::Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x55], at)
}

/// Changes rows of the running copy; `None` where there is nothing to change.
async fn change(server: &PrivateServer, sql: &Sql, facts: &Facts) -> Result<Option<String>> {
    let database = facts.odoo.as_deref().unwrap_or_default();
    let client: Client = server.sql(if sql.in_odoo { database } else { "template1" }).await?;
    let quoted = |text: &str| {
        text.replace("{role}", &format!("'{}'", facts.role.as_deref().unwrap_or_default().replace('\'', "''")))
            .replace("{database}", &format!("\"{}\"", database.replace('"', "\"\"")))
    };
    let possible = client.query_one(&quoted(sql.possible), &[]).await;
    if !possible.is_ok_and(|row| row.get(0)) {
        return Ok(None);
    }
    client
        .batch_execute(&quoted(sql.statements))
        .await
        .map_err(|e| crate::postgres::sql::explain(e, "cannot damage the copy"))?;
    Ok(Some(match sql.in_odoo {
        true => format!("database {database}"),
        false => quoted(sql.statements).rsplit("; ").next().unwrap_or_default().to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_and_the_issue_is_covered() {
        let mut ids: Vec<&str> = CASES.iter().map(|c| c.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), CASES.len());
        assert!(CASES.len() >= 12);
        assert!(not_done("why").iter().all(|c| c.outcome == DamageOutcome::Skipped && c.detail == "why"));
    }

    #[test]
    fn damage_to_files_is_done_and_named() {
        let dir = tempfile::tempdir().expect("dir");
        for name in ["shop/aa/1", "shop/bb/2", "shop/cc/3", "shop/dd/4"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("dir");
            std::fs::write(path, "content").expect("file");
        }
        let named = attachments_on_disk(Damage::CorruptAttachments, dir.path()).expect("done");
        assert_eq!(named, "shop/aa/1, shop/bb/2, shop/cc/3");
        let read = |name: &str| std::fs::read(dir.path().join(name)).expect("file");
        assert_ne!(read("shop/bb/2"), b"content");
        assert_eq!((read("shop/bb/2").len(), read("shop/dd/4").as_slice()), (7, b"content".as_slice()));
        attachments_on_disk(Damage::DeleteAttachments, dir.path()).expect("done");
        assert!(!dir.path().join("shop/aa/1").exists());
        attachments_on_disk(Damage::EmptyFilestore, dir.path()).expect("done");
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 0);
    }
}
