//! `policy.toml`: what each kind of environment must have, as the organisation has decided, apart from what its owner
//! configures. [`Policy::load`] reads it; `crate::policy` holds estates against it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::NaiveDate;

use super::calendar::Effect;
use super::estate::{Environment, Estate, Purpose};
use super::job_kind::JobKind;
use super::policy_raw::{
    RawDrillDuty, RawException, RawLock, RawLockFor, RawPolicy, RawPolicySection, RawRetentionDuty, RawRule,
};
use super::raw::Located;
use super::read::text;
use super::repository::{LockMode, positive};
use super::source::Source;
use super::suggest::nearest;
use crate::error::{self, Result};
use crate::units::Span;

/// The file that is looked for beside `lifeboat.toml` where `[policy] file` names none.
const BESIDE: &str = "policy.toml";

/// What environments must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The file.
    pub file: PathBuf,
    /// The rules; every one that is for an environment binds it.
    pub rules: Vec<PolicyRule>,
    /// What is let pass for a time.
    pub exceptions: Vec<PolicyException>,
}

/// What some environments must have. What is `None` or empty is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Its name.
    pub name: String,
    /// Why it is so.
    pub why: Option<String>,
    /// Environments of these purposes; empty: of any.
    pub purposes: Vec<Purpose>,
    /// These environments; empty: any.
    pub environments: Vec<String>,
    /// Environments that hold data of one of these classes; empty: whatever they hold.
    pub data_classes: Vec<String>,
    /// The objective for lost work is this or less, and it is met.
    pub rpo: Option<Duration>,
    /// The objective for time to recover is this or less, and drills meet it.
    pub rto: Option<Duration>,
    /// The owner is one of these.
    pub owners: Vec<String>,
    /// The class of the data is said.
    pub classified: bool,
    /// So many keys open its backups at least.
    pub recipients_at_least: Option<usize>,
    /// These keys are among them.
    pub recipients: Vec<String>,
    /// No other keys are.
    pub recipients_only: Vec<String>,
    /// The repository is on one of these kinds of store: `s3`, `file`, `az`, `gs`.
    pub stores: Vec<String>,
    /// The connection to the cluster is encrypted, or a socket of the host.
    pub encrypted_connection: bool,
    /// How old the newest base backup may be.
    pub base_backup_every: Option<Duration>,
    /// How old the newest configuration export may be.
    pub configuration_every: Option<Duration>,
    /// Every Odoo's filestore is captured at least so often, by watcher or by schedule.
    pub filestore_every: Option<Duration>,
    /// How long recovery points are kept at least.
    pub retention: Option<RetentionDuty>,
    /// How objects are locked at least.
    pub lock: Option<LockDuty>,
    /// What its drills must be like.
    pub drill: Option<DrillDuty>,
    /// The service does these by schedule.
    pub scheduled: Vec<JobKind>,
    /// A restore of it needs the approval of a second person.
    pub approvals: bool,
    /// Some calendar has these effects for it.
    pub calendars: Vec<Effect>,
    /// No unmasked copy of another environment is loaded into it.
    pub masked_refresh_only: bool,
    /// Critical drift is looked at: the newest drift entry holds none older than this.
    pub critical_drift_within: Option<Duration>,
}

/// How long recovery points are kept at least. An environment without `[environment.retention]` keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionDuty {
    /// Every moment of the last so long.
    pub recent: Option<Duration>,
    /// One recovery point of each of so many days.
    pub daily: Option<u32>,
    /// One of each of so many weeks.
    pub weekly: Option<u32>,
    /// One of each of so many months.
    pub monthly: Option<u32>,
    /// One of each of so many years.
    pub yearly: Option<u32>,
    /// So many base backups whatever their age.
    pub base_backups: Option<u32>,
    /// Pause between retiring and deleting, in which a mistake can be taken back.
    pub delete_after: Option<Duration>,
}

