//! `lifeboat restore`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches, Subcommand};
use serde_json::json;

use super::EnvironmentArgument;
use super::approval::{Gate, Pass};
use super::context::{Context, Keys, host_name};
use super::output::Outcome;
use super::tenant;
use crate::config::Environment;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::postgres::account::Account;
use crate::postgres::launch::OnHost;
use crate::postgres::tools::bin_dir;
use crate::repository::Repository;
use crate::repository::catalogue::Catalogue;
use crate::repository::wal_archive::WalArchive;
use crate::restore::{self, Plan, Target, Tools, Wishes, approval};
use crate::units::{ByteSize, Span, Timeline};

/// The whole environment by its flags; what is less than that has a subcommand.
#[derive(Debug)]
pub(crate) enum Command {
    Whole(Box<Arguments>),
    Part(Box<Part>),
}

// By hand, since the derived code cannot tell "no flags at all" from "flags beside a subcommand" and asks for neither.
impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        match matches.subcommand_name() {
            Some(_) => Part::from_arg_matches(matches).map(|part| Self::Part(Box::new(part))),
            None => Arguments::from_arg_matches(matches).map(|arguments| Self::Whole(Box::new(arguments))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Command {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = Part::augment_subcommands(Arguments::augment_args(command));
        command.subcommand_required(false).subcommand_negates_reqs(true).args_conflicts_with_subcommands(true)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Restore one database alone, beside what runs: into a cluster under a new name, or as an archive for Odoo
    Tenant(tenant::Arguments),
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,

    /// Only print what would be done; touches nothing
    #[arg(long)]
    plan: bool,

    #[command(flatten)]
    pass: Pass,
}

/// What is restored, to when and where to; an approval is asked for with the same flags.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    #[command(flatten)]
    environment: EnvironmentArgument,

    /// latest, a time with zone ("2026-11-22 20:35:00+01:00"), lsn:X/Y, name:RESTORE_POINT or backup:ID
    #[arg(long, value_name = "TARGET", default_value = "latest")]
    to: String,

    /// Empty or absent directory that becomes the PostgreSQL data directory (with --delta: or a stopped copy of it)
    #[arg(long, value_name = "DIR")]
    pgdata: PathBuf,

    /// Empty or absent directory for attachments: DIR/<database>/<2 hex>/<sha1>
    #[arg(long, value_name = "DIR")]
    filestore: Option<PathBuf>,

    /// Empty or absent directory for the exported configuration
    #[arg(long, value_name = "DIR")]
    configuration: Option<PathBuf>,

    /// Follow this timeline instead of the newest: what an old primary wrote after a failover is on its own
    #[arg(long, value_name = "N")]
    timeline: Option<u32>,

    /// Put a tablespace elsewhere; may be repeated
    #[arg(long, value_name = "OLD=NEW")]
    tablespace_mapping: Vec<String>,

    /// Restore over a stopped copy of this cluster, such as the old production directory: what is right there stays,
    /// what differs is fetched and written, what the backup does not have is removed
    #[arg(long)]
    delta: bool,

    /// With --delta: give up another cluster that lies there, or transactions that the repository does not have
    #[arg(long, requires = "delta")]
    force: bool,

    /// Leave recovery to your own start of the server; settings for it are written
    #[arg(long)]
    no_start: bool,
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Part(part) => {
            let Part::Tenant(arguments) = part.as_ref();
            tenant::run(arguments, context).await
        }
        Command::Whole(arguments) => whole(arguments, context).await,
    }
}

impl Wanted {
    /// The environment.
    pub(super) fn environment<'a>(&self, context: &'a Context) -> Result<&'a Environment> {
        context.environment(&self.environment.environment)
    }

    /// Where tablespaces go.
    pub(super) fn tablespaces(&self) -> Result<HashMap<String, PathBuf>> {
        mappings(&self.tablespace_mapping)
    }

    /// The plan, and what it is made from; touches nothing.
    pub(super) async fn plan(&self, context: &Context) -> Result<(Arc<Repository>, Arc<Catalogue>, Plan)> {
        let target: Target = self.to.parse()?;
        let wishes = Wishes {
            pgdata: absolute(&self.pgdata)?,
            filestore: self.filestore.as_ref().map(|d| absolute(d)).transpose()?,
            configuration: self.configuration.as_ref().map(|d| absolute(d)).transpose()?,
            recover: !self.no_start,
            delta: self.delta,
            force: self.force,
        };
        planned(context, self.environment(context)?, &target, self.timeline.map(Timeline), &wishes).await
    }
}

