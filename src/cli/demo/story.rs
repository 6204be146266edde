//! The demo from beginning to end: a shop sells while it is backed up, loses everything, comes back, and
//! is held against the till's journal. Every step is the one that the command of that name takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::cluster::{Cluster, Programs};
use super::estate::{self, DATABASE, ENVIRONMENT};
use super::place::Place;
use super::seed::{self, Scale, SeedSummary};
use super::teller::{Act, Teller};
use super::till::{Balance, Sold, Till};
use crate::cli::context::{Context, Keys};
use crate::cli::drill_conduct::{Aim, Conducted, Wish, conduct};
use crate::cli::restore as restore_command;
use crate::cli::text::counted;
use crate::configuration::store as configuration;
use crate::error::{ErrorKind, Result, ResultExt, internal};
use crate::event::Event;
use crate::filestore::capture;
use crate::postgres::backup::{self, BaseOptions};
use crate::postgres::wal_receive::{ReceiveOptions, Received, Slot, Until, receive};
use crate::repository::Repository;
use crate::restore::{self, Target, Wishes};
use crate::runtime::Runtime;
use crate::units::{ByteSize, Span};

/// How long the till sells on after the first backups, while WAL and documents follow.
const SELLING: Duration = Duration::from_secs(4);

/// Pause between two captures of the filestore.
const CAPTURE_EVERY: Duration = Duration::from_secs(1);

/// Everything that came of it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) major: u32,
    pub(super) programs: Programs,
    pub(super) shop: SeedSummary,
    pub(super) disaster: Disaster,
    pub(super) plan: restore::Plan,
    pub(super) restored: restore::Done,
    /// From the disaster's end to a running database.
    pub(super) recovery: Duration,
    pub(super) journal: Vec<Sold>,
    pub(super) balance: Balance,
    pub(super) journal_file: PathBuf,
    pub(super) drill: Conducted,
    pub(super) acts: Vec<Act>,
}

/// What the disaster was.
#[derive(Debug, serde::Serialize)]
pub(super) struct Disaster {
    /// When the plug was pulled.
    pub(super) at: DateTime<Utc>,
    /// Processes killed.
    pub(super) processes: usize,
}

/// Plays the whole demo in `place`, with the servers of PostgreSQL `major`.
pub(super) async fn play(place: &Place, major: u32, bin_dir: &Path, teller: &Teller) -> Result<Ended> {
    let runtime = teller.runtime();
    let programs = Programs { bin_dir: bin_dir.to_owned(), account: place.account().cloned() };
    let (cluster, shop) = open_shop(place, major, &programs, teller, &runtime).await?;
    let context = teller
        .act(
            "making the repository",
            "A repository is made in a folder, encrypted; only the recovery key, made just now, can open it.",
            estate::make(place, bin_dir, &runtime),
        )
        .await?;
    let context = Arc::new(context);
    let repository = Arc::new(context.repository(Keys::Write).await?);

    let till = Till::open(cluster.sql(DATABASE).await?, filestore(place), &runtime);
    let receiving = Receiving::start(&context, &repository)?;
    let received = receiving.first();
    teller
        .act("receiving WAL", "A till sells without a pause; from now on WAL streams into the repository.", received)
        .await?;
    back_up(&context, &repository, teller, &till).await?;
    let capturing = capture_on(&context, &repository);
    teller.act("selling", "The shop goes on selling.", sell_on(&till, &receiving)).await?;

    let (disaster, journal) = pull_the_plug(place, cluster, till, receiving, capturing, teller).await?;

    let began = Instant::now();
    let environment = context.environment(ENVIRONMENT)?;
    let (plan, restored) = bring_back(place, &context, teller).await?;
    let counting = count(place, &programs, began);
    let (present, recovery) =
        teller.act("counting", "The restored cluster is started, and its sales are counted.", counting).await?;
    let balance = Balance::strike(&journal, &present, disaster.at);
    let there = counted(balance.restored as u64, "sale is", "sales are");
    teller.result(&format!("{there} there, {} lost", counted(balance.lost.len() as u64, "is", "are")));

    let wish = Wish {
        aim: Aim::Target(Target::Latest),
        incident_time: Some(disaster.at),
        ask_source: false,
        report: place.report(),
        keep: false,
        selftest: false,
    };
    let drill = teller
        .act(
            "drill",
            "A drill: restored once more, from the repository alone, checked by rules and by PostgreSQL's own judges.",
            conduct(&context, environment, &wish),
        )
        .await?;
    let journal_file = place.report().join(format!("sales-{}.csv", drill.record.id));
    balance.write(&journal, &journal_file)?;
    let acts = teller.acts();
    Ok(Ended { major, programs, shop, disaster, plan, restored, recovery, journal, balance, journal_file, drill, acts })
}

/// Where Odoo would keep the documents of the shop.
fn filestore(place: &Place) -> PathBuf {
    place.join("production/odoo/filestore").join(DATABASE)
}

