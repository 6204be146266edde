//! Carrying it out: the cluster aside, the database out of it, and nothing left behind.

use std::future::Future;
use std::path::{Path, PathBuf};

use super::archive::{self, Archived, Contents, Manifest};
use super::aside::{self, Aside};
use super::dump;
use super::find::{Found, find};
use super::load::{Target, immutable_functions};
use super::objects::{self, Counted, Objects};
use super::place;
use super::wish::{Destination, IntoCluster, Wish};
use crate::disk::Owner;
use crate::error::{self, Result};
use crate::event::Event;
use crate::evidence::Appended;
use crate::evidence::drill_record::AttachmentReconciliation;
use crate::evidence::entry::{Restore, TenantRestore};
use crate::filestore::restore::PHASE as ATTACHMENTS;
use crate::postgres::base_backup::new_id;
use crate::postgres::server::PrivateServer;
use crate::postgres::sql::explain;
use crate::restore::attachments::{self, Wanted};
use crate::restore::masking::{self, Masked};
use crate::restore::phases::Phases;
use crate::restore::run::{entry, record, require_space};
use crate::restore::tools::{major, work_dir};
use crate::restore::{Plan, Tools};
use crate::runtime::{Runtime, blocking};

/// A database that was restored.
#[derive(Debug)]
pub struct Done {
    /// What the ledger says.
    pub entry: Restore,
    /// Where the ledger says it; `None` where this host may not write to it.
    pub appended: Option<Appended>,
    /// The database.
    pub found: Found,
    /// What was compared.
    pub counted: Counted,
    /// What became of its attachments; `None` where none were asked for.
    pub attachments: Option<AttachmentReconciliation>,
    /// The archive.
    pub archive: Option<Archived>,
    /// What was masked.
    pub masked: Option<Masked>,
    /// What somebody should know.
    pub notes: Vec<String>,
}

/// Removes what killed restores left below `parent`, and what of it is in `target`.
pub async fn reap(parent: &Path, target: Option<&Target>, runtime: &Runtime) -> Result<()> {
    aside::reap(parent, target, runtime).await
}

/// Restores the database; whatever happens, and also when `stop` comes first, nothing unfinished is left.
pub async fn run(
    tools: &Tools,
    plan: &Plan,
    wish: &Wish<'_>,
    mut aside: Aside,
    stop: impl Future<Output = ()>,
) -> Result<Done> {
    let target = match &wish.destination {
        Destination::Cluster(into) => Some(into.target),
        Destination::Archive(_) => None,
    };
    let outcome = tokio::select! {
        outcome = carry_out(tools, plan, wish, &mut aside) => outcome,
        () = stop => Err(error::interrupted(format!("stopped before {} was restored", wish.database))
            .meaning("what was made so far is removed again")),
    };
    let cleaned = aside.clean(target, &tools.runtime).await;
    match (outcome, cleaned) {
        (Ok(done), Ok(())) => Ok(done),
        (Ok(done), Err(e)) => {
            // The database is there and proven; what is left is named.
            tools.runtime.emit(Event::Warning(format!("the place of the restored cluster could not be removed: {e}")));
            Ok(done)
        }
        (Err(failure), Ok(())) => Err(failure),
        (Err(failure), Err(e)) => Err(failure.hint(format!("and what was made could not be removed: {e}"))),
    }
}

async fn carry_out(tools: &Tools, plan: &Plan, wish: &Wish<'_>, aside: &mut Aside) -> Result<Done> {
    let started_at = tools.runtime.now();
    let mut phases = Phases::new(&tools.runtime);
    let mut tools = tools.clone();
    let manifest = tools.manifest(plan).await?;
    require_space(plan, &manifest)?;
    // The original places belong to production.
    let places = manifest.links.iter().enumerate().map(|(n, (_, source))| (source.clone(), aside.tablespace(n)));
    tools.tablespaces = places.collect();
    let total = manifest.logical_bytes();
    let writing = tools.files(plan, manifest.clone(), false);
    phases.time(crate::restore::files::PHASE, Some(total), writing).await?;
    let work = sockets(&tools, aside)?;
    let recovering = tools.recover(plan, work.path());
    let (server, stopped) = phases.time("replaying WAL", None, recovering).await?;

    let found = find(&server, wish.database, &plan.target.requested).await?;
    let mut notes = Vec::new();
    let masked = change(wish, &server, &found, &mut phases, &mut notes).await?;
    let mut tenant = TenantRestore {
        database: found.name.clone(),
        uuid: found.uuid.clone(),
        new_identity: wish.new_identity,
        masked_columns: masked.as_ref().map_or(0, |m| m.columns.len() as u64),
        neutralised: wish.neutralise.is_some(),
        ..TenantRestore::default()
    };
    let session = Session { tools: &tools, plan, wish, server: &server, found: &found };
    let mut out = match &wish.destination {
        Destination::Cluster(into) => session.load(into, aside, &mut phases, &mut tenant).await?,
        Destination::Archive(path) => session.pack(path, aside, &mut phases, &mut tenant).await?,
    };
    notes.append(&mut out.notes);
    // It is thrown away: no checkpoint, no order.
    blocking(move || {
        drop(server);
        Ok(())
    })
    .await?;
    let mut entry = entry(plan, &manifest, Some(&stopped), started_at, &phases, new_id(started_at)?);
    entry.filestore = out.filestore.map(|d| d.display().to_string());
    entry.missing_attachments =
        out.attachments.iter().flat_map(|a| &a.missing).map(|m| format!("{}/{}", found.name, m.store_fname)).collect();
    entry.tenant = Some(tenant);
    let appended = record(&tools, plan, &entry).await;
    let Out { counted, attachments, archive, .. } = out;
    Ok(Done { entry, appended, found, counted, attachments, archive, masked, notes })
}