async fn whole(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let environment = arguments.wanted.environment(context)?;
    let tablespaces = arguments.wanted.tablespaces()?;
    let (repository, catalogue, mut plan) = arguments.wanted.plan(context).await?;
    let bound = approval::planned(&plan, &repository.descriptor.repository, &host_name(), &tablespaces);
    if arguments.plan {
        if let Some(refusal) = restore::delta_refused(&plan, &tablespaces, &catalogue) {
            plan.warnings.push(format!("as things are now, this would be refused: {}", refusal.message()));
        }
        let mut text = describe(&plan);
        if environment.restore.approval {
            text += &format!("\nneeds the approval of a second person: {}", super::approval::how_to_ask(&bound));
        }
        let needed = json!({ "required": environment.restore.approval, "plan_sha256": bound.sha256() });
        return Ok(Outcome::new(json!({ "plan": plan, "approval": needed }), text));
    }
    arguments.pass.allowed(context, environment)?;
    let gate = Gate { environment, repository: &repository, runtime: &context.runtime };
    // What would be refused anyway must not use up an approval.
    let continues = restore::continues(&plan, &tablespaces, &catalogue)?;
    gate.pass(bound, &arguments.pass, continues).await?;
    let mut tools = tools(context, environment, repository, catalogue, &plan)?;
    tools.tablespaces = tablespaces;
    for warning in &plan.warnings {
        tools.runtime.emit(crate::event::Event::Warning(warning.clone()));
    }
    let done = restore::run(&tools, &plan).await?;
    let json = json!({
        "plan": plan,
        "restore": done.entry,
        "transfer": done.transfer,
        "ledger": done.appended,
        "attachments": done.attachments.reconciled,
        "findings": done.attachments.findings,
    });
    Ok(Outcome::new(json, report(&plan, &done)).with_failure(missing(&done)))
}

/// The plan of a restore of `environment`, and what it is made from; touches nothing.
pub(crate) async fn planned(
    context: &Context,
    environment: &Environment,
    target: &Target,
    timeline: Option<Timeline>,
    wishes: &Wishes,
) -> Result<(Arc<Repository>, Arc<Catalogue>, Plan)> {
    let repository = Arc::new(context.repository(Keys::Read).await?);
    let catalogue = Arc::new(Catalogue::load(&repository, &environment.name).await?);
    let archive = WalArchive::new(&repository, &environment.name);
    let resolved = restore::resolve(archive, &catalogue, target, timeline).await?;
    let plan = restore::plan(&catalogue, resolved, wishes)?;
    Ok((repository, catalogue, plan))
}

/// A restore that could not bring back every attachment is partial, and says which are missing.
fn missing(done: &restore::Done) -> Option<error::Error> {
    let missing = &done.entry.missing_attachments;
    let named = missing.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    (!missing.is_empty()).then(|| {
        error::partial(format!("{} attachment(s) could not be restored: {named}", missing.len()))
            .meaning("the database and every other attachment are restored")
            .hint("the JSON form names the record that each belongs to, and whose fault it is")
    })
}

/// Everything that a restore of `environment` works with, or a drill that runs this host's PostgreSQL.
pub(crate) fn tools(
    context: &Context,
    environment: &Environment,
    repository: Arc<Repository>,
    catalogue: Arc<Catalogue>,
    plan: &Plan,
) -> Result<Tools> {
    let major = restore::tools::major(&plan.base.server_version);
    tools_at(context, environment, repository, catalogue, bin_dir(&environment.postgres, major)?)
}

/// The same with PostgreSQL's programs in `bin_dir`, where they are started.
pub(crate) fn tools_at(
    context: &Context,
    environment: &Environment,
    repository: Arc<Repository>,
    catalogue: Arc<Catalogue>,
    bin_dir: PathBuf,
) -> Result<Tools> {
    let dsn: tokio_postgres::Config =
        environment.postgres.dsn.parse().or_err(ErrorKind::Config, || "the dsn does not parse".to_owned())?;
    let program =
        std::env::current_exe().or_err(ErrorKind::Internal, || "cannot find this program's file".to_owned())?;
    let operator_command = format!(
        "{} -c {} wal fetch -e {} %f \"%p\"",
        program.display(),
        context.estate.file.display(),
        environment.name
    );
    let account = Account::for_servers(environment.postgres.run_as.as_deref())?;
    Ok(Tools {
        repository,
        catalogue,
        bin_dir,
        program,
        operator_command,
        launch: Arc::new(OnHost { account: account.clone() }),
        account,
        role: dsn.get_user().unwrap_or("postgres").to_owned(),
        tablespaces: HashMap::new(),
        temporary: std::env::temp_dir(),
        runtime: context.runtime.clone(),
    })
}

fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).or_err(ErrorKind::Usage, || format!("{} is not a path", path.display()))
}

fn mappings(given: &[String]) -> Result<HashMap<String, PathBuf>> {
    let mut mappings: HashMap<String, PathBuf> = HashMap::new();
    for mapping in given {
        let pair = mapping.split_once('=').filter(|(old, new)| old.starts_with('/') && new.starts_with('/'));
        let (old, new) = pair.ok_or_else(|| {
            error::usage(format!("\"{mapping}\" is not a tablespace mapping"))
                .hint("write --tablespace-mapping /old/place=/new/place")
        })?;
        if mappings.values().any(|v| v.as_path() == std::path::Path::new(new)) {
            return Err(error::usage(format!("two tablespaces are sent to {new}")));
        }
        mappings.insert(old.to_owned(), new.into());
    }
    Ok(mappings)
}

