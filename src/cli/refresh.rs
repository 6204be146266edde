//! `lifeboat refresh`.

use std::path::PathBuf;

use async_trait::async_trait;
use clap::Args;

use super::approval::Pass;
use super::context::Context;
use super::output::Outcome;
use super::tenant::{Advice, Original, outcome};
use super::tenant_make::{Bound, Filestore, Place, To, Wanted, bound, make};
use crate::config::{Environment, Purpose};
use crate::drill::boot;
use crate::drill::neutralise::{self, Means};
use crate::error::{self, Result};
use crate::postgres::server::PrivateServer;
use crate::postgres::source::Source;
use crate::restore::tenant::{Neutralise, Target};

#[derive(Debug, Args)]
#[command(after_help = "The copy is masked and neutralised on a private server before any of it reaches the other \
environment.\nA column that looks like personal data and has no rule in [masking] stops it; the message has the rules to \
paste.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    asked: Asked,

    #[command(flatten)]
    pass: Pass,
}

/// What is copied and where to; an approval is asked for with the same flags.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    original: Original,

    /// The environment that gets the copy; not production
    #[arg(long, value_name = "ENV")]
    to_environment: String,

    /// The name there; no database may have it yet [default: the same]
    #[arg(long = "as", value_name = "NEW")]
    new_name: Option<String>,

    /// What state to copy, as for `restore`
    #[arg(long, value_name = "TARGET", default_value = "latest")]
    to: String,

    /// Who owns the copy: the role of the other environment's Odoo [default: the role of the connection]
    #[arg(long, value_name = "ROLE")]
    owner: Option<String>,

    /// Where its attachments go [default: in the data_dir of the other environment]
    #[arg(long, value_name = "DIR", conflicts_with = "no_filestore")]
    filestore: Option<PathBuf>,

    /// Leave the attachments out: their content is never masked
    #[arg(long)]
    no_filestore: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let asked = &arguments.asked;
    let other = asked.other(context)?;
    let harmless = neutralise(asked.original.wanted(context, &asked.to)?.environment)?;
    let target = Target::connect(Source::new(&other.postgres)?).await?;
    let copy = asked.copy(context, &harmless)?;
    let mut done = make(context, &copy, To::Cluster(&asked.place(other, &target)?), &arguments.pass).await?;
    if done.attachments.is_some() {
        done.notes.push("the content of attachments is not masked; --no-filestore leaves them out".into());
    }
    Ok(outcome(&done, &Advice::default()))
}

impl Asked {
    /// The environment that gets the copy.
    fn other<'a>(&self, context: &'a Context) -> Result<&'a Environment> {
        let environment = self.original.wanted(context, &self.to)?.environment;
        let other = context.environment(&self.to_environment)?;
        match other.name == environment.name || other.purpose == Purpose::Production {
            false => Ok(other),
            true => Err(error::usage(format!("{} is not refreshed from {}", other.name, environment.name))
                .meaning("a masked and neutralised copy is of no use in production; nothing was done")
                .hint("to bring back one database of production: lifeboat restore tenant")),
        }
    }

    fn copy<'a>(&'a self, context: &'a Context, harmless: &'a Harmless) -> Result<Wanted<'a>> {
        let copy = self.original.wanted(context, &self.to)?;
        Ok(Wanted { mask: true, new_identity: true, neutralise: Some(harmless), ..copy })
    }

    fn place<'a>(&'a self, other: &'a Environment, target: &'a Target) -> Result<Place<'a>> {
        Ok(Place {
            target,
            environment: Some(other),
            name: self.new_name.as_deref().unwrap_or(&self.original.database),
            owner: self.owner.as_deref(),
            filestore: Filestore::of(self.filestore.as_deref(), self.no_filestore, other)?,
            hidden: false,
        })
    }

    /// What an approval of it would be bound to, and the environment whose people decide.
    pub(super) async fn planned<'a>(&'a self, context: &'a Context) -> Result<Bound<'a>> {
        let other = self.other(context)?;
        let harmless = neutralise(self.original.wanted(context, &self.to)?.environment)?;
        let target = Target::connect(Source::new(&other.postgres)?).await?;
        let copy = self.copy(context, &harmless)?;
        let Bound { repository, plan, .. } = bound(context, &copy, &self.place(other, &target)?).await?;
        Ok(Bound { repository, plan, environment: other })
    }
}

/// What makes the copy harmless, with the code of the modules that the environment runs.
#[derive(Debug)]
struct Harmless(Means);

#[async_trait]
impl Neutralise for Harmless {
    async fn neutralise(&self, server: &PrivateServer, database: &str) -> Result<()> {
        let Some(done) = neutralise::database(server, database, &self.0.settings()).await? else {
            return Err(error::denied(format!("{database} is not a database of Odoo"))
                .meaning("what makes it harmless is not known; nothing was copied"));
        };
        if done.is_proven() {
            return Ok(());
        }
        let failed = done.checks.iter().filter(|c| c.fails_the_drill());
        let failed: Vec<String> =
            failed.map(|c| format!("{} {}: {} ({})", c.id, c.title, c.detail, c.rows.join(", "))).collect();
        Err(error::denied(format!("the copy of {database} is not proven to be harmless: {}", failed.join("; ")))
            .meaning("nothing was copied: mail servers, payment providers or jobs of the copy may be alive")
            .hint("modules without source may be allowed by name: allow_unneutralised in [environment.drill]"))
    }
}

/// An unneutralised copy would send mails and charge cards, so there is no refresh without the code of the modules,
/// which says how each is made harmless.
fn neutralise(environment: &Environment) -> Result<Harmless> {
    let means = Means::of(environment, boot::base_url(boot::PORT))?.ok_or_else(|| {
        error::denied(format!("it is not known how to neutralise a copy of {}", environment.name))
            .meaning(
                "nothing was copied: mail servers, payment providers and scheduled jobs of the copy would be alive",
            )
            .hint("[environment.drill.odoo] says where the code of its Odoo is")
            .hint("`lifeboat restore tenant … --mask --new-identity` makes a masked copy that stays hidden from Odoo")
    })?;
    Ok(Harmless(means))
}