/// How objects are locked against deletion at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockDuty {
    /// Who may lift a lock; what nobody may lift is as good as what few may.
    pub mode: LockMode,
    /// For how long from when an object is stored.
    pub least: Option<Duration>,
}

/// What drills must be like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DrillDuty {
    /// How long ago the newest drill that passed may be.
    pub every: Option<Duration>,
    /// Drills are sealed.
    pub sealed: bool,
    /// Drills start Odoo.
    pub odoo: bool,
    /// How long ago the newest drill to a random moment may be.
    pub random_every: Option<Duration>,
    /// How long ago the newest self-test of the checks may be.
    pub selftest_every: Option<Duration>,
    /// These suites of checks run.
    pub suites: Vec<String>,
    /// Limits of disk, memory and time are set.
    pub limits: bool,
}

/// A requirement that an environment need not meet for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyException {
    /// The environment.
    pub environment: String,
    /// The requirement, as the check names it.
    pub requirement: String,
    /// The last day.
    pub until: NaiveDate,
    /// Why.
    pub why: String,
    /// Who has decided that.
    pub by: String,
}

impl PolicyRule {
    /// Whether the rule binds an environment.
    pub fn binds(&self, environment: &Environment) -> bool {
        (self.purposes.is_empty() || self.purposes.contains(&environment.purpose))
            && (self.environments.is_empty() || self.environments.contains(&environment.name))
            && (self.data_classes.is_empty() || self.data_classes.iter().any(|c| environment.data_classes.contains(c)))
    }
}

/// The policy that an estate is held against: what `[policy] file` names, or `policy.toml` beside, or none.
pub(super) fn file(source: &Source, raw: Option<RawPolicySection>) -> Result<Option<PathBuf>> {
    match raw {
        Some(section) => Ok(Some(source.resolve(&text(source, "file", &section.file)?))),
        None => Ok(Some(source.directory.join(BESIDE)).filter(|path| path.exists())),
    }
}

impl Policy {
    /// Loads a policy; names in it must be those of `estate`.
    pub fn load(path: &Path, estate: &Estate) -> Result<Self> {
        let source = Source::open(path)?;
        let raw: RawPolicy = source.parse_as()?;
        if raw.rule.is_empty() {
            return Err(error::config(format!("{} holds no [[rule]]", path.display()))
                .meaning("a policy without rules would let everything pass")
                .hint("policy.example.toml shows how a rule is written"));
        }
        let mut rules: Vec<PolicyRule> = Vec::new();
        for raw in raw.rule {
            if rules.iter().any(|known| known.name == raw.name.value) {
                return Err(source.error(&raw.name.span, format!("the rule \"{}\" is defined twice", raw.name.value)));
            }
            rules.push(rule(&source, raw, estate)?);
        }
        let exceptions = raw.exception.into_iter().map(|raw| exception(&source, raw, estate));
        Ok(Self { file: path.to_owned(), rules, exceptions: exceptions.collect::<Result<_>>()? })
    }
}

