//! The stages of a drill between provisioning and validation, in their order: files, replay, the asserted stop,
//! what needs the running server, what needs it stopped.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::boot::{self, Surroundings, Way};
use super::checks::Circumstances;
use super::compare::Baseline;
use super::neutralise::Elsewhere;
use super::record::Findings;
use super::run::Request;
use super::sandbox::{Part, Seal};
use super::{checks, judges, odoo, reconcile, selftest};
use crate::error::Result;
use crate::evidence::sampled::Restored;
use crate::postgres::launch::Launch;
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;
use crate::repository::base_manifest::BaseManifest;
use crate::restore::phases::Phases;
use crate::restore::{Tools, attachments};

/// Everything between provisioning and validation.
pub(super) async fn stages(
    tools: &Tools,
    request: &Request<'_>,
    seal: &dyn Seal,
    manifest: Arc<BaseManifest>,
    phases: &mut Phases,
    found: &mut Findings,
) -> Result<()> {
    let plan = &request.plan;
    let mut tools = tools.clone();
    tools.launch = seal.launch(Part::Server);
    if let Some(bin_dir) = seal.bin_dir() {
        bin_dir.clone_into(&mut tools.bin_dir);
    }
    // Whatever has a socket must lie where the sandbox sees it, and be found by whoever clears up.
    tools.temporary = request.sandbox.short().to_owned();
    if request.sandbox.program().exists() {
        // Linked from there it takes no space, and the sandbox sees it.
        tools.program = request.sandbox.program();
    }
    // A sandbox has its own tablespaces: the original places belong to production.
    tools.tablespaces = manifest
        .links
        .iter()
        .enumerate()
        .map(|(n, (_, source))| (source.clone(), request.sandbox.tablespace(n)))
        .collect::<HashMap<String, PathBuf>>();
    let total = manifest.logical_bytes();
    phases.time(crate::restore::files::PHASE, Some(total), tools.files(plan, manifest.clone(), false)).await?;
    let (bin_dir, launch) = (tools.bin_dir.clone(), Arc::clone(&tools.launch));
    let files_check =
        phases.time("verifying files", None, judges::verify_backup(&bin_dir, launch.as_ref(), &plan.pgdata)).await?;
    found.checks.push(files_check);
    let before = phases.seconds();
    if let Some(options) = &request.selftest {
        let cases = async { Ok(selftest::before_recovery(&tools, request, options).await) };
        found.damage = Some(phases.time("self-test of recovery", None, cases).await?);
    }
    // What a restore in earnest does not do is no part of its time.
    let mut aside = phases.seconds() - before;
    let mut baseline = Baseline::find(&tools, plan, &request.checks).await;
    found.checks.extend(baseline.stop_and_compare(&tools, request, manifest, phases).await?);
    aside += baseline.seconds;
    let work = request.sandbox.short();
    let (server, stopped) = phases.time("replaying WAL", None, tools.recover(plan, work)).await?;
    phases.note(format!("{} of WAL", crate::units::ByteSize(stopped.wal_bytes)));
    if let Some(sandbox) = &mut found.sandbox {
        sandbox.server_version.clone_from(&stopped.server_version);
    }
    found.checks.push(reconcile::stop(&plan.target, &stopped));
    found.stopped = Some(stopped);
    found.restored = Some(Restored { base_bytes: total, wal_bytes: plan.target.wal_bytes, ..Restored::default() });
    found.checks.extend(baseline.compare_at_the_target(&tools, request, &server, phases).await?);
    found.notes.extend(baseline.why_not().map(|why| format!("not compared with the source: {why}")));
    examine(&tools, request, seal, phases, found, &server, &baseline).await?;
    let facts = match &request.selftest {
        Some(_) => Some(selftest::Facts::of(&server).await?),
        None => None,
    };
    phases.time("stopping the server", None, server.stop()).await?;
    let checksums = plan.base.data_checksums;
    let pages = judges::page_checksums(&bin_dir, launch.as_ref(), &plan.pgdata, checksums);
    let pages = phases.time("checking page checksums", None, pages).await?;
    found.checks.push(pages);
    found.validated_after = Some(phases.seconds() - aside);
    if let Some(facts) = &facts {
        let odoo = seal.launch(Part::Odoo);
        let red: Vec<&str> = found.checks.iter().filter(|c| c.fails_the_drill()).map(|c| c.id.as_str()).collect();
        let cases = match red.is_empty() {
            true => {
                let sound = selftest::Sound {
                    facts,
                    attachments: &found.attachments.reconciled,
                    answers: baseline.at_the_target(),
                    why_not: baseline.why_not().unwrap_or("the source was asked in another state"),
                    elsewhere: elsewhere(seal, odoo.as_ref()),
                };
                let cases = async { Ok(selftest::after(&tools, request, &sound).await) };
                phases.time("self-test of the checks", None, cases).await?
            }
            // A check that is red anyway finds nothing.
            false => {
                found.damage = None;
                selftest::not_done(&format!("the undamaged copy is not green: {}", red.join(", ")))
            }
        };
        found.damage.get_or_insert_default().extend(cases);
    }
    Ok(())
}

