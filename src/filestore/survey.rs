//! How databases and filestores fit together, for `doctor`: nothing is captured.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::tenants::{self, filestores, tenants};
use super::uncovered::elsewhere;
use super::{collection, references};
use crate::config::OdooConfig;
use crate::error::Result;
use crate::evidence::entry::NotCovered;
use crate::postgres::source::{Source, databases};
use crate::runtime::Runtime;

/// The filestores of an environment.
#[derive(Debug, Default)]
pub struct Survey {
    /// The databases that hold an Odoo.
    pub tenants: Vec<Surveyed>,
    /// Directories of filestores that belong to no database of the cluster.
    pub strays: Vec<PathBuf>,
}

/// One database.
#[derive(Debug)]
pub struct Surveyed {
    /// Its name.
    pub database: String,
    /// Where its files are looked for.
    pub directory: PathBuf,
    /// Whether that is there.
    pub there: bool,
    /// Other configured data directories that have files of a database of this name.
    pub others: Vec<PathBuf>,
    /// Whether its attachments refer to any file.
    pub refers: bool,
    /// Attachments that are kept elsewhere.
    pub not_covered: Vec<NotCovered>,
    /// When Odoo collects files next, where the database tells.
    pub collection: Option<DateTime<Utc>>,
}

/// Looks at the filestores of all databases of a cluster.
pub async fn survey(source: &Source, odoo: &[OdooConfig]) -> Result<Survey> {
    let silent = Runtime::silent();
    let mut survey = Survey::default();
    let all = databases(&source.sql().await?).await?;
    for instance in odoo {
        let Ok(entries) = std::fs::read_dir(filestores(&instance.data_dir)) else { continue };
        let directories = entries.flatten().filter(|e| e.path().is_dir());
        survey.strays.extend(directories.filter(|e| !all.iter().any(|d| *e.file_name() == **d)).map(|e| e.path()));
    }
    for tenant in tenants(source, odoo, &silent).await?.into_iter().filter(|t| all.contains(&t.database)) {
        let client = tenants::open(source, &tenant.database).await?;
        if !tenants::is_odoo(&client).await? {
            continue; // a listed database without Odoo is told elsewhere
        }
        let directory = tenant.directory();
        let elsewhere_too = |o: &OdooConfig| {
            let other = filestores(&o.data_dir).join(&tenant.database);
            (o.data_dir != tenant.data_dir && other.is_dir()).then_some(other)
        };
        survey.tenants.push(Surveyed {
            there: directory.is_dir(),
            others: odoo.iter().filter_map(elsewhere_too).collect(),
            refers: references::any(&client).await?,
            not_covered: elsewhere(&client).await?,
            collection: collection::due(&client).await?,
            database: tenant.database,
            directory,
        });
    }
    survey.strays.sort_unstable();
    survey.strays.dedup();
    Ok(survey)
}
