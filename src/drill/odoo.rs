//! The part of a drill that Odoo itself plays: every Odoo database is neutralised, which is proven, and then Odoo is
//! started on it and asked.
//!
//! It comes after the checks of the data: what a source said at capture is compared with what was restored, not
//! with what Odoo made of it. Odoo is started behind a seal only ([`Inputs::way`]).

use std::path::Path;

use crate::config::{DrillOdoo, Environment, SandboxKind};
use crate::drill::boot::{self, Way};
use crate::drill::neutralise::{self, AddonsPaths, Neutralisation};
use crate::error::Result;
use crate::evidence::drill_record::Check;
use crate::evidence::egress_record::Egress;
use crate::evidence::odoo_record::{Boot, Neutralised};
use crate::postgres::account::Account;
use crate::postgres::launch::Launch;
use crate::postgres::server::PrivateServer;

/// What Odoo is tried on, and with.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The environment, which says which Odoo.
    pub environment: &'a Environment,
    /// The restored server.
    pub server: &'a PrivateServer,
    /// How Odoo is started.
    pub launch: &'a dyn Launch,
    /// The words that start Lifeboat's own program where Odoo is, if that is not this host's installation.
    pub own_program: Option<&'a [String]>,
    /// The account that it runs as; `None` stays the running one.
    pub account: Option<&'a Account>,
    /// The restored filestores, by database.
    pub filestore: &'a Path,
    /// A directory of its own in the sandbox.
    pub home: &'a Path,
    /// How [`boot::PORT`] is reached behind the seal; `None` where there is no seal: then no Odoo is started.
    pub way: Option<Way>,
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
    /// Where its modules are.
    addons: Option<AddonsPaths>,
}

impl Inputs<'_> {
    /// The Odoo to start, where one is configured and there is a seal to start it behind.
    fn odoo(&self) -> Option<(&DrillOdoo, &Way)> {
        Some((self.environment.drill.odoo.as_ref()?, self.way.as_ref()?))
    }

    /// Why no Odoo is started although the environment has one, if so.
    fn why_not(&self) -> Option<String> {
        match (&self.environment.drill.odoo, &self.way) {
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
    let Some((odoo, _)) = inputs.odoo() else { return Ok(outcome) };
    let addons = match inputs.own_program {
        Some(start) => AddonsPaths::inside(inputs.environment, odoo, inputs.launch, start).await?,
        None => AddonsPaths::of(inputs.environment, odoo)?,
    };
    let settings = neutralise::Settings {
        addons: &addons,
        allow: &inputs.environment.drill.allow_unneutralised,
        base_url: &boot::base_url(boot::PORT),
    };
    for done in neutralise::run(inputs.server, &settings).await? {
        outcome.add(done);
    }
    outcome.addons = Some(addons);
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
    let (Some((odoo, way)), Some(addons)) = (inputs.odoo(), outcome.addons.take()) else { return Ok(()) };
    let settings = boot::Settings {
        odoo,
        addons: &addons,
        launch: inputs.launch,
        account: inputs.account,
        filestore: inputs.filestore,
        home: inputs.home,
        port: boot::PORT,
        way: way.clone(),
    };
    for (database, series) in std::mem::take(&mut outcome.proven) {
        let booted = boot::run(inputs.server, &database, series, &settings).await?;
        outcome.checks.extend(booted.checks);
        outcome.boots.push(booted.record);
    }
    Ok(())
}

/// What the copy tried to reach, as the sandbox's sinkhole wrote it down; `None` where there was none.
pub fn egress(log: &Path, outcome: &Outcome) -> Option<Egress> {
    let written = std::fs::read(log).ok()?;
    Some(Egress::of(&String::from_utf8_lossy(&written), &outcome.neutralised))
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