/// A cluster of its own, and in it a shop like one that has been running on Odoo for years.
async fn open_shop(
    place: &Place,
    major: u32,
    programs: &Programs,
    teller: &Teller,
    runtime: &Runtime,
) -> Result<(Cluster, SeedSummary)> {
    let data = place.server_directory("production/pgdata")?;
    let starting = async {
        programs.initdb(&data, place.sockets()).await?;
        Cluster::start(programs, &data, place.sockets(), place.join("production/server.log")).await
    };
    let sentence =
        format!("PostgreSQL {major} is started in {}; nothing else on this host is touched.", place.root().display());
    let cluster = teller.act("starting PostgreSQL", &sentence, starting).await?;
    let loading = async {
        let client = cluster.sql("postgres").await?;
        client
            .batch_execute(&format!("CREATE DATABASE {DATABASE} TEMPLATE template0"))
            .await
            .or_err(ErrorKind::Source, || "cannot create the demo's database".to_owned())?;
        let client = cluster.sql(DATABASE).await?;
        let files = filestore(place);
        std::fs::create_dir_all(&files).or_err(ErrorKind::Internal, || format!("cannot create {}", files.display()))?;
        estate::write_odoo_conf(place)?;
        seed::load(&client, &files, &Scale::standard(runtime.now())).await
    };
    let shop =
        teller.act("filling the shop", "A shop moves in: an Odoo-shaped database and its documents.", loading).await?;
    teller.result(&format!(
        "{} orders in {} of database, {} documents of {} beside it",
        shop.orders,
        ByteSize(shop.database_bytes),
        shop.files,
        ByteSize(shop.file_bytes)
    ));
    Ok((cluster, shop))
}

/// The first of each kind of backup, while the till sells.
async fn back_up(context: &Context, repository: &Repository, teller: &Teller, till: &Till) -> Result<()> {
    let environment = context.environment(ENVIRONMENT)?;
    let (level, runtime) = (context.level(), &context.runtime);
    let sold = till.count();
    let checks = context.estate.checks_for(environment).cloned().collect();
    let options = BaseOptions { reader: None, full: false, level, state_dir: None, checks };
    let base = backup::base(repository, environment, options, runtime);
    let base = teller.act("base backup", "Base backup of the whole cluster, while the till sells.", base).await?.entry;
    teller.result(&format!(
        "{} became {} in the repository; {} sales went on meanwhile",
        ByteSize(base.logical_bytes),
        ByteSize(base.stored_bytes),
        till.count() - sold
    ));
    let captured = capture_once(context, repository);
    let files = teller
        .act("filestore capture", "The documents are captured, each verified against its name.", captured)
        .await?;
    teller.result(&format!("{files} files"));
    let path = std::env::var_os("PATH");
    let export = configuration::export(repository, environment, &[], level, path.as_deref(), runtime);
    let sentence = "The configuration is exported: of PostgreSQL, of Odoo, roles, extensions.";
    let export = teller.act("configuration export", sentence, export).await?;
    teller.result(&format!("{} files", export.entry.files));
    for gap in &export.entry.unreadable {
        teller.result(&format!("not exported: {}: {}", gap.name, gap.reason));
    }
    Ok(())
}

/// One capture; gives the number of files in it.
async fn capture_once(context: &Context, repository: &Repository) -> Result<u64> {
    let environment = context.environment(ENVIRONMENT)?;
    let mut files = 0;
    for outcome in capture::all(repository, environment, context.level(), &context.runtime).await? {
        let captured = outcome.result?;
        if let Some(failure) = captured.failure() {
            return Err(failure);
        }
        files += captured.entry.files_present;
    }
    Ok(files)
}

/// Captures the filestore again and again, as a schedule would.
fn capture_on(context: &Arc<Context>, repository: &Arc<Repository>) -> AbortOnDropHandle<()> {
    let (context, repository) = (context.clone(), repository.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(CAPTURE_EVERY).await;
            if let Err(e) = capture_once(&context, &repository).await {
                context.runtime.emit(Event::Warning(format!("a capture of the filestore failed: {e}")));
            }
        }
    }))
}

/// WAL on its way into the repository, as `lifeboat wal receive` sends it. It has threads of its own, so
/// that it can die as with a machine: when the value is dropped, nothing of it goes on, and what it had
/// received and not stored is lost.
#[derive(Debug)]
struct Receiving {
    machine: Option<tokio::runtime::Runtime>,
    task: JoinHandle<Result<Received>>,
    durable: watch::Receiver<bool>,
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            machine.shutdown_background();
        }
    }
}

