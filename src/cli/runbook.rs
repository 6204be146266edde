//! `lifeboat runbook`: what to do in a disaster, on paper, before there is one. Asks the repository with the keys of a
//! host that backs up, or a recovery identity; where it does not answer, writes what the configuration alone tells.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::output::Outcome;
use super::text::{alarm, caution, good, time};
use crate::config::Environment;
use crate::drill::outlook::outlook;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::repository::catalogue::Catalogue;
use crate::repository::frontier::Recovery;
use crate::runbook::{self, Facts, Held, Runbook, Standing};

#[derive(Debug, Args)]
#[command(
    after_help = "Print it and keep it where a disaster does not reach. Exit code 8 with --verify: it does not say any \
more what a new one would."
)]
pub(crate) struct Arguments {
    /// Name of the environment
    #[arg(short, long = "environment", value_name = "ENV", required_unless_present = "verify")]
    environment: Option<String>,

    /// Write runbook-ENV.md and runbook-ENV.html into this directory [default: Markdown to standard output]
    #[arg(long, value_name = "DIR", conflicts_with = "verify")]
    out: Option<PathBuf>,

    /// Only this scenario (total-loss, single-tenant, wrong-deletion, ransomware, region-loss, key-loss,
    /// orchestrator-loss); may be repeated
    #[arg(long = "scenario", value_name = "NAME", conflicts_with = "verify")]
    scenarios: Vec<String>,

    /// Say whether a runbook that was written before, .md or .html, still holds
    #[arg(long, value_name = "FILE")]
    verify: Option<PathBuf>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    if let Some(file) = &arguments.verify {
        return verify(file, arguments.environment.as_deref(), context).await;
    }
    let name = arguments.environment.as_deref().expect("required without --verify");
    let environment = context.environment(name)?;
    let written = write(context, environment, &arguments.scenarios).await?;
    let markdown = runbook::markdown(&written);
    let Some(directory) = &arguments.out else {
        return Ok(Outcome::new(json!({ "runbook": written, "files": null, "markdown": markdown }), markdown));
    };
    std::fs::create_dir_all(directory)
        .or_err(ErrorKind::Usage, || format!("cannot make the directory {}", directory.display()))?;
    let place = |extension: &str| directory.join(format!("runbook-{name}.{extension}"));
    let (text, page) = (place("md"), place("html"));
    for (path, content) in [(&text, &markdown), (&page, &runbook::page(&written))] {
        std::fs::write(path, content).or_err(ErrorKind::Internal, || format!("cannot write {}", path.display()))?;
    }
    let said = format!(
        "runbook of {name}: {} and {}\nwritten for the configuration {}\nprint it; ask `lifeboat runbook --verify {}` whether it still holds",
        text.display(),
        page.display(),
        written.configuration.get(..16).unwrap_or_default(),
        text.display()
    );
    Ok(Outcome::new(json!({ "runbook": written, "files": { "markdown": text, "html": page } }), said))
}

/// The runbook, from configuration and repository.
async fn write(context: &Context, environment: &Environment, only: &[String]) -> Result<Runbook> {
    let now = context.runtime.now();
    let ask = async {
        let repository = context.readable().await?;
        let catalogue = Catalogue::load(&repository, &environment.name).await?;
        let recovery = Recovery::load(&repository, &catalogue).await;
        Ok::<_, error::Error>(Held::of(&catalogue, &recovery, &outlook(environment, &catalogue, &recovery, now)))
    };
    let held = ask.await.map_err(|failure| {
        let text = format!("the runbook says nothing of what can be restored: {}", failure.message());
        context.runtime.emit(Event::Warning(text));
        failure.message()
    });
    runbook::runbook(&Facts { estate: &context.estate, environment, held, now }, only)
}

async fn verify(file: &Path, named: Option<&str>, context: &Context) -> Result<Outcome> {
    let document =
        std::fs::read_to_string(file).or_err(ErrorKind::Usage, || format!("cannot read {}", file.display()))?;
    let (marker, whole) = runbook::read_marker(&document).map_err(|e| e.context(file.display()))?;
    if let Some(named) = named.filter(|named| *named != marker.environment) {
        return Err(error::usage(format!("{} is about {}, not about {named}", file.display(), marker.environment)));
    }
    let environment = context.environment(&marker.environment)?;
    let now = write(context, environment, &marker.scenarios).await?;
    let standing = runbook::standing(&marker, whole, &now);
    let words = match standing {
        Standing::Current => good("still right: configuration and commands are the same"),
        Standing::SameCommands => caution("still right: the configuration changed, what to do did not"),
        Standing::Outdated => alarm("OUTDATED: what to do is not what it says any more"),
        Standing::Edited => alarm("EDITED: its text is not the one that was written"),
    };
    let failure = matches!(standing, Standing::Outdated | Standing::Edited).then(|| {
        error::check_failed(format!("{} does not say what a new runbook would", file.display()))
            .meaning("whoever follows it in a disaster may follow names and paths that are no more")
            .hint(format!(
                "write it anew: `lifeboat runbook -e {} --out DIR`, and replace the printed copies",
                marker.environment
            ))
    });
    let text = format!(
        "{}: {words}\nwritten {} by Lifeboat {} for the configuration {}; in force is {}",
        file.display(),
        time(marker.written_at),
        marker.version,
        marker.configuration.get(..16).unwrap_or_default(),
        now.configuration.get(..16).unwrap_or_default()
    );
    let json = json!({ "file": file, "standing": standing, "written_for": marker, "configuration": now.configuration });
    Ok(Outcome::new(json, text).with_failure(failure))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli;
    use crate::config::Estate;
    use crate::runbook::{Facts, runbook};

    /// The words of a line of a shell, with quotes taken off; enough for what runbooks write.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let (mut quote, mut used) = (None, false);
        for c in line.chars() {
            match (quote, c) {
                (None, ' ') if used => {
                    words.push(String::new());
                    used = false;
                }
                (None, ' ') => {}
                (None, '\'' | '"') => (quote, used) = (Some(c), true),
                (Some(q), c) if q == c => quote = None,
                (_, c) => {
                    words.last_mut().expect("one").push(c);
                    used = true;
                }
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_command_of_lifeboat_in_a_runbook_is_one_that_this_program_has() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sample-configs/valid/every-key.toml");
        let estate = Estate::load(std::path::Path::new(file)).expect("valid");
        let now = chrono::DateTime::UNIX_EPOCH;
        let facts =
            Facts { estate: &estate, environment: &estate.environments[0], held: Err("nobody asked".into()), now };
        let written = runbook(&facts, &[]).expect("writes");
        let mut tried = 0;
        for step in written.scenarios.iter().flat_map(|scenario| &scenario.steps) {
            for line in step.commands.iter().flat_map(|commands| &commands.lines).filter(|l| l.starts_with("lifeboat "))
            {
                let line = line.split("     #").next().expect("one part").split(" && ").next().expect("one part");
                if let Err(refused) = cli::Arguments::try_parse_from(words(line))
                    && refused.kind() != clap::error::ErrorKind::DisplayVersion
                {
                    panic!("{line}: {refused}");
                }
                tried += 1;
            }
        }
        assert!(tried > 25, "{tried}");
        assert!(runbook(&facts, &["fire".to_owned()]).is_err());
    }
}
