//! `[[job]]`: what the service does by schedule, and what it does where nothing is said.

use std::time::Duration;

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Environment;
use super::check::is_name;
use super::cron::{CronExpression, cron};
use super::estate::Purpose;
use super::job_kind::JobKind;
use super::raw::Located;
use super::repository::positive;
use super::source::Source;
use super::suggest::nearest;
use super::zone::zone;
use crate::error::Result;
use crate::units::Span;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const DEFAULT_TIMEOUT: Duration = DAY;
const DEFAULT_DEFERRAL: Duration = Duration::from_secs(8 * 7 * 86_400);
const DEFAULT_RETRIES: u32 = 3;
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(300);
/// More attempts than this are no plan, but a mistake.
const MOST_RETRIES: u32 = 100;

/// A job of the service, for each of its environments.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name, unique in the estate.
    pub name: String,
    /// What it does.
    pub kind: JobKind,
    /// The environments that it is for, in the order of the files.
    pub environments: Vec<String>,
    /// When it is due.
    pub cron: CronExpression,
    /// The zone whose clocks `cron` is about.
    pub time_zone: Tz,
    /// It begins up to so much later than due, always equally late for one occurrence and environment.
    pub jitter: Duration,
    /// It begins at most so long after it was due, or is missed; `None`: until it is due again.
    pub deadline: Option<Duration>,
    /// It is ended after so long.
    pub timeout: Duration,
    /// What becomes of occurrences that were due while no service ran.
    pub catch_up: CatchUp,
    /// The job that must have been done before, in the same environment.
    pub after: Option<String>,
    /// How long a calendar may put it off.
    pub max_deferral: Duration,
    /// What becomes of it then.
    pub when_deferred_too_long: TooLong,
    /// How often it is tried again after it failed.
    pub retries: u32,
    /// Pause before it is tried again the first time; doubles with each try.
    pub retry_after: Duration,
    /// Of `verify`: whether everything is read.
    pub deep: bool,
    /// Of `drill`: which moment is restored.
    pub sample: DrillSample,
    /// Whether it stands in no file.
    pub built_in: bool,
}

/// What becomes of occurrences that were due while no service ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// The newest is made up for; those before are missed.
    #[default]
    One,
    /// All are missed.
    None,
}

/// What becomes of a job that a calendar put off for longer than `max_deferral`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// It is missed, and recorded so.
    #[default]
    Miss,
    /// It runs in spite of the calendar.
    Run,
}

/// Which moment a scheduled drill restores, as `lifeboat drill run --sample` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DrillSample {
    /// The last transaction in the repository.
    Latest,
    /// The oldest moment that can be restored.
    Oldest,
    /// A random second.
    #[default]
    Random,
    /// Just before a base backup: the most WAL to replay.
    Longest,
}

impl DrillSample {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            DrillSample::Latest => "latest",
            DrillSample::Oldest => "oldest",
            DrillSample::Random => "random",
            DrillSample::Longest => "longest",
        }
    }
}

/// Something that the service does by schedule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Job")]
pub(super) struct RawJob {
    /// Its name, unique in the estate; appears in the ledger.
    name: Located<String>,
    /// What it does.
    kind: JobKind,
    /// Names of the environments that it is for; with neither this nor `purposes`: all.
    environments: Option<Located<Vec<Located<String>>>>,
    /// It is for the environments of these purposes too.
    #[serde(default)]
    purposes: Vec<Purpose>,
    /// When it is due: minute, hour, day of the month, month, day of the week.
    cron: Located<String>,
    /// The zone whose clocks `cron` is about, such as `Europe/Brussels`; default `UTC`.
    time_zone: Option<Located<String>>,
    /// It begins up to so much later than due, so that not all begin at once; default `0s`.
    jitter: Option<Located<Span>>,
    /// It begins at most so long after it was due, or is missed; absent: until it is due again.
    deadline: Option<Located<Span>>,
    /// It is ended after so long; default `1d`.
    timeout: Option<Located<Span>>,
    /// What becomes of occurrences that were due while no service ran: `one` (the newest is made up for) or `none`; default `one`.
    #[serde(default)]
    catch_up: CatchUp,
    /// Name of the job that must have been done before, in the same environment.
    after: Option<Located<String>>,
    /// How long a calendar may put it off; default `56d`.
    max_deferral: Option<Located<Span>>,
    /// What becomes of it then: `miss` or `run`; default `miss`.
    #[serde(default)]
    when_deferred_too_long: TooLong,
    /// How often it is tried again after it failed; default 3.
    retries: Option<Located<u32>>,
    /// Pause before it is tried again the first time; doubles with each try, up to 6 hours; default `5m`.
    retry_after: Option<Located<Span>>,
    /// Of `verify`: read everything that is stored; default false.
    deep: Option<Located<bool>>,
    /// Of `drill`: which moment is restored: `latest`, `oldest`, `random` or `longest`; default `random`.
    sample: Option<Located<DrillSample>>,
}

