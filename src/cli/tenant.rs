//! `lifeboat restore tenant`: its flags and its report.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::json;

use super::EnvironmentArgument;
use super::approval::Pass;
use super::context::Context;
use super::output::Outcome;
use super::restore::TIME;
use super::tenant_make::{Bound, Filestore, Place, To, Wanted, absolute, bound, make};
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::postgres::replication::TlsTrust;
use crate::postgres::source::Source;
use crate::restore::tenant::{Done, Target};
use crate::units::{ByteSize, Span, Timeline};

#[derive(Debug, Args)]
#[command(after_help = "\"The shop's database was damaged yesterday at 14:02, the others are fine\":\n\
  lifeboat restore tenant -e production --database shop --to \"2026-11-22 14:01:59+01:00\" \\\n    \
    --into-cluster production --as shop_1401\n\
The running cluster and everything in it stay as they are; the new database stays hidden from Odoo until you say\n\
otherwise. runbooks/tenant.md goes on from there.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    asked: Asked,

    #[command(flatten)]
    pass: Pass,
}

/// What is restored and where to; an approval is asked for with the same flags.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("destination").required(true).args(["into_cluster", "odoo_zip"])))]
pub(crate) struct Asked {
    #[command(flatten)]
    original: Original,

    /// latest, a time with zone ("2026-11-22 20:35:00+01:00"), lsn:X/Y, name:RESTORE_POINT or backup:ID
    #[arg(long, value_name = "TARGET")]
    to: String,

    /// Load it into this cluster: an environment's name, or a connection string of a role that may create databases
    #[arg(long, value_name = "ENV|DSN", requires = "new_name")]
    into_cluster: Option<String>,

    /// The name there; no database may have it yet
    #[arg(long = "as", id = "new_name", value_name = "NEW", requires = "into_cluster")]
    new_name: Option<String>,

    /// Who owns the new database: the role of Odoo, if Odoo is to use it [default: the role of the connection]
    #[arg(long, value_name = "ROLE", requires = "into_cluster")]
    owner: Option<String>,

    /// Where its attachments go, DATA_DIR/filestore/NEW; absent or empty [default: in the data_dir of the environment,
    /// when the cluster is the environment's own]
    #[arg(long, value_name = "DIR", requires = "into_cluster", conflicts_with = "no_filestore")]
    filestore: Option<PathBuf>,

    /// Leave the attachments out
    #[arg(long, requires = "into_cluster")]
    no_filestore: bool,

    /// Let Odoo see the new database at once; without it, it is marked as a template, which Odoo does not list
    #[arg(long, requires = "into_cluster")]
    release: bool,

    /// Write an archive that Odoo's database manager restores (dump.sql, manifest.json, filestore); must not exist
    #[arg(long, value_name = "FILE")]
    odoo_zip: Option<PathBuf>,

    /// A new database.uuid and secret: for a copy that lives on beside its original
    #[arg(long)]
    new_identity: bool,

    /// Mask personal data by the rules of [masking]
    #[arg(long)]
    mask: bool,
}

/// Which database is copied.
#[derive(Debug, Args)]
pub(super) struct Original {
    #[command(flatten)]
    environment: EnvironmentArgument,

    /// Name of the database, as it was at the target
    #[arg(long, value_name = "NAME")]
    pub(super) database: String,

    /// Follow this timeline instead of the newest
    #[arg(long, value_name = "N")]
    timeline: Option<u32>,

    /// Directory for the whole cluster, which is restored aside and removed again [default: work_dir of the drills]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

impl Original {
    /// A copy as it was at `to`, with nothing changed.
    pub(super) fn wanted<'a>(&'a self, context: &'a Context, to: &'a str) -> Result<Wanted<'a>> {
        Ok(Wanted {
            environment: context.environment(&self.environment.environment)?,
            database: &self.database,
            to,
            timeline: self.timeline.map(Timeline),
            work_dir: self.work_dir.as_deref(),
            mask: false,
            new_identity: false,
            neutralise: None,
        })
    }
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let asked = &arguments.asked;
    let copy = asked.copy(context)?;
    let done = match (&asked.into_cluster, &asked.odoo_zip) {
        (Some(cluster), _) => {
            let target = Target::connect(cluster_of(context, cluster)?).await?;
            make(context, &copy, To::Cluster(&asked.place(context, cluster, &target, &copy)?), &arguments.pass).await?
        }
        (None, Some(file)) => make(context, &copy, To::Archive(&absolute(file)?), &arguments.pass).await?,
        (None, None) => return Err(nowhere()),
    };
    let hidden = asked.into_cluster.is_some() && !asked.release;
    let advice = Advice { hidden, same_identity: !asked.new_identity && asked.into_cluster.is_some() };
    Ok(outcome(&done, &advice))
}

fn nowhere() -> Error {
    error::usage("say where to: --into-cluster with --as, or --odoo-zip")
}

impl Asked {
    fn copy<'a>(&'a self, context: &'a Context) -> Result<Wanted<'a>> {
        Ok(Wanted { mask: self.mask, new_identity: self.new_identity, ..self.original.wanted(context, &self.to)? })
    }