/// What needs the running server: attachments by reference, the configured checks, the structure.
async fn examine(
    tools: &Tools,
    request: &Request<'_>,
    seal: &dyn Seal,
    phases: &mut Phases,
    found: &mut Findings,
    server: &PrivateServer,
    baseline: &Baseline,
) -> Result<()> {
    let restoring = attachments::restore(tools, &request.plan, server);
    found.attachments = phases.time(crate::filestore::restore::PHASE, None, restoring).await?;
    if let Some(restored) = &mut found.restored {
        restored.attachment_bytes = found.attachments.reconciled.iter().map(|a| a.bytes).sum();
        restored.databases = databases(&server.sql("template1").await?).await?;
    }
    let captures: Vec<_> = tools.catalogue.captures().collect();
    let tenants = phases.time("reconciling", None, reconcile::tenants(server, request.environment, &captures)).await?;
    found.checks.extend(found.attachments.reconciled.iter().map(reconcile::files));
    found.checks.extend(tenants);
    let circumstances = Circumstances {
        reference: baseline.reference(),
        rpo: request.environment.objectives.rpo,
        now: request.plan.target.last_kept.map(|t| t.time),
        launch: tools.launch.as_ref(),
        filestore: request.plan.filestore.as_deref(),
    };
    let checked = phases.time("running checks", None, checks::run(server, &request.checks, &circumstances)).await?;
    found.checks.extend(checked);
    let structure = judges::structure(&tools.bin_dir, tools.launch.as_ref(), server);
    let structure = phases.time("checking indexes", None, structure).await?;
    found.checks.push(structure);
    if request.selftest.is_some() {
        // Damaged copies are made of what was restored, not of what was made harmless.
        found.checks.extend(checks::without_odoo(&request.checks, "no Odoo is started in a self-test"));
        return Ok(());
    }
    let (filestore, home) = (request.sandbox.filestore(), request.sandbox.root().join("odoo"));
    let launch = seal.launch(Part::Odoo);
    // Without a seal there is no way in, and then no Odoo is started.
    let around = seal.way_in(boot::PORT).map(|socket| Surroundings {
        launch: launch.as_ref(),
        account: tools.account.as_ref(),
        filestore: &filestore,
        home: &home,
        port: boot::PORT,
        way: Way::Unix(socket),
    });
    let inputs = odoo::Inputs {
        environment: request.environment,
        server,
        around,
        checks: &request.checks,
        elsewhere: elsewhere(seal, launch.as_ref()),
    };
    found.odoo = phases.time("neutralising", None, odoo::neutralise(&inputs)).await?;
    let booted = phases.time("starting Odoo", None, odoo::boot(&inputs, &mut found.odoo)).await;
    found.checks.append(&mut found.odoo.checks);
    booted
}

/// Where Odoo's installation is, if it is not this host's.
fn elsewhere<'a>(seal: &'a dyn Seal, launch: &'a dyn Launch) -> Option<Elsewhere<'a>> {
    seal.own_program().map(|start| Elsewhere { launch, start })
}
