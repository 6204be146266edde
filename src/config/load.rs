//! [`Estate::load`]: reads `lifeboat.toml` and the files that it includes, and judges what only
//! shows when all are seen together: names used twice, one slot for two environments, suites that
//! do not exist.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::calendar::{Calendar, RawCalendar, calendar};
use super::check::{check, is_name};
use super::drift::{DriftRule, drift_rule};
use super::estate::Estate;
use super::glob::{expand_glob, is_pattern};
use super::job::{Job, RawJob, built_in, job, judge_together};
use super::masking::{MaskingRule, rule};
use super::raw::{Located, RawFile};
use super::read::{Target, environment};
use super::runbook::runbook;
use super::source::Source;
use super::suggest::nearest;
use super::text::ConfigText;
use super::{Check, Environment, alerts, policy, repository, service};
use crate::error::{self, ErrorKind, Result, ResultExt as _};

impl Estate {
    /// Loads `path` (a `lifeboat.toml`) and what it includes.
    ///
    /// Relative paths in a file count from that file. No secret is fetched and no path in the
    /// configuration need exist on this host, except the files that `include` names outright.
    pub fn load(path: &Path) -> Result<Estate> {
        let main = Source::open(path).map_err(|e| match path.exists() {
            true => e,
            false => e.hint("name another file with -c, or start from lifeboat.example.toml"),
        })?;
        let raw = main.parse()?;
        let include = |main: &Source, include| included(main, include)?.iter().map(|path| Source::open(path)).collect();
        Self::judge(main, raw, include, &|path| {
            std::fs::read_to_string(path)
                .or_err(ErrorKind::Config, || format!("cannot read the calendar {}", path.display()))
        })
    }

    /// The same from words that were read before ([`Estate::text`]); the files are not looked at.
    pub fn from_text(text: &ConfigText) -> Result<Estate> {
        let mut sources = text.files.iter().map(|(path, text)| Source::of(path, text.clone()));
        let main = sources.next().ok_or_else(|| error::config("the configuration is empty"))??;
        let raw = main.parse()?;
        Self::judge(main, raw, |_, _| sources.collect(), &|path| {
            text.icalendars
                .get(path)
                .cloned()
                .ok_or_else(|| error::config(format!("the calendar {} was not read before", path.display())))
        })
    }

    /// The `state_dir` that a file names, whether or not the rest of it is right; `None` where it is not even TOML.
    pub fn state_dir_of(path: &Path) -> Option<PathBuf> {
        let source = Source::open(path).ok()?;
        let table: toml::Table = std::fs::read_to_string(path).ok()?.parse().ok()?;
        let named = table.get("keys").and_then(|keys| keys.get("state_dir")).and_then(toml::Value::as_str);
        Some(named.map_or_else(|| repository::DEFAULT_STATE_DIR.into(), |named| source.resolve(named)))
    }

    fn judge(
        main: Source,
        mut raw: RawFile,
        included: impl FnOnce(&Source, Option<Located<Vec<Located<String>>>>) -> Result<Vec<Source>>,
        read: &dyn Fn(&Path) -> Result<String>,
    ) -> Result<Estate> {
        let path = main.shown.clone();
        let lacks = |section: &str| {
            error::config(format!("{}: the section [{section}] is missing", path.display()))
                .hint("lifeboat.example.toml shows a whole file")
        };
        let raw_repository = raw.repository.take().ok_or_else(|| lacks("repository"))?.value;
        let raw_keys = raw.keys.take().ok_or_else(|| lacks("keys"))?.value;
        let repository = repository::repository(&main, raw_repository)?;
        let keys = repository::keys(&main, raw_keys)?;
        let raw_alerts = raw.alerts.take();
        let service = raw.service.take().map(|raw| service::service(&main, raw.value)).transpose()?.unwrap_or_default();
        let policy = policy::file(&main, raw.policy.take().map(|l| l.value))?;
        let runbook = runbook(&main, raw.runbook.take().map(|l| l.value))?;

        let mut files = Files::default();
        let included = included(&main, raw.include.take())?;
        files.add(main, raw)?;
        for source in included {
            let raw = source.parse()?;
            refuse_main_sections(&source, &raw, &files.first().shown)?;
            files.add(source, raw)?;
        }
        files.refuse_unknown_suites()?;
        let names: Vec<&str> = files.environments.iter().map(|e| e.name.as_str()).collect();
        let alerts = raw_alerts.map(|raw| alerts::alerts(files.first(), raw.value, &names)).transpose()?;
        files.refuse_unknown_environments()?;
        let mut icalendars = BTreeMap::new();
        let (jobs, calendars) = files.schedule(&mut |path| {
            let text = read(path)?;
            icalendars.insert(path.to_owned(), text.clone());
            Ok(text)
        })?;

        let digest = files.digest();
        let file = std::path::absolute(&path)
            .or_err(ErrorKind::Config, || format!("cannot tell where {} lies", path.display()))?;
        let absolute = |source: &Source| (source.absolute(), source.text.clone());
        Ok(Estate {
            file,
            text: ConfigText { files: files.sources.iter().map(absolute).collect(), icalendars },
            repository,
            keys,
            service,
            alerts: alerts.unwrap_or_default(),
            environments: files.environments,
            checks: files.checks,
            jobs,
            calendars,
            masking: files.masking,
            digest,
            drift: files.drift,
            policy,
            runbook,
        })
    }
}

