//! `lifeboat restore tenant`, and what `lifeboat refresh` shares with it.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use secrecy::SecretString;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::EnvironmentArgument;
use super::context::Context;
use super::output::Outcome;
use super::restore::{TIME, planned, tools};
use crate::config::{Environment, OdooConfig};
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::postgres::base_backup::new_id;
use crate::postgres::replication::TlsTrust;
use crate::postgres::source::Source;
use crate::restore::Wishes;
use crate::restore::masking::Masking;
use crate::restore::tenant::{self, Aside, Destination, Done, IntoCluster, Neutralise, Programs, Target, Wish};
use crate::restore::tools::major;
use crate::units::{ByteSize, Span, Timeline};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("destination").required(true).args(["into_cluster", "odoo_zip"])))]
#[command(after_help = "\"The shop's database was damaged yesterday at 14:02, the others are fine\":\n\
  lifeboat restore tenant -e production --database shop --to \"2026-11-22 14:01:59+01:00\" \\\n    \
    --into-cluster production --as shop_1401\n\
The running cluster and everything in it stay as they are; the new database stays hidden from Odoo until you say\n\
otherwise. runbooks/tenant.md goes on from there.")]
pub(crate) struct Arguments {
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
    let copy = Wanted {
        mask: arguments.mask,
        new_identity: arguments.new_identity,
        ..arguments.original.wanted(context, &arguments.to)?
    };
    let done = match (&arguments.into_cluster, &arguments.new_name, &arguments.odoo_zip) {
        (Some(cluster), Some(name), _) => {
            let target = Target::connect(cluster_of(context, cluster)?).await?;
            let place = Place {
                target: &target,
                name,
                owner: arguments.owner.as_deref(),
                filestore: Filestore::of(
                    arguments.filestore.as_deref(),
                    arguments.no_filestore,
                    home(context, cluster).unwrap_or(copy.environment),
                )?,
                hidden: !arguments.release,
            };
            make(context, &copy, To::Cluster(&place)).await?
        }
        (_, _, Some(file)) => make(context, &copy, To::Archive(&absolute(file)?)).await?,
        _ => return Err(error::usage("say where to: --into-cluster with --as, or --odoo-zip")),
    };
    let hidden = arguments.into_cluster.is_some() && !arguments.release;
    let advice = Advice { hidden, same_identity: !arguments.new_identity && arguments.into_cluster.is_some() };
    Ok(outcome(&done, &advice))
}

/// What is copied.
pub(super) struct Wanted<'a> {
    pub(super) environment: &'a Environment,
    pub(super) database: &'a str,
    pub(super) to: &'a str,
    pub(super) timeline: Option<Timeline>,
    pub(super) work_dir: Option<&'a Path>,
    pub(super) mask: bool,
    pub(super) new_identity: bool,
    pub(super) neutralise: Option<&'a dyn Neutralise>,
}

/// Where to.
pub(super) enum To<'a> {
    Cluster(&'a Place<'a>),
    Archive(&'a Path),
}

/// A place in a cluster.
pub(super) struct Place<'a> {
    pub(super) target: &'a Target,
    pub(super) name: &'a str,
    pub(super) owner: Option<&'a str>,
    pub(super) filestore: Filestore<'a>,
    pub(super) hidden: bool,
}

/// What becomes of the attachments.
pub(super) enum Filestore<'a> {
    Into(PathBuf),
    Nowhere,
    /// Into the data directory of this environment, if the cluster is its own.
    OfEnvironment(&'a Environment),
}

impl<'a> Filestore<'a> {
    /// What `--filestore` and `--no-filestore` say; without either, the place is that of `environment`.
    pub(super) fn of(directory: Option<&Path>, nowhere: bool, environment: &'a Environment) -> Result<Self> {
        Ok(match (directory, nowhere) {
            (Some(directory), _) => Self::Into(absolute(directory)?),
            (None, true) => Self::Nowhere,
            (None, false) => Self::OfEnvironment(environment),
        })
    }
}