fn describe(plan: &Plan) -> String {
    let target = &plan.target;
    let mut text = format!("plan for {} to {}\n\n", plan.environment, target.requested);
    match &target.last_kept {
        Some(t) => text += &format!("last transaction kept:  {} (xid {}, {})\n", t.time.format(TIME), t.xid, t.lsn),
        None => text += "last transaction kept:  none since the base backup\n",
    }
    match &target.first_lost {
        Some(t) => text += &format!("first transaction lost: {} (xid {}, {})\n", t.time.format(TIME), t.xid, t.lsn),
        None => text += "first transaction lost: none that is in the repository\n",
    }
    text += &format!("stop behind:            {} on timeline {}\n\n", target.stop_end, target.timeline.0);
    text +=
        &format!("base backup:   {} of {}, {}\n", plan.base.id, plan.base.stop_time.format(TIME), ByteSize(plan.bytes));
    text += &format!("WAL to replay: {}\n", ByteSize(target.wal_bytes));
    text += &format!(
        "space needed:  {} for the data directory, attachments not counted\n",
        ByteSize(plan.bytes + target.wal_bytes)
    );
    text += &format!("data directory: {}\n", plan.pgdata.display());
    if plan.delta {
        text += "  what is right there stays, the rest is replaced; what the backup does not have is REMOVED\n";
        if plan.force {
            text += "  another cluster, or transactions that the repository lacks, are given up (--force)\n";
        }
    }
    if let Some(dir) = &plan.filestore {
        text += &format!("attachments:    {}\n", dir.display());
        for capture in &plan.filestores {
            text += &format!(
                "  {} from capture {}, complete to {}\n",
                capture.database,
                capture.capture,
                capture.complete_to.format(TIME)
            );
        }
    }
    if let (Some(dir), Some(export)) = (&plan.configuration, &plan.export) {
        text += &format!("configuration:  {} from export {export}\n", dir.display());
    }
    text += &match plan.estimate() {
        Some(estimate) => format!("probably takes: {} (from what was measured before)\n", Span(round(estimate))),
        None => "probably takes: unknown, no restore was measured yet\n".to_owned(),
    };
    text += "\nsteps:\n";
    for (number, step) in plan.steps.iter().enumerate() {
        text += &format!("  {}. {step}\n", number + 1);
    }
    for warning in plan.warnings.iter().chain(&plan.late_captures()) {
        text += &format!("\nwarning: {warning}\n");
    }
    text += "\nnothing was touched; the same command without --plan does it";
    text
}

pub(super) const TIME: &str = "%Y-%m-%d %H:%M:%S%.3f UTC";

fn round(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs().max(1))
}

fn report(plan: &Plan, done: &restore::Done) -> String {
    let target = &plan.target;
    let mut text = format!("restored {} to {}\n", plan.environment, plan.pgdata.display());
    if let Some(kept) = &target.last_kept {
        text += &format!("last transaction: {} (xid {})\n", kept.time.format(TIME), kept.xid);
    }
    match &done.stopped {
        Some(stopped) => {
            text += &format!(
                "recovery stopped at {}, exactly where it was meant to; the cluster is on timeline {} now and cleanly stopped\n",
                stopped.lsn, stopped.new_timeline.0
            );
            text += "next: start it with your service manager; it does not archive until `ALTER SYSTEM RESET archive_mode`\n";
        }
        None => {
            text += &format!("next: start the server; it will recover to {} and promote\n", target.stop_end);
            text += "its account must be able to run lifeboat and to read the configuration and the recovery key: \
                     `restore_command` in postgresql.auto.conf asks for them\n";
        }
    }
    if let Some(t) = done.transfer.filter(|t| t.kept_bytes > 0 || t.removed > 0) {
        text += &format!(
            "files: {} were right and stayed, {} were written ({} fetched), {} files and directories were removed\n",
            ByteSize(t.kept_bytes),
            ByteSize(t.written_bytes),
            ByteSize(t.fetched_bytes),
            t.removed
        );
    }
    for a in &done.attachments.reconciled {
        text += &format!(
            "attachments of {}: {} referenced, {} restored and verified, {} missing\n",
            a.database,
            a.referenced,
            a.verified,
            a.missing.len()
        );
    }
    for finding in &done.attachments.findings {
        text += &format!("note: {finding}\n");
    }
    for phase in &done.entry.phases {
        text += &format!("  {:24} {}\n", phase.name, Span(Duration::from_secs_f64(phase.seconds)));
    }
    if let Some(appended) = &done.appended {
        text += &format!("recorded as entry {} of the ledger", appended.sequence);
    }
    text
}