/// A directory for the private server's socket: in the place aside, unless its path is too long for a socket.
fn sockets(tools: &Tools, aside: &Aside) -> Result<tempfile::TempDir> {
    const LONGEST: usize = 70;
    match aside.root().as_os_str().len() <= LONGEST {
        true => work_dir(aside.root()),
        false => work_dir(&tools.temporary),
    }
}

/// Everything that makes the copy differ from the original, while it is still on the private server.
async fn change(
    wish: &Wish<'_>,
    server: &PrivateServer,
    found: &Found,
    phases: &mut Phases,
    notes: &mut Vec<String>,
) -> Result<Option<Masked>> {
    let mut masked = None;
    if let Some(masking) = &wish.masking {
        let session = server.sql(&found.name).await?;
        let done = masking::apply(&session, masking, found.uuid.as_deref());
        let done = phases.time("masking", None, done).await?;
        notes.extend(done.notes.iter().cloned());
        masked = Some(done);
    }
    if wish.new_identity {
        new_identity(server, found).await?;
    }
    if let Some(neutralise) = wish.neutralise {
        phases.time("neutralising", None, neutralise.neutralise(server, &found.name)).await?;
    }
    Ok(masked)
}

/// New `database.uuid` and secret, as Odoo's database manager gives a copy, and no registration.
async fn new_identity(server: &PrivateServer, found: &Found) -> Result<()> {
    if found.uuid.is_none() {
        return Err(error::usage(format!("{} has no database.uuid, so it can get no new one", found.name))
            .meaning("nothing was restored")
            .hint("leave out --new-identity"));
    }
    let sql = "UPDATE public.ir_config_parameter SET value = gen_random_uuid()::text
                WHERE key IN ('database.uuid', 'database.secret');
               DELETE FROM public.ir_config_parameter
                WHERE key IN ('database.enterprise_code', 'database.expiration_date', 'database.expiration_reason')";
    let client = server.sql(&found.name).await?;
    client.batch_execute(sql).await.map_err(|e| explain(e, "cannot give the database a new identity"))
}

/// What came out.
#[derive(Debug, Default)]
struct Out {
    counted: Counted,
    attachments: Option<AttachmentReconciliation>,
    archive: Option<Archived>,
    filestore: Option<PathBuf>,
    notes: Vec<String>,
}

/// What both destinations work with.
struct Session<'a> {
    tools: &'a Tools,
    plan: &'a Plan,
    wish: &'a Wish<'a>,
    server: &'a PrivateServer,
    found: &'a Found,
}

