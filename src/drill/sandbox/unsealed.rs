//! `sandbox = "none"`: no sandbox at all, for hosts that allow no namespaces. Programs run beside everything
//! else on this host; only a directory of their own and a server without TCP keep them apart. It must be
//! asked for by name, is recorded as not sealed, and Odoo is never started in it.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::processes;
use super::seal::{Facts, Part, Seal};
use crate::error::Result;
use crate::postgres::account::{Account, running_as};
use crate::postgres::launch::{Launch, OnHost};

/// No sandbox.
#[derive(Debug)]
pub struct Unsealed {
    root: PathBuf,
    account: Option<Account>,
}

impl Unsealed {
    /// For programs that work in `root`.
    pub fn new(root: PathBuf, account: Option<Account>) -> Self {
        Self { root, account }
    }
}

#[async_trait]
impl Seal for Unsealed {
    fn launch(&self, _part: Part) -> Arc<dyn Launch> {
        Arc::new(OnHost { account: self.account.clone() })
    }

    fn facts(&self) -> Facts {
        Facts {
            kind: "none",
            sealed: false,
            account: self.account.as_ref().map_or_else(running_as, |a| a.name.clone()),
            network: "not sealed: the server listens on a Unix socket only, but nothing keeps it from connecting out"
                .into(),
            ..Facts::default()
        }
    }

    fn way_in(&self, _port: u16) -> Option<PathBuf> {
        None
    }

    fn processes(&self) -> Vec<u32> {
        processes::working_in(&self.root)
    }

    async fn end(&self) -> Result<()> {
        processes::end(|| self.processes()).await
    }
}