/// Where a job stands, for errors that need all jobs to be known.
#[derive(Debug)]
pub(super) struct JobPlace {
    pub(super) name: String,
    pub(super) after: Option<String>,
}

/// Judges one job; `environments` are all of the estate.
pub(super) fn job(source: &Source, raw: RawJob, environments: &[Environment]) -> Result<(Job, JobPlace)> {
    if !is_name(&raw.name.value) {
        return Err(source
            .error(&raw.name.span, "this is not the name of a job")
            .hint("use up to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit"));
    }
    if let Some(deep) = raw.deep.as_ref().filter(|_| raw.kind != JobKind::Verify) {
        return Err(source.error(&deep.span, format!("`deep` is for jobs of kind \"verify\", not \"{}\"", raw.kind)));
    }
    if let Some(sample) = raw.sample.as_ref().filter(|_| raw.kind != JobKind::Drill) {
        return Err(source.error(&sample.span, format!("`sample` is for jobs of kind \"drill\", not \"{}\"", raw.kind)));
    }
    if let Some(retries) = raw.retries.as_ref().filter(|r| r.value > MOST_RETRIES) {
        return Err(source.error(&retries.span, format!("{} retries are more than {MOST_RETRIES}", retries.value)));
    }
    let span = |key, raw: &Option<Located<Span>>| raw.as_ref().map(|raw| positive(source, key, raw)).transpose();
    let place = JobPlace {
        name: source.place(&raw.name.span),
        after: raw.after.as_ref().map(|after| source.place(&after.span)),
    };
    let job = Job {
        cron: cron(source, &raw.cron)?,
        time_zone: zone(source, raw.time_zone.as_ref())?,
        environments: chosen(source, raw.environments, &raw.purposes, environments)?,
        kind: raw.kind,
        jitter: raw.jitter.map(|jitter| jitter.value.0).unwrap_or_default(),
        deadline: span("deadline", &raw.deadline)?,
        timeout: span("timeout", &raw.timeout)?.unwrap_or(DEFAULT_TIMEOUT),
        catch_up: raw.catch_up,
        after: raw.after.map(|after| after.value),
        max_deferral: span("max_deferral", &raw.max_deferral)?.unwrap_or(DEFAULT_DEFERRAL),
        when_deferred_too_long: raw.when_deferred_too_long,
        retries: raw.retries.map_or(default_retries(raw.kind), |retries| retries.value),
        retry_after: span("retry_after", &raw.retry_after)?.unwrap_or(DEFAULT_RETRY_AFTER),
        deep: raw.deep.is_some_and(|deep| deep.value),
        sample: raw.sample.map(|sample| sample.value).unwrap_or_default(),
        name: raw.name.value,
        built_in: false,
    };
    Ok((job, place))
}

/// The environments that `names` and `purposes` choose; with neither all.
pub(super) fn chosen(
    source: &Source,
    names: Option<Located<Vec<Located<String>>>>,
    purposes: &[Purpose],
    environments: &[Environment],
) -> Result<Vec<String>> {
    let all = names.is_none() && purposes.is_empty();
    let names = names.map(|names| names.value).unwrap_or_default();
    let known = || environments.iter().map(|e| e.name.as_str());
    for name in &names {
        if !known().any(|known| known == name.value) {
            let error = source.error(&name.span, format!("there is no environment \"{}\"", name.value));
            return Err(match nearest(&name.value, known()) {
                Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                None if environments.is_empty() => error.hint("no included file holds an [[environment]]"),
                None => error.hint(format!("environments: {}", known().collect::<Vec<_>>().join(", "))),
            });
        }
    }
    let is_chosen = |e: &&Environment| all || purposes.contains(&e.purpose) || names.iter().any(|n| n.value == e.name);
    Ok(environments.iter().filter(is_chosen).map(|e| e.name.clone()).collect())
}