/// Makes the copy.
pub(super) async fn make(context: &Context, copy: &Wanted<'_>, to: To<'_>) -> Result<Done> {
    let (environment, runtime) = (copy.environment, &context.runtime);
    let work_dir = copy.work_dir.map(absolute).transpose()?;
    let work_dir = work_dir.or(environment.drill.work_dir.clone()).unwrap_or_else(std::env::temp_dir);
    let target = match &to {
        To::Cluster(place) => Some(place.target),
        To::Archive(_) => None,
    };
    tenant::reap(&work_dir, target, runtime).await?;
    let secret = masking_secret(context, copy)?;
    let masking = secret.as_ref().map(|secret| Masking { rules: &context.estate.masking, secret });
    let id = new_id(runtime.now())?;
    let pgdata = Aside::pgdata_of(&work_dir, &id);
    let wishes = Wishes { pgdata, filestore: None, configuration: None, recover: true, delta: false, force: false };
    let (repository, catalogue, plan) =
        planned(context, environment, &copy.to.parse()?, copy.timeline, &wishes).await?;
    let restored = major(&plan.base.server_version);
    let path = std::env::var_os("PATH");
    let programs = Programs::find(&environment.postgres, restored, target.map(|t| t.major), path.as_deref())?;
    let filestore;
    let destination = match to {
        To::Cluster(place) => {
            place.target.admit(place.name, place.owner, restored).await?;
            filestore = directory(place, copy.database, &plan.base.system_id)?;
            if let Some(filestore) = &filestore {
                tenant::require_free(filestore)?;
            }
            Destination::Cluster(IntoCluster {
                target: place.target,
                name: place.name,
                owner: place.owner,
                filestore: filestore.as_deref(),
                hidden: place.hidden,
            })
        }
        To::Archive(path) => {
            tenant::require_free(path)?;
            Destination::Archive(path)
        }
    };
    for warning in &plan.warnings {
        runtime.emit(Event::Warning(warning.clone()));
    }
    let tools = tools(context, environment, repository, catalogue, &plan)?;
    let wish = Wish {
        database: copy.database,
        destination,
        programs,
        masking,
        new_identity: copy.new_identity,
        neutralise: copy.neutralise,
    };
    let stop = interrupted()?;
    let what = format!("{} of {}", copy.database, environment.name);
    let aside = Aside::create(&work_dir, &id, &what)?;
    tenant::run(&tools, &plan, &wish, aside, stop).await
}

/// What the key of the masks is derived from.
fn masking_secret(context: &Context, copy: &Wanted<'_>) -> Result<Option<SecretString>> {
    if !copy.mask {
        return Ok(None);
    }
    if context.estate.masking.is_empty() {
        return Err(error::config("the configuration has no masking rules").meaning("nothing was restored").hint(
            "masking/odoo.toml comes with Lifeboat: add it to `include`, and rules for your own columns beside it",
        ));
    }
    let identity = context.recovery()?.ok_or_else(|| error::denied("no recovery identity is configured"))?;
    Ok(Some(SecretString::from(identity.to_text().as_str())))
}

/// SIGINT or SIGTERM.
fn interrupted() -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).or_err(ErrorKind::Internal, || "cannot listen for signals".to_owned());
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The environment that `--into-cluster` names, if it names one.
fn home<'a>(context: &'a Context, cluster: &str) -> Option<&'a Environment> {
    context.estate.environments.iter().find(|e| e.name == cluster)
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

/// Where the attachments go.
fn directory(place: &Place<'_>, database: &str, system_id: &str) -> Result<Option<PathBuf>> {
    let environment = match &place.filestore {
        Filestore::Into(directory) => return Ok(Some(directory.clone())),
        Filestore::Nowhere => return Ok(None),
        Filestore::OfEnvironment(environment) => environment,
    };
    let unknown = |why: String| {
        error::usage(format!("where do the attachments go? {why}")).meaning("nothing was restored").hint(
            "name Odoo's directory with --filestore DATA_DIR/filestore/NEW, or leave them out with --no-filestore",
        )
    };
    let own = Source::new(&environment.postgres).is_ok_and(|s| place.target.is_reached_by(&s));
    if !own && place.target.system_id != system_id {
        return Err(unknown(format!("the cluster at {} is not that of {}", place.target.place, environment.name)));
    }
    let lists = |odoo: &&OdooConfig| odoo.databases.iter().flatten().any(|d| d == database);
    let has = |odoo: &&OdooConfig| odoo.data_dir.join("filestore").join(database).is_dir();
    let odoo = environment.odoo.iter().find(lists).or_else(|| environment.odoo.iter().find(has));
    let odoo = odoo.or(environment.odoo.first());
    let odoo = odoo.ok_or_else(|| unknown(format!("{} has no [[environment.odoo]]", environment.name)))?;
    let filestores = odoo.data_dir.join("filestore");
    match filestores.is_dir() {
        true => Ok(Some(filestores.join(place.name))),
        false => Err(unknown(format!("{} is not on this host", filestores.display()))),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).or_err(ErrorKind::Usage, || format!("{} is not a path", path.display()))
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