impl Receiving {
    fn start(context: &Arc<Context>, repository: &Arc<Repository>) -> Result<Self> {
        let machine = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let machine = machine.or_err(ErrorKind::Internal, || "cannot start the receiver of WAL".to_owned())?;
        let (context, repository) = (context.clone(), repository.clone());
        let (tell, durable) = watch::channel(false);
        let events = context.runtime.clone();
        let runtime = Runtime::new(move |event| {
            if matches!(event, Event::WalDurable { .. }) {
                tell.send_replace(true);
            }
            events.emit(event);
        });
        let task = machine.spawn(async move {
            let options = ReceiveOptions {
                slot: Slot::Configured,
                until: Until::stopped(),
                heartbeat: true,
                level: context.level(),
                give_up_after: None,
                blocks: Some(context.block_files(context.environment(ENVIRONMENT)?)),
            };
            let environment = context.environment(ENVIRONMENT)?;
            receive(&repository, environment, options, &CancellationToken::new(), &runtime).await
        });
        Ok(Self { machine: Some(machine), task, durable })
    }

    /// Waits until the first WAL is durable.
    async fn first(&self) -> Result<()> {
        let mut durable = self.durable.clone();
        tokio::select! {
            told = durable.wait_for(|durable| *durable) => {
                told.map(|_| ()).map_err(|e| internal("the receiver of WAL ended before it received any").source(e))
            }
            () = tokio::time::sleep(Duration::from_secs(60)) => Err(internal("no WAL reached the repository in a minute")),
        }
    }
}

/// Lets the till sell; its journal must grow and the receiver must live.
async fn sell_on(till: &Till, receiving: &Receiving) -> Result<()> {
    let before = till.count();
    tokio::time::sleep(SELLING).await;
    if till.count() == before {
        return Err(internal("the demo's till sold nothing").hint("the machine may be too busy: run the demo again"));
    }
    match receiving.task.is_finished() {
        true => Err(internal("the receiver of WAL ended before the disaster")),
        false => Ok(()),
    }
}

/// The disaster: server, receiver and capture die at once, and what the machine had on its disks is gone.
async fn pull_the_plug(
    place: &Place,
    cluster: Cluster,
    till: Till,
    receiving: Receiving,
    capturing: AbortOnDropHandle<()>,
    teller: &Teller,
) -> Result<(Disaster, Vec<Sold>)> {
    let dying = async {
        let at = teller.runtime().now();
        // Dropped, not stopped: what they had in hand is lost, as with the machine.
        drop(receiving);
        drop(capturing);
        let processes = cluster.pull_the_plug().await?;
        let journal = till.journal().await?;
        let production = place.join("production");
        std::fs::remove_dir_all(&production)
            .or_err(ErrorKind::Internal, || format!("cannot remove {}", production.display()))?;
        Ok((Disaster { at, processes }, journal))
    };
    let sentence = "Now we pull the plug: kill -9, no warning, data directory and filestore deleted.";
    let (disaster, journal) = teller.act("disaster", sentence, dying).await?;
    let acknowledged = journal.iter().filter(|s| s.acknowledged.is_some()).count();
    teller.result(&format!(
        "{} processes killed; the till's journal has {acknowledged} acknowledged sales",
        disaster.processes
    ));
    Ok((disaster, journal))
}

/// Restores to the last possible moment.
async fn bring_back(place: &Place, context: &Context, teller: &Teller) -> Result<(restore::Plan, restore::Done)> {
    let environment = context.environment(ENVIRONMENT)?;
    let wishes = Wishes {
        pgdata: place.join("restored/pgdata"),
        filestore: Some(place.join("restored/filestore")),
        configuration: Some(place.join("restored/configuration")),
        recover: true,
        delta: false,
        force: false,
    };
    let planning = restore_command::planned(context, environment, &Target::Latest, None, &wishes);
    let sentence = "A plan is made first: to the last moment that the repository holds.";
    let (repository, catalogue, plan) = teller.act("planning the restore", sentence, planning).await?;
    if let Some(last) = &plan.target.last_kept {
        teller.result(&format!("last transaction that will survive: {}", last.time.format("%H:%M:%S%.3f UTC")));
    }
    let tools = restore_command::tools(context, environment, repository, catalogue, &plan)?;
    let restoring = restore::run(&tools, &plan);
    let sentence =
        "Restore: base backup, WAL up to that moment, then exactly the documents that the database refers to.";
    let restored = teller.act("restore", sentence, restoring).await?;
    for phase in &restored.entry.phases {
        let took = Span(Duration::try_from_secs_f64(phase.seconds).unwrap_or_default());
        teller.result(&format!("{:36} {took}", phase.name));
    }
    Ok((plan, restored))
}

/// The sales in the restored cluster, and how long it took to have it running.
async fn count(place: &Place, programs: &Programs, began: Instant) -> Result<(Vec<u64>, Duration)> {
    let (data, log) = (place.join("restored/pgdata"), place.join("restored/server.log"));
    let cluster = Cluster::start(programs, &data, place.sockets(), log).await?;
    let recovery = began.elapsed();
    let present = seed::sold(&cluster.sql(DATABASE).await?).await?;
    cluster.stop().await?;
    Ok((present, recovery))
}
