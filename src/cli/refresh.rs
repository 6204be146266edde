//! `lifeboat refresh`.

use std::path::PathBuf;

use clap::Args;

use super::EnvironmentArgument;
use super::context::Context;
use super::output::Outcome;
use super::tenant::{Advice, Filestore, Place, To, Wanted, absolute, make, outcome};
use crate::config::{Environment, Purpose};
use crate::error::{self, Result};
use crate::postgres::source::Source;
use crate::restore::tenant::{Neutralise, Target};
use crate::units::Timeline;

#[derive(Debug, Args)]
#[command(after_help = "The copy is masked and neutralised on a private server before any of it reaches the other \
environment.\nA column that looks like personal data and has no rule in [masking] stops it; the message has the rules to \
paste.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: EnvironmentArgument,

    /// The environment that gets the copy; not production
    #[arg(long, value_name = "ENV")]
    to_environment: String,

    /// Name of the database
    #[arg(long, value_name = "NAME")]
    database: String,

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

    /// Follow this timeline instead of the newest
    #[arg(long, value_name = "N")]
    timeline: Option<u32>,

    /// Directory for the whole cluster, which is restored aside and removed again [default: work_dir of the drills]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let environment = context.environment(&arguments.environment.environment)?;
    let other = context.environment(&arguments.to_environment)?;
    if other.name == environment.name || other.purpose == Purpose::Production {
        return Err(error::usage(format!("{} is not refreshed from {}", other.name, environment.name))
            .meaning("a masked and neutralised copy is of no use in production; nothing was done")
            .hint("to bring back one database of production: lifeboat restore tenant"));
    }
    let neutralise = neutralise(context, environment)?;
    let target = Target::connect(Source::new(&other.postgres)?).await?;
    let place = Place {
        target: &target,
        name: arguments.new_name.as_deref().unwrap_or(&arguments.database),
        owner: arguments.owner.as_deref(),
        filestore: match (&arguments.filestore, arguments.no_filestore) {
            (Some(directory), _) => Filestore::Into(absolute(directory)?),
            (None, true) => Filestore::Nowhere,
            (None, false) => Filestore::OfEnvironment(other),
        },
        hidden: false,
    };
    let copy = Wanted {
        environment,
        database: &arguments.database,
        to: &arguments.to,
        timeline: arguments.timeline.map(Timeline),
        work_dir: arguments.work_dir.as_deref(),
        mask: true,
        new_identity: true,
        neutralise: Some(neutralise.as_ref()),
    };
    let mut done = make(context, &copy, To::Cluster(&place)).await?;
    if done.attachments.is_some() {
        done.notes.push("the content of attachments is not masked; --no-filestore leaves them out".into());
    }
    Ok(outcome(&done, &Advice::default()))
}

/// What makes the copy harmless. An unneutralised copy would send mails and charge cards, so there is no refresh
/// without it.
fn neutralise(_context: &Context, environment: &Environment) -> Result<Box<dyn Neutralise>> {
    Err(error::denied(format!("this build of Lifeboat cannot neutralise a copy of {}", environment.name))
        .meaning("nothing was copied: mail servers, payment providers and scheduled jobs of the copy would be alive")
        .hint("`lifeboat restore tenant … --mask --new-identity` makes a masked copy that stays hidden from Odoo"))
}
