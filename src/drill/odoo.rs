//! The part of a drill that Odoo itself plays: every Odoo database is neutralised, which is proven, and then Odoo is
//! started on it and asked.
//!
//! It comes after the checks of the data: what a source said at capture is compared with what was restored, not
//! with what Odoo made of it. Odoo is started behind a seal only ([`Inputs::around`]).

use std::path::Path;

use crate::config::{self, DrillOdoo, Environment, SandboxKind};
use crate::drill::boot::{self, Surroundings};
use crate::drill::checks;
use crate::drill::neutralise::{self, AddonsPaths, Elsewhere, Means, Neutralisation};
use crate::error::Result;
use crate::evidence::drill_record::Check;
use crate::evidence::egress_record::Egress;
use crate::evidence::odoo_record::{Boot, Neutralised};
use crate::postgres::server::PrivateServer;

/// What Odoo is tried on, and with.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The environment, which says which Odoo.
    pub environment: &'a Environment,
    /// The restored server.
    pub server: &'a PrivateServer,
    /// Where Odoo is started; `None` where there is no seal: then none is.
    pub around: Option<Surroundings<'a>>,
    /// The checks of the drill, of which those that ask for a page are asked here.
    pub checks: &'a [&'a config::Check],
    /// Where Odoo's installation is, if it is not this host's.
    pub elsewhere: Option<Elsewhere<'a>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For the record.
    pub neutralised: Vec<Neutralised>,
    /// For the record.
    pub boots: Vec<Boot>,
    /// What was asserted.
    pub checks: Vec<Check>,
    /// What somebody should look at.
    pub findings: Vec<String>,
    /// Databases that are proven to be neutralised, with their Odoo.
    proven: Vec<(String, u32)>,
    /// Odoo databases that are not.
    unproven: Vec<String>,
    /// What they were neutralised with.
    means: Option<Means>,
}

impl Inputs<'_> {
    /// The Odoo to start, where one is configured and there is a seal to start it behind.
    fn odoo(&self) -> Option<(&DrillOdoo, &Surroundings<'_>)> {
        Some((self.environment.drill.odoo.as_ref()?, self.around.as_ref()?))
    }

    /// Why no Odoo is started although the environment has one, if so.
    fn why_not(&self) -> Option<String> {
        match (&self.environment.drill.odoo, &self.around) {
            (None, _) if self.environment.odoo.is_empty() => None,
            (None, _) => Some(
                "Odoo was not started on the restored data: [environment.drill.odoo] does not say which one".into(),
            ),
            (Some(_), None) => Some("Odoo was not started on the restored data: the sandbox is not sealed".into()),
            (Some(_), Some(_)) => None,
        }
    }
}

/// Neutralises every Odoo database, where an Odoo is to be started on it.
///
/// # Errors
/// What a script or a statement fails with: nothing may be started then.
pub async fn neutralise(inputs: &Inputs<'_>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    outcome.findings.extend(inputs.why_not());
    let means = Means::at(inputs.environment, boot::base_url(boot::PORT), inputs.elsewhere.as_ref()).await?;
    let (Some(_), Some(means)) = (&inputs.around, means) else {
        return Ok(outcome);
    };
    for done in neutralise::run(inputs.server, &means.settings()).await? {
        outcome.add(done);
    }
    outcome.means = Some(means);
    if outcome.neutralised.is_empty() {
        outcome.findings.push("Odoo was not started: no restored database is Odoo's".into());
    }
    Ok(outcome)
}

impl Outcome {
    fn add(&mut self, done: Neutralisation) {
        if done.is_proven() {
            self.proven.push((done.record.database.clone(), done.record.odoo));
        } else {
            let database = &done.record.database;
            self.findings.push(format!("Odoo was not started on {database}: it is not proven to be neutralised"));
            self.unproven.push(database.clone());
        }
        self.neutralised.push(done.record);
        self.checks.extend(done.checks);
    }
}

/// Starts Odoo on every database that is proven to be neutralised, one after the other, and asks it.
///
/// # Errors
/// Where it could not be tried at all. An Odoo that does not start or answers wrongly is a failed check.
pub async fn boot(inputs: &Inputs<'_>, outcome: &mut Outcome) -> Result<()> {
    if outcome.neutralised.is_empty() {
        outcome.checks.extend(checks::without_odoo(inputs.checks, "no Odoo was started in this drill"));
    }
    for database in std::mem::take(&mut outcome.unproven) {
        let why = "no Odoo was started on this database: it is not proven to be neutralised";
        outcome.checks.extend(boot::unanswered(inputs.checks, &database, why));
    }
    let (Some((odoo, around)), Some(means)) = (inputs.odoo(), outcome.means.take()) else { return Ok(()) };
    let settings = boot::Settings { odoo, addons: means.addons(), around, checks: inputs.checks };
    for (database, series) in std::mem::take(&mut outcome.proven) {
        let booted = boot::run(inputs.server, &database, series, &settings).await?;
        outcome.checks.extend(booted.checks);
        outcome.boots.push(booted.record);
    }
    Ok(())
}

/// What a copy tried to reach, as the sandbox's sinkhole wrote it down; `None` where there was none. What is tried of
/// that which was `neutralised` is a finding.
pub fn egress(log: &Path, neutralised: &[Neutralised]) -> Option<Egress> {
    let written = std::fs::read(log).ok()?;
    Some(Egress::of(&String::from_utf8_lossy(&written), neutralised))
}

/// What a sandbox must let the drill's Odoo read of this host. Containers have Odoo in an image: of this host they are
/// shown what was named for that, and nothing else.
///
/// # Errors
/// Configuration, where it cannot be told.
pub fn readable(environment: &Environment) -> Result<Vec<std::path::PathBuf>> {
    let Some(odoo) = &environment.drill.odoo else { return Ok(Vec::new()) };
    if let SandboxKind::Container(_) = environment.drill.sandbox {
        return Ok(odoo.read_only_paths.clone());
    }
    let mut paths = odoo.reads();
    paths.extend(AddonsPaths::of(environment, odoo)?.as_slice().iter().cloned());
    paths.sort();
    paths.dedup();
    Ok(paths)
}
