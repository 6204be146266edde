//! What an environment brings along to make copies of its databases harmless: the code of its modules, and what its
//! configuration allows to be passed over.

use super::{AddonsPaths, Elsewhere, Settings};
use crate::config::Environment;
use crate::error::Result;

/// Everything that neutralising needs beside a database.
#[derive(Debug)]
pub struct Means {
    addons: AddonsPaths,
    allow: Vec<String>,
    base_url: String,
}

impl Means {
    /// Those of an environment, for a copy that is reached at `base_url`; `None` where it does not say where the code of
    /// its Odoo is.
    ///
    /// # Errors
    /// Configuration, where the add-on directories cannot be told.
    pub fn of(environment: &Environment, base_url: String) -> Result<Option<Self>> {
        let Some(odoo) = &environment.drill.odoo else { return Ok(None) };
        let (addons, allow) = (AddonsPaths::of(environment, odoo)?, environment.drill.allow_unneutralised.clone());
        Ok(Some(Self { addons, allow, base_url }))
    }

    /// The same of an Odoo whose installation may be elsewhere than on this host.
    ///
    /// # Errors
    /// As [`Means::of`]; configuration, where the installation cannot be asked.
    pub async fn at(
        environment: &Environment,
        base_url: String,
        elsewhere: Option<&Elsewhere<'_>>,
    ) -> Result<Option<Self>> {
        let (Some(odoo), Some(elsewhere)) = (&environment.drill.odoo, elsewhere) else {
            return Self::of(environment, base_url);
        };
        let addons = AddonsPaths::inside(environment, odoo, elsewhere).await?;
        Ok(Some(Self { addons, allow: environment.drill.allow_unneutralised.clone(), base_url }))
    }

    /// Where the code of modules is.
    pub fn addons(&self) -> &AddonsPaths {
        &self.addons
    }

    /// How a database is neutralised with them.
    pub fn settings(&self) -> Settings<'_> {
        Settings { addons: &self.addons, allow: &self.allow, base_url: &self.base_url }
    }
}
