//! What an environment brings along to make copies of its databases harmless: the code of its modules, and what its
//! configuration allows to be passed over.

use super::{AddonsPaths, Settings};
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

    /// How a database is neutralised with them.
    pub fn settings(&self) -> Settings<'_> {
        Settings { addons: &self.addons, allow: &self.allow, base_url: &self.base_url }
    }
}