/// Judges what only shows when all jobs are seen together: names used twice, and `after`.
pub(super) fn judge_together(jobs: &[Job], places: &[JobPlace]) -> Result<()> {
    use crate::error::config;
    for (n, (job, place)) in jobs.iter().zip(places).enumerate() {
        if let Some(first) = jobs[..n].iter().position(|other| other.name == job.name) {
            return Err(config(format!("{}: the job \"{}\" is defined twice", place.name, job.name))
                .hint(format!("the other one stands at {}; give one of them another name", places[first].name)));
        }
    }
    for (job, place) in jobs.iter().zip(places) {
        let (Some(after), Some(at)) = (&job.after, &place.after) else { continue };
        let Some(first) = jobs.iter().find(|other| other.name == *after) else {
            let error = config(format!("{at}: there is no job \"{after}\""));
            return Err(match nearest(after, jobs.iter().map(|j| j.name.as_str())) {
                Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                None => error,
            });
        };
        if let Some(lacks) = job.environments.iter().find(|e| !first.environments.contains(e)) {
            return Err(config(format!("{at}: \"{}\" waits for \"{after}\", which is not for {lacks}", job.name))
                .meaning("it would wait for ever there")
                .hint(format!("let \"{after}\" be for {lacks} too, or make two jobs of \"{}\"", job.name)));
        }
        let (mut step, mut steps) = (first, 0);
        while let Some(next) = step.after.as_ref().and_then(|name| jobs.iter().find(|j| j.name == *name)) {
            steps += 1;
            if step.name == job.name || steps > jobs.len() {
                return Err(config(format!("{at}: \"{}\" waits for itself", job.name))
                    .meaning("none of the jobs in this circle would ever run"));
            }
            step = next;
        }
    }
    Ok(())
}

/// How often a job is tried again. A drill that failed is an answer, not an accident: trying until one passes would hide it.
fn default_retries(kind: JobKind) -> u32 {
    match kind {
        JobKind::Drill | JobKind::Policy => 0,
        _ => DEFAULT_RETRIES,
    }
}

/// What the service does where no `[[job]]` is configured: enough that nothing is forgotten. Times are in UTC.
pub(super) fn built_in(environments: &[Environment]) -> Vec<Job> {
    let job = |name: &str, kind, cron: &str, jitter: Duration| Job {
        name: name.to_owned(),
        kind,
        environments: environments.iter().map(|e| e.name.clone()).collect(),
        cron: CronExpression::parse(cron).expect("a built-in expression is valid"),
        time_zone: Tz::UTC,
        jitter,
        deadline: None,
        timeout: DEFAULT_TIMEOUT,
        catch_up: CatchUp::One,
        after: None,
        max_deferral: DEFAULT_DEFERRAL,
        when_deferred_too_long: TooLong::Miss,
        retries: default_retries(kind),
        retry_after: DEFAULT_RETRY_AFTER,
        deep: false,
        sample: DrillSample::Random,
        built_in: true,
    };
    let half = HOUR / 2;
    vec![
        job("base-daily", JobKind::Base, "0 1 * * *", half),
        job("filestore-daily", JobKind::Filestore, "0 2 * * *", half),
        job("configuration-daily", JobKind::Configuration, "30 2 * * *", half),
        job("prune-daily", JobKind::Prune, "0 5 * * *", half),
        job("verify-weekly", JobKind::Verify, "0 6 * * SUN", HOUR),
        Job { deep: true, ..job("verify-deep-monthly", JobKind::Verify, "0 7 1 * *", HOUR) },
        Job { after: Some("base-daily".to_owned()), ..job("drill-weekly", JobKind::Drill, "0 3 * * SAT", HOUR) },
        job("report-monthly", JobKind::Report, "0 8 1 * *", half),
    ]
}