/// The checks of one file, for trying them before they become part of an estate.
pub fn checks_of(path: &Path) -> Result<Vec<Check>> {
    let source = Source::open(path)?;
    let raw = source.parse()?;
    let mut files = Files::default();
    files.add(source, raw)?;
    match files.checks.is_empty() {
        false => Ok(files.checks),
        true => Err(error::config(format!("{} holds no [[check]]", path.display()))
            .hint("docs/configuration.md says how a check is written")),
    }
}

/// The files that `include` names, each once, in the order written and sorted within a pattern.
fn included(main: &Source, include: Option<Located<Vec<Located<String>>>>) -> Result<Vec<PathBuf>> {
    let base = main.shown.parent().unwrap_or(Path::new(""));
    let identity = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut seen = vec![identity(&main.shown)];
    let mut files = Vec::new();
    for pattern in include.map(|l| l.value).unwrap_or_default() {
        let found = expand_glob(&base.join(&pattern.value))
            .map_err(|e| e.context(format!("{}: include \"{}\"", main.place(&pattern.span), pattern.value)))?;
        if found.is_empty() && !is_pattern(&pattern.value) {
            return Err(main
                .error(&pattern.span, format!("the included file \"{}\" does not exist", pattern.value))
                .hint(format!("paths count from {}", main.directory.display()))
                .hint("a pattern with `*` may match nothing"));
        }
        for path in found {
            let identity = identity(&path);
            if !seen.contains(&identity) {
                seen.push(identity);
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// An included file holds environments, checks, masking and drift rules, nothing else.
fn refuse_main_sections(source: &Source, raw: &RawFile, main: &Path) -> Result<()> {
    let sections = [
        ("[repository]", raw.repository.as_ref().map(|l| &l.span)),
        ("[keys]", raw.keys.as_ref().map(|l| &l.span)),
        ("[service]", raw.service.as_ref().map(|l| &l.span)),
        ("[alerts]", raw.alerts.as_ref().map(|l| &l.span)),
        ("[policy]", raw.policy.as_ref().map(|l| &l.span)),
        ("[runbook]", raw.runbook.as_ref().map(|l| &l.span)),
        ("`include`", raw.include.as_ref().map(|l| &l.span)),
    ];
    match sections.into_iter().find_map(|(name, span)| Some((name, span?))) {
        None => Ok(()),
        Some((name, span)) => Err(source
            .error(span, format!("{name} stands in an included file"))
            .hint(format!("this is said once for the whole estate: move it to {}", main.display()))),
    }
}

/// What the files hold together, and where each name was first used.
#[derive(Default)]
struct Files {
    sources: Vec<Source>,
    environments: Vec<Environment>,
    checks: Vec<Check>,
    masking: Vec<MaskingRule>,
    /// Jobs and calendars with the index of their file: they are judged when all environments are known.
    jobs: Vec<(usize, RawJob)>,
    calendars: Vec<(usize, RawCalendar)>,
    drift: Vec<DriftRule>,
    environment_places: HashMap<String, String>,
    check_places: HashMap<String, String>,
    slots: Vec<(Target, String, String)>,
    /// Suite name, its place, and the index of the file that asks for it.
    wanted_suites: Vec<(String, String)>,
    /// Names of environments that rules speak of, and their places.
    wanted_environments: Vec<(String, String)>,
}

impl Files {
    fn first(&self) -> &Source {
        self.sources.first().expect("the main file is added first")
    }

    /// SHA-256 over the files, by their names from the first one's directory.
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let home = &self.first().directory;
        for source in &self.sources {
            let path = source.directory.join(source.shown.file_name().unwrap_or_default());
            let name = path.strip_prefix(home).unwrap_or(&path).to_string_lossy().into_owned();
            for part in [name.as_bytes(), source.text().as_bytes()] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        hex::encode(hash.finalize())
    }

    fn add(&mut self, source: Source, raw: RawFile) -> Result<()> {
        let suite = suite(&source, raw.suite.as_ref())?;
        for raw in raw.environment {
            self.add_environment(&source, raw)?;
        }
        for raw in raw.check {
            let place = source.place(&raw.id.span);
            let span = raw.id.span.clone();
            let check = check(&source, &suite, raw)?;
            if let Some(first) = self.check_places.insert(check.id.clone(), place) {
                return Err(source
                    .error(&span, format!("the check \"{}\" is defined twice", check.id))
                    .hint(format!("the other one stands at {first}; give one of them another id")));
            }
            self.checks.push(check);
        }
        for (column, raw) in raw.masking {
            let rule = rule(&source, &column, &raw)?;
            if let Some(first) = self.masking.iter().find(|r| r.is_same_place(&rule)) {
                return Err(source
                    .error(&raw.span, format!("\"{column}\" is masked twice"))
                    .hint(format!("the other rule stands at {}", first.place)));
            }
            self.masking.push(rule);
        }
        let index = self.sources.len();
        self.jobs.extend(raw.job.into_iter().map(|job| (index, job)));
        self.calendars.extend(raw.calendar.into_iter().map(|calendar| (index, calendar)));
        for raw in raw.drift {
            for name in raw.environments.iter().flat_map(|list| &list.value) {
                self.wanted_environments.push((name.value.clone(), source.place(&name.span)));
            }
            self.drift.push(drift_rule(&source, raw)?);
        }
        self.sources.push(source);
        Ok(())
    }

    /// Judges jobs and calendars; `read` gives the text of an iCalendar file.
    fn schedule(&mut self, read: &mut dyn FnMut(&Path) -> Result<String>) -> Result<(Vec<Job>, Vec<Calendar>)> {
        let (mut jobs, mut places) = (Vec::new(), Vec::new());
        for (index, raw) in std::mem::take(&mut self.jobs) {
            let (job, place) = job(&self.sources[index], raw, &self.environments)?;
            jobs.push(job);
            places.push(place);
        }
        judge_together(&jobs, &places)?;
        if jobs.is_empty() {
            jobs = built_in(&self.environments);
        }
        let mut calendars: Vec<Calendar> = Vec::new();
        for (index, raw) in std::mem::take(&mut self.calendars) {
            let (source, span) = (&self.sources[index], raw.name.span.clone());
            let calendar = calendar(source, raw, &self.environments, read)?;
            if calendars.iter().any(|other| other.name == calendar.name) {
                return Err(source.error(&span, format!("the calendar \"{}\" is defined twice", calendar.name)));
            }
            calendars.push(calendar);
        }
        Ok((jobs, calendars))
    }

    fn add_environment(&mut self, source: &Source, raw: super::raw::RawEnvironment) -> Result<()> {
        let place = source.place(&raw.name.span);
        let name_span = raw.name.span.clone();
        let slot_span = raw.postgres.slot.as_ref().map_or(&raw.postgres.dsn.span, |s| &s.span).clone();
        for suite in raw.drill.iter().filter_map(|d| d.checks.as_ref()).flat_map(|l| &l.value) {
            self.wanted_suites.push((suite.value.clone(), source.place(&suite.span)));
        }
        let (environment, target) = environment(source, raw)?;
        if let Some(first) = self.environment_places.insert(environment.name.clone(), place) {
            return Err(source
                .error(&name_span, format!("the environment \"{}\" is defined twice", environment.name))
                .hint(format!("the other one stands at {first}; give one of them another name")));
        }
        let same_slot = |(t, slot, _): &&(Target, String, String)| *slot == environment.postgres.slot && *t == target;
        if let Some((_, slot, other)) = self.slots.iter().find(same_slot) {
            return Err(source
                .error(&slot_span, format!("the slot \"{slot}\" on this cluster already belongs to the environment {other}"))
                .meaning("two receivers on one slot make PostgreSQL discard WAL that one of them still needs")
                .hint("if the clusters differ, their `dsn` must; if not, keep one environment with several [[environment.odoo]]"));
        }
        self.slots.push((target, environment.postgres.slot.clone(), environment.name.clone()));
        self.environments.push(environment);
        Ok(())
    }

    /// A rule for an environment that does not exist would never apply, and nobody would notice.
    fn refuse_unknown_environments(&self) -> Result<()> {
        let known: Vec<&str> = self.environments.iter().map(|e| e.name.as_str()).collect();
        match self.wanted_environments.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, place)) => {
                let error = error::config(format!("{place}: there is no environment \"{name}\""));
                Err(match nearest(name, known.iter().copied()) {
                    Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                    None => error.hint(format!("environments: {}", known.join(", "))),
                })
            }
        }
    }

    /// A drill that names a suite which does not exist would check nothing and look green.
    fn refuse_unknown_suites(&self) -> Result<()> {
        let mut known: Vec<&str> = self.checks.iter().map(|c| c.suite.as_str()).collect();
        known.dedup();
        for (suite, place) in &self.wanted_suites {
            if !known.contains(&suite.as_str()) {
                let error = error::config(format!("{place}: there is no suite of checks \"{suite}\""));
                return Err(match nearest(suite, known.iter().copied()) {
                    Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                    None if known.is_empty() => error.hint("no included file holds a [[check]]"),
                    None => error.hint(format!("suites: {}", known.join(", "))),
                });
            }
        }
        Ok(())
    }
}

/// The suite of a file's checks: what `suite` says, or the file's name.
fn suite(source: &Source, raw: Option<&Located<String>>) -> Result<String> {
    match raw {
        Some(raw) if !is_name(&raw.value) => Err(source
            .error(&raw.span, "this is not the name of a suite")
            .hint("use up to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit")),
        Some(raw) => Ok(raw.value.clone()),
        None => Ok(source.shown.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()),
    }
}
