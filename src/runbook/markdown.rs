//! The runbook as Markdown.

use std::fmt::Write as _;

use super::model::{Runbook, Scenario};
use super::words::plain;
use crate::evidence::wording::second;

/// Everything but the line that binds it to the configuration.
pub(super) fn text(runbook: &Runbook) -> String {
    let mut text = format!("# Runbook of {}\n\n", plain(&runbook.environment));
    let mut add = |line: String| writeln!(text, "{line}\n").expect("writing to a string");
    add(format!(
        "Written {} by Lifeboat {} for the configuration with the digest `{}`. Is it still right? \
         `lifeboat runbook --verify FILE` says so.",
        second(runbook.written_at),
        runbook.version,
        runbook.configuration.get(..16).unwrap_or(&runbook.configuration)
    ));
    add("Blocks under **Commands** can be executed as they stand, in order, in one shell. Blocks under **By hand** \
         need a decision or another name first. No secret stands here; where each is, does."
        .to_owned());
    let mut table = "|  |  |\n|---|---|\n".to_owned();
    for (name, value) in &runbook.known {
        let _ = writeln!(table, "| {} | {} |", plain(name), value.replace('|', "\\|"));
    }
    add(table.trim_end().to_owned());
    if runbook.scenarios.len() > 1 {
        let mut index = "| What happened | Go to |\n|---|---|\n".to_owned();
        for (number, scenario) in runbook.scenarios.iter().enumerate() {
            let _ = writeln!(index, "| {} | {}. {} |", scenario.when, number + 1, scenario.title);
        }
        add(index.trim_end().to_owned());
    }
    for (number, scenario) in runbook.scenarios.iter().enumerate() {
        add_scenario(&mut text, number + 1, scenario);
    }
    text
}

fn add_scenario(text: &mut String, number: usize, scenario: &Scenario) {
    let _ = writeln!(text, "<!-- scenario: {} -->\n\n## {number}. {}\n", scenario.id, scenario.title);
    let _ = writeln!(text, "**When.** {}\n\n**What it costs.** {}\n", scenario.when, scenario.outcome);
    for (place, step) in scenario.steps.iter().enumerate() {
        let _ = writeln!(text, "### {number}.{} {}\n", place + 1, step.title);
        for paragraph in &step.text {
            let _ = writeln!(text, "{paragraph}\n");
        }
        if let Some(commands) = &step.commands {
            let (title, info) = if commands.run { ("Commands", "sh run") } else { ("By hand", "sh by-hand") };
            let _ = writeln!(text, "**{title}**\n\n```{info}\n{}\n```\n", commands.lines.join("\n"));
        }
        for (at, check) in step.check.iter().enumerate() {
            let end = if at + 1 == step.check.len() { "\n" } else { "" };
            let _ = writeln!(text, "- [ ] {check}{end}");
        }
    }
}
