//! Checks that are themselves checked: damage is done to copies of a restored, green cluster, and every damage must
//! turn a check red. What nobody notices here, nobody would notice on the day.
//!
//! * `cases`: what is done, as data;
//! * `copy`: copies to be damaged;
//! * `damage`: doing it;
//! * `facts`: what of this cluster can be damaged;
//! * `attachments`: attachments verified where they lie.
//!
//! The drill itself is the first half of the test: the undamaged copy must be green.

mod attachments;
mod cases;
mod copy;
mod damage;
mod facts;

use std::time::Instant;

use self::attachments::verify;
use self::cases::{CASES, Case, Damage, Sql};
use self::copy::Copy;
use self::damage::{change, on_disk};
pub use self::facts::Facts;
use super::checks::{Circumstances, Reference};
use super::neutralise::{self, Elsewhere, Means};
use super::run::Request;
use super::{boot, checks, judges, reconcile};
use crate::checks::Answers;
use crate::error::Result;
use crate::event::Event;
use crate::evidence::drill_record::{AttachmentReconciliation, Check};
use crate::evidence::selftest::{DamageCase, DamageOutcome};
use crate::postgres::server::PrivateServer;
use crate::postgres::sql::explain;
use crate::restore::tools::work_dir;
use crate::restore::{Plan, Resolved, Tools};

/// How a self-test is to be run.
#[derive(Debug, Default)]
pub struct Options {
    /// Another place behind the target to which recovery could go on.
    pub beyond: Option<Resolved>,
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
    /// Where Odoo's installation is, if it is not this host's.
    pub elsewhere: Option<Elsewhere<'a>>,
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
pub async fn after(tools: &Tools, request: &Request<'_>, sound: &Sound<'_>) -> Vec<DamageCase> {
    match control(tools, request, sound).await {
        Ok(red) if red.is_empty() => {}
        Ok(red) => return not_done_after(&format!("an undamaged copy is red: {}", red.join(", "))),
        Err(e) => return not_done_after(&format!("an undamaged copy could not be checked: {e}")),
    }
    let mut done = Vec::new();
    for case in CASES.iter().filter(|c| !matches!(c.damage, Damage::LoseSegment | Damage::StopShort)) {
        let began = Instant::now();
        let came = damaged(tools, request, case, sound).await;
        done.push(told(tools, case, came, began));
    }
    done
}

/// What is red on a copy to which nothing was done: that would be red in every case, and hide what is not found.
async fn control(tools: &Tools, request: &Request<'_>, sound: &Sound<'_>) -> Result<Vec<String>> {
    let copy = Copy::make(&request.plan, request.sandbox.root().join("damaged"), true, false).await?;
    let work = work_dir(&tools.temporary)?;
    let (server, _) = tools.recover(&copy.plan, work.path()).await?;
    let red = look(tools, request, &copy.plan, &server, sound).await?;
    server.stop().await?;
    Ok(red)
}

/// The cases that need the recovered cluster, not done: a test without them is not complete.
fn not_done_after(why: &str) -> Vec<DamageCase> {
    let mut cases = not_done(why);
    cases
        .retain(|c| !CASES.iter().any(|k| k.id == c.id && matches!(k.damage, Damage::LoseSegment | Damage::StopShort)));
    cases.iter_mut().for_each(|c| c.outcome = DamageOutcome::Missed);
    cases
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

/// Why no mail server can come back to life.
const NOT_NEUTRALISED: &str =
    "this drill does not neutralise: [environment.drill.odoo] does not say where Odoo's code is";

/// Makes mail servers of production active again, or gives the dummy the address of one.
const REVIVE: &str = "UPDATE public.ir_mail_server SET active = true, \
     smtp_host = CASE smtp_host WHEN 'invalid' THEN 'mail.production.example' ELSE smtp_host END \
     WHERE smtp_host <> 'invalid' OR NOT EXISTS (SELECT FROM public.ir_mail_server WHERE smtp_host <> 'invalid')";

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

async fn damaged(tools: &Tools, request: &Request<'_>, case: &Case, sound: &Sound<'_>) -> Result<Came> {
    let needs_files =
        matches!(case.damage, Damage::DeleteAttachments | Damage::CorruptAttachments | Damage::EmptyFilestore);
    if let Some(why) = impossible(case, request, sound) {
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
            let came = revived(&server, request, sound).await?;
            server.stop().await?;
            return Ok(came);
        }
        _ => {}
    }
    red.extend(look(tools, request, &copy.plan, &server, sound).await?);
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

/// Neutralises the copy as a drill does, and brings a mail server of production back to life behind its back.
async fn revived(server: &PrivateServer, request: &Request<'_>, sound: &Sound<'_>) -> Result<Came> {
    let means = Means::at(request.environment, boot::base_url(boot::PORT), sound.elsewhere.as_ref()).await?;
    let (Some(means), Some(database)) = (means, &sound.facts.odoo) else {
        return Ok(Came::Skipped(NOT_NEUTRALISED.into()));
    };
    let Some(done) = neutralise::database(server, database, &means.settings()).await? else {
        return Ok(Came::Skipped(format!("{database} is not a database of Odoo")));
    };
    if !done.is_proven() {
        // What is red before the damage does not find it.
        let red = reds(&done.checks).join(", ");
        return Ok(Came::Missed(format!("{database} is not proven to be neutralised before any damage: {red}")));
    }
    let client = server.sql(database).await?;
    let alive = client.execute(REVIVE, &[]).await.map_err(|e| explain(e, "cannot revive a mail server"))?;
    let detail = format!("{alive} mail server(s) of {database}");
    let red = reds(&done.verify(server, &means.settings()).await?);
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
fn impossible(case: &Case, request: &Request<'_>, sound: &Sound<'_>) -> Option<String> {
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
        Damage::ReviveMailServer if request.environment.drill.odoo.is_none() => NOT_NEUTRALISED,
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
}
