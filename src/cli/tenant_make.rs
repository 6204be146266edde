//! One database of an environment made again elsewhere: what `lifeboat restore tenant` and `lifeboat refresh` share.
//!
//! Into the cluster of an environment it goes only as that environment wants it: not while a calendar forbids restores, and
//! with the approval of a second person where it asks for one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use super::approval::{Gate, Pass};
use super::context::{Context, host_name};
use super::restore::{planned, tools};
use crate::config::{Environment, OdooConfig};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::evidence::approval::{PlannedRestore, PlannedTenant};
use crate::postgres::base_backup::new_id;
use crate::postgres::replication::TlsTrust;
use crate::postgres::source::Source;
use crate::repository::Repository;
use crate::repository::catalogue::Catalogue;
use crate::restore::masking::Masking;
use crate::restore::tenant::{self, Aside, Destination, Done, IntoCluster, Neutralise, Programs, Target, Wish};
use crate::restore::tools::major;
use crate::restore::{Plan, Wishes, approval};
use crate::units::Timeline;

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

impl To<'_> {
    fn target(&self) -> Option<&Target> {
        match self {
            To::Cluster(place) => Some(place.target),
            To::Archive(_) => None,
        }
    }
}

/// A place in a cluster.
pub(super) struct Place<'a> {
    pub(super) target: &'a Target,
    /// The environment that was named; `None` where a connection string was.
    pub(super) environment: Option<&'a Environment>,
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

/// What is made, once it is known that it can be.
struct Prepared {
    work_dir: PathBuf,
    id: String,
    repository: Arc<Repository>,
    catalogue: Arc<Catalogue>,
    plan: Plan,
    programs: Programs,
    /// Where attachments go.
    filestore: Option<PathBuf>,
}

/// Finds out what would be done, and refuses what cannot be; touches nothing.
async fn prepare(context: &Context, copy: &Wanted<'_>, to: &To<'_>) -> Result<Prepared> {
    let environment = copy.environment;
    let work_dir = work_dir(copy)?;
    let id = new_id(context.runtime.now())?;
    let pgdata = Aside::pgdata_of(&work_dir, &id);
    let wishes = Wishes { pgdata, filestore: None, configuration: None, recover: true, delta: false, force: false };
    let (repository, catalogue, plan) =
        planned(context, environment, &copy.to.parse()?, copy.timeline, &wishes).await?;
    let restored = major(&plan.base.server_version);
    let path = std::env::var_os("PATH");
    let loads = to.target().map(|t| t.major);
    let programs = Programs::find(&environment.postgres, restored, loads, path.as_deref())?;
    let filestore = match to {
        To::Cluster(place) => {
            place.target.admit(place.name, place.owner, restored).await?;
            let filestore = directory(place, copy.database, &plan.base.system_id)?;
            if let Some(filestore) = &filestore {
                tenant::require_free(filestore)?;
            }
            filestore
        }
        To::Archive(path) => {
            tenant::require_free(path)?;
            None
        }
    };
    Ok(Prepared { work_dir, id, repository, catalogue, plan, programs, filestore })
}

fn work_dir(copy: &Wanted<'_>) -> Result<PathBuf> {
    let work_dir = copy.work_dir.map(absolute).transpose()?;
    Ok(work_dir.or(copy.environment.drill.work_dir.clone()).unwrap_or_else(std::env::temp_dir))
}

/// What an approval is bound to, and whose people decide.
pub(super) struct Bound<'a> {
    pub(super) repository: Arc<Repository>,
    /// The environment into whose cluster it goes.
    pub(super) environment: &'a Environment,
    pub(super) plan: PlannedRestore,
}