fn rule(source: &Source, raw: RawRule, estate: &Estate) -> Result<PolicyRule> {
    let span = |key, raw: &Option<Located<Span>>| raw.as_ref().map(|raw| positive(source, key, raw)).transpose();
    let texts =
        |key, list: &[Located<String>]| list.iter().map(|one| text(source, key, one)).collect::<Result<Vec<_>>>();
    for name in &raw.environments {
        known(source, name, "environment", estate.environments.iter().map(|e| e.name.as_str()))?;
    }
    for store in &raw.stores {
        known(source, store, "kind of store", ["s3", "file", "az", "gs"])?;
    }
    let recipients = raw.recipients;
    let retention = raw.retention.map(|raw| retention(source, &raw)).transpose()?;
    let lock = raw.lock.map(|raw| match raw {
        RawLock::Mode(mode) => LockDuty { mode, least: None },
        RawLock::For(RawLockFor { mode, least }) => LockDuty { mode, least: Some(least.0) },
    });
    let drill = raw.drill;
    for suite in drill.iter().flat_map(|duty| &duty.suites) {
        known(source, suite, "suite of checks", estate.checks.iter().map(|c| c.suite.as_str()))?;
    }
    let duty = |duty: RawDrillDuty| -> Result<DrillDuty> {
        Ok(DrillDuty {
            every: span("every", &duty.every)?,
            sealed: duty.sealed,
            odoo: duty.odoo,
            random_every: span("random_every", &duty.random_every)?,
            selftest_every: span("selftest_every", &duty.selftest_every)?,
            suites: texts("suites", &duty.suites)?,
            limits: duty.limits,
        })
    };
    Ok(PolicyRule {
        name: text(source, "name", &raw.name)?,
        why: raw.why.as_ref().map(|why| text(source, "why", why)).transpose()?,
        purposes: raw.purposes,
        environments: texts("environments", &raw.environments)?,
        data_classes: texts("data_classes", &raw.data_classes)?,
        rpo: span("rpo", &raw.rpo)?,
        rto: span("rto", &raw.rto)?,
        owners: texts("owners", &raw.owners)?,
        classified: raw.classified,
        recipients_at_least: recipients.as_ref().and_then(|r| r.at_least.as_ref()).map(|n| n.value),
        recipients: recipients.as_ref().map(|r| texts("all_of", &r.all_of)).transpose()?.unwrap_or_default(),
        recipients_only: recipients.as_ref().map(|r| texts("only", &r.only)).transpose()?.unwrap_or_default(),
        stores: texts("stores", &raw.stores)?,
        encrypted_connection: raw.encrypted_connection,
        base_backup_every: span("base_backup_every", &raw.base_backup_every)?,
        configuration_every: span("configuration_every", &raw.configuration_every)?,
        filestore_every: span("filestore_every", &raw.filestore_every)?,
        retention,
        lock,
        drill: drill.map(duty).transpose()?,
        scheduled: raw.scheduled,
        approvals: raw.approvals,
        calendars: raw.calendars,
        masked_refresh_only: raw.masked_refresh_only,
        critical_drift_within: span("critical_drift_within", &raw.critical_drift_within)?,
    })
}

fn retention(source: &Source, raw: &RawRetentionDuty) -> Result<RetentionDuty> {
    let span = |key, raw: &Option<Located<Span>>| raw.as_ref().map(|raw| positive(source, key, raw)).transpose();
    Ok(RetentionDuty {
        recent: span("recent", &raw.recent)?,
        daily: raw.daily,
        weekly: raw.weekly,
        monthly: raw.monthly,
        yearly: raw.yearly,
        base_backups: raw.base_backups,
        delete_after: span("delete_after", &raw.delete_after)?,
    })
}

fn exception(source: &Source, raw: RawException, estate: &Estate) -> Result<PolicyException> {
    known(source, &raw.environment, "environment", estate.environments.iter().map(|e| e.name.as_str()))?;
    let until = NaiveDate::parse_from_str(raw.until.value.trim(), "%Y-%m-%d").map_err(|_| {
        source
            .error(&raw.until.span, format!("\"{}\" is not a day", raw.until.value))
            .hint("write the last day of the exception: \"2026-12-31\"")
    })?;
    Ok(PolicyException {
        environment: raw.environment.value.clone(),
        requirement: text(source, "requirement", &raw.requirement)?,
        until,
        why: text(source, "why", &raw.why)?,
        by: text(source, "by", &raw.by)?,
    })
}

/// Refuses a name that nothing has: such a rule would never bind, and nobody would notice.
fn known<'a>(
    source: &Source,
    name: &Located<String>,
    what: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let known: Vec<&str> = known.into_iter().collect();
    if known.contains(&name.value.as_str()) {
        return Ok(());
    }
    let error = source.error(&name.span, format!("there is no {what} \"{}\"", name.value));
    Err(match nearest(&name.value, known.iter().copied()) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None => error.hint(format!("known here: {}", known.join(", "))),
    })
}