impl Session<'_> {
    async fn load(
        &self,
        into: &IntoCluster<'_>,
        aside: &mut Aside,
        phases: &mut Phases,
        tenant: &mut TenantRestore,
    ) -> Result<Out> {
        let (found, programs, target) = (self.found, &self.wish.programs, into.target);
        let mut out = Out::default();
        let original = self.server.sql(&found.name).await?;
        let marked = immutable_functions(&original, false).await?;
        let (tools, database) = (self.tools, &found.name);
        let root = aside.root().to_owned();
        let dumping =
            dump::archive(programs, tools.launch.as_ref(), tools.account.as_ref(), self.server, database, &root);
        let archive = phases.time("dumping the database", None, dumping).await?;
        let temporary = aside.loading(&target.system_id, &target.place)?;
        let loading = async {
            target.create(&temporary, found, into.owner).await?;
            target.fill(programs, &archive, &temporary, into.owner, &marked).await
        };
        phases.time("loading the database", None, loading).await?;
        let comparing = self.compare(&original, target, &temporary);
        let counted = phases.time("comparing the databases", None, comparing).await?;
        out.counted = objects::counted(&counted);
        if let Some(directory) = into.filestore.filter(|_| found.attachments) {
            let beside = aside.unfinished(directory)?;
            let restoring = self.filestore(&beside, place::owner_beside(directory), &mut out.notes);
            out.attachments = phases.time(ATTACHMENTS, None, restoring).await?;
            if out.attachments.is_some() {
                // Files first, then the database that refers to them.
                place::require_free(directory)?;
                place::give_name(&beside, directory)?;
                out.filestore = Some(directory.to_owned());
            }
        }
        drop(original);
        if let Err(e) = target.publish(&temporary, into.name, into.hidden).await {
            if let Some(directory) = &out.filestore {
                // Back to the name under which it is removed.
                place::give_name(directory, &aside.unfinished(directory)?)?;
            }
            return Err(e);
        }
        aside.loaded(&temporary)?;
        if !found.settings.is_empty() {
            out.notes.push(format!("settings of the database were not taken over: {}", found.settings.join(", ")));
        }
        tenant.cluster = Some(target.place.clone());
        tenant.system_id = Some(target.system_id.clone());
        tenant.name = Some(into.name.to_owned());
        (tenant.tables, tenant.rows) = (out.counted.tables, out.counted.rows);
        Ok(out)
    }

    /// The restored and the loaded database consist of the same objects, rows and values of sequences.
    async fn compare(&self, original: &tokio_postgres::Client, target: &Target, temporary: &str) -> Result<Objects> {
        let loaded = target.sql(temporary).await?;
        let (wanted, found) = tokio::try_join!(objects::list(original), objects::list(&loaded))?;
        let same_major = major(&self.plan.base.server_version) == target.major;
        let mut differences = objects::differences(&wanted, &found, same_major);
        if differences.is_empty() {
            return Ok(wanted);
        }
        let number = differences.len();
        differences.truncate(20);
        let error = error::integrity(format!(
            "the loaded database differs from the restored one in {number} place(s): {}",
            differences.join("; ")
        ));
        Err(error.meaning("the loaded database is removed again; nothing that existed was changed"))
    }

    async fn pack(
        &self,
        path: &Path,
        aside: &mut Aside,
        phases: &mut Phases,
        tenant: &mut TenantRestore,
    ) -> Result<Out> {
        let (found, tools) = (self.found, self.tools);
        let mut out = Out::default();
        let client = self.server.sql(&found.name).await?;
        let manifest = Manifest::read(&client, found, major(&self.plan.base.server_version)).await?;
        let filestore = aside.root().join("filestore");
        if found.attachments {
            let restoring = self.filestore(&filestore, None, &mut out.notes);
            out.attachments = phases.time(ATTACHMENTS, None, restoring).await?;
        }
        let listed = phases.time("listing the database", None, objects::list(&client)).await?;
        out.counted = objects::counted(&listed);
        let command = |section: usize| {
            let programs = &self.wish.programs;
            let mut command = dump::command(programs, "pg_dump", tools.launch.as_ref(), self.server, &found.name);
            command.args(archive::section_arguments(section));
            command
        };
        let contents = Contents {
            dumps: [command(0), command(1), command(2)].map(tokio::process::Command::into_std),
            immutable: immutable_functions(&client, true).await?,
            manifest,
            filestore: out.attachments.is_some().then_some(filestore),
        };
        let beside = aside.unfinished(path)?;
        let to = beside.clone();
        let writing = blocking(move || archive::write(&to, contents));
        let archived = phases.time("writing the archive", None, writing).await?;
        place::give_name(&beside, path)?;
        tenant.archive = Some(path.display().to_string());
        tenant.archive_sha256 = Some(archived.sha256.clone());
        (tenant.tables, tenant.rows) = (out.counted.tables, out.counted.rows);
        out.archive = Some(archived);
        Ok(out)
    }

    /// Exactly the files that the database refers to, each with the content that its name says.
    async fn filestore(
        &self,
        directory: &Path,
        owner: Option<Owner>,
        notes: &mut Vec<String>,
    ) -> Result<Option<AttachmentReconciliation>> {
        let (name, uuid) = (&self.found.name, self.found.uuid.as_deref());
        let client = self.server.sql(name).await?;
        let wanted = Wanted { database: name, uuid, directory, owner };
        let reconciled = attachments::one(self.tools, self.plan, &client, &wanted, notes).await?;
        if reconciled.is_none() {
            notes.push(format!("the filestore of {name} was never captured: no attachment was restored"));
        }
        Ok(reconciled)
    }
}