/// What an approval of a copy into `place` would be bound to.
///
/// # Errors
/// Usage where the cluster is of no environment: then nobody has to approve.
pub(super) async fn bound<'a>(context: &'a Context, copy: &Wanted<'_>, place: &Place<'_>) -> Result<Bound<'a>> {
    let prepared = prepare(context, copy, &To::Cluster(place)).await?;
    let environment = home(context, copy, place, &prepared).ok_or_else(|| {
        error::usage(format!("the cluster at {} is of no environment of the configuration", place.target.place))
            .meaning("nobody has to approve what is loaded into it")
    })?;
    let plan = planned_tenant(environment, copy, place, &prepared);
    Ok(Bound { repository: prepared.repository, environment, plan })
}

/// The environment whose cluster it is: the one that was named, that is reached at the same place, or whose data it is
/// where the cluster says that it is the same.
fn home<'a>(
    context: &'a Context,
    copy: &Wanted<'_>,
    place: &Place<'_>,
    prepared: &Prepared,
) -> Option<&'a Environment> {
    let named = |wanted: &Environment| context.estate.environments.iter().find(|e| e.name == wanted.name);
    let reached = |environment: &&Environment| {
        let dsn = environment.postgres.dsn.parse();
        dsn.is_ok_and(|dsn| place.target.is_reached_by(&Source::of(dsn, TlsTrust::Unverified)))
    };
    match place.environment {
        Some(environment) => named(environment),
        None => {
            let same = place.target.system_id == prepared.plan.base.system_id;
            let found = context.estate.environments.iter().find(reached);
            found.or_else(|| if same { named(copy.environment) } else { None })
        }
    }
}

fn planned_tenant(
    environment: &Environment,
    copy: &Wanted<'_>,
    place: &Place<'_>,
    prepared: &Prepared,
) -> PlannedRestore {
    let repository = &prepared.repository.descriptor.repository;
    let whole = approval::planned(&prepared.plan, repository, &host_name(), &HashMap::new());
    PlannedRestore {
        environment: environment.name.clone(),
        filestore: prepared.filestore.as_ref().map(|path| path.display().to_string()),
        pgdata: prepared.work_dir.display().to_string(),
        tenant: Some(PlannedTenant {
            cluster: place.target.place.clone(),
            hidden: place.hidden,
            masked: copy.mask,
            name: place.name.to_owned(),
            neutralised: copy.neutralise.is_some(),
            new_identity: copy.new_identity,
            of_database: copy.database.to_owned(),
            of_environment: copy.environment.name.clone(),
            owner: place.owner.map(str::to_owned),
        }),
        ..whole
    }
}

/// Makes the copy, if the environment into whose cluster it goes lets it.
pub(super) async fn make(context: &Context, copy: &Wanted<'_>, to: To<'_>, pass: &Pass) -> Result<Done> {
    let (environment, runtime) = (copy.environment, &context.runtime);
    tenant::reap(&work_dir(copy)?, to.target(), runtime).await?;
    let secret = masking_secret(context, copy)?;
    let masking = secret.as_ref().map(|secret| Masking { rules: &context.estate.masking, secret });
    let prepared = prepare(context, copy, &to).await?;
    // What would be refused anyway must not use up an approval.
    let home = match &to {
        To::Cluster(place) => home(context, copy, place, &prepared).map(|home| (home, *place)),
        To::Archive(_) => None,
    };
    match home {
        Some((home, place)) => {
            let gate = Gate { environment: home, repository: &prepared.repository, runtime };
            gate.open(context, planned_tenant(home, copy, place, &prepared), pass).await?;
        }
        None if pass.approval.is_some() => {
            return Err(error::usage("it goes into no environment's cluster, so there is nothing to approve")
                .meaning("nothing was restored; the approval was not used")
                .hint("leave out --approval"));
        }
        None => {}
    }
    let Prepared { work_dir, id, repository, catalogue, plan, programs, filestore } = prepared;
    let destination = match to {
        To::Cluster(place) => Destination::Cluster(IntoCluster {
            target: place.target,
            name: place.name,
            owner: place.owner,
            filestore: filestore.as_deref(),
            hidden: place.hidden,
        }),
        To::Archive(path) => Destination::Archive(path),
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

pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).or_err(ErrorKind::Usage, || format!("{} is not a path", path.display()))
}