    fn place<'a>(
        &'a self,
        context: &'a Context,
        cluster: &str,
        target: &'a Target,
        copy: &Wanted<'a>,
    ) -> Result<Place<'a>> {
        let named = context.estate.environments.iter().find(|environment| environment.name == cluster);
        let directory = self.filestore.as_deref();
        Ok(Place {
            target,
            environment: named,
            name: self.new_name.as_deref().ok_or_else(nowhere)?,
            owner: self.owner.as_deref(),
            filestore: Filestore::of(directory, self.no_filestore, named.unwrap_or(copy.environment))?,
            hidden: !self.release,
        })
    }

    /// What an approval of it would be bound to, and the environment whose people decide.
    pub(super) async fn planned<'a>(&'a self, context: &'a Context) -> Result<Bound<'a>> {
        let Some(cluster) = &self.into_cluster else {
            return Err(error::usage("an archive is written beside everything: it needs no approval")
                .hint("lifeboat restore tenant … --odoo-zip FILE"));
        };
        let copy = self.copy(context)?;
        let target = Target::connect(cluster_of(context, cluster)?).await?;
        bound(context, &copy, &self.place(context, cluster, &target, &copy)?).await
    }
}

/// The cluster that `--into-cluster` means.
fn cluster_of(context: &Context, cluster: &str) -> Result<Source> {
    if !cluster.contains('=') && !cluster.contains("://") {
        return Source::new(&context.environment(cluster)?.postgres);
    }
    // The text is not repeated: it may hold a password.
    let dsn = cluster.parse().or_err(ErrorKind::Usage, || "--into-cluster is not a connection string".to_owned())?;
    Ok(Source::of(dsn, TlsTrust::Unverified))
}

/// What is said about what to do next.
#[derive(Debug, Default)]
pub(super) struct Advice {
    /// The database is marked as a template.
    pub(super) hidden: bool,
    /// It says of itself that it is the original.
    pub(super) same_identity: bool,
}

/// The result in both forms.
pub(super) fn outcome(done: &Done, advice: &Advice) -> Outcome {
    let json = json!({
        "restore": done.entry,
        "ledger": done.appended,
        "database": done.found,
        "compared": done.counted,
        "attachments": done.attachments,
        "archive": done.archive,
        "masked": done.masked,
        "hidden": advice.hidden,
        "notes": done.notes,
    });
    Outcome::new(json, report(done, advice)).with_failure(missing(done))
}

/// A restore that could not bring back every attachment is partial, and says which are missing.
fn missing(done: &Done) -> Option<Error> {
    let missing = &done.entry.missing_attachments;
    let named = missing.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    (!missing.is_empty()).then(|| {
        error::partial(format!("{} attachment(s) could not be restored: {named}", missing.len()))
            .meaning("the database and every other attachment are restored")
            .hint("the JSON form names the record that each belongs to, and whose fault it is")
    })
}

fn report(done: &Done, advice: &Advice) -> String {
    let Some(tenant) = &done.entry.tenant else { return String::new() };
    let mut text = String::new();
    let uuid = tenant.uuid.as_deref().map(|uuid| format!(" (database.uuid {uuid})")).unwrap_or_default();
    if let (Some(name), Some(cluster)) = (&tenant.name, &tenant.cluster) {
        text += &format!("restored {}{uuid} as {name} at {cluster}\n", tenant.database);
    }
    if let (Some(file), Some(archive)) = (&tenant.archive, &done.archive) {
        text += &format!("restored {}{uuid} into {file}, {}\n", tenant.database, ByteSize(archive.bytes));
        text += &format!("sha256: {}\n", archive.sha256);
    }
    if let Some(time) = done.entry.resolved.time {
        text += &format!("last transaction: {}\n", time.format(TIME));
    }
    let counted = &done.counted;
    let what = if tenant.archive.is_some() { "in it" } else { "compared with the restored original, no difference" };
    text += &format!(
        "{what}: {} tables with {} rows, {} indexes, {} constraints, {} sequences, {} objects altogether\n",
        counted.tables, counted.rows, counted.indexes, counted.constraints, counted.sequences, counted.objects
    );
    match (&done.attachments, &done.entry.filestore) {
        (Some(a), directory) => {
            text += &format!("attachments: {} referenced, {} restored and verified", a.referenced, a.verified);
            text += &directory.as_ref().map(|d| format!(", in {d}\n")).unwrap_or_else(|| "\n".into());
        }
        (None, _) => text += "attachments: none were restored\n",
    }
    if let Some(masked) = &done.masked {
        text += &format!("masked: {} columns, {} rows written\n", masked.columns.len(), masked.rows);
    }
    for note in &done.notes {
        text += &format!("note: {note}\n");
    }
    if let (Some(name), true) = (&tenant.name, advice.hidden) {
        text += &format!(
            "{name} is hidden from Odoo: it is marked as a template, so that no scheduled job of a running Odoo touches it.\n\
             look at it with psql; when Odoo shall see it: ALTER DATABASE \"{name}\" WITH IS_TEMPLATE false\n"
        );
    }
    if advice.same_identity && tenant.uuid.is_some() {
        text += "it says of itself that it is the original (database.uuid and secret are kept): right when it takes the \
                 original's place, wrong when both live on (payments, IAP, sessions): then --new-identity\n";
    }
    for phase in &done.entry.phases {
        text += &format!("  {:24} {}\n", phase.name, Span(std::time::Duration::from_secs_f64(phase.seconds)));
    }
    if let Some(appended) = &done.appended {
        text += &format!("recorded as entry {} of the ledger", appended.sequence);
    }
    text
}
