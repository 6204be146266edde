//! A runbook before it is Markdown or a page. Texts are Markdown of one paragraph (`words`).

use chrono::{DateTime, Utc};
use serde::Serialize;

/// What to do in each disaster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Runbook {
    /// The environment.
    pub environment: String,
    /// When it was written.
    pub written_at: DateTime<Utc>,
    /// Version of the program that wrote it.
    pub version: &'static str,
    /// SHA-256 over the configuration files in force.
    pub configuration: String,
    /// What is known, name by name.
    pub known: Vec<(String, String)>,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
}

/// One disaster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scenario {
    /// Its name in commands.
    pub id: &'static str,
    /// Its title.
    pub title: String,
    /// How to recognise it.
    pub when: String,
    /// What is lost, and how long it takes.
    pub outcome: String,
    /// What to do, in order.
    pub steps: Vec<Step>,
}

/// One thing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What.
    pub title: String,
    /// Why, and what to know.
    pub text: Vec<String>,
    /// The commands, if there are any.
    pub commands: Option<Commands>,
    /// What must be true afterwards.
    pub check: Vec<String>,
}

/// Commands of a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Commands {
    /// Whether they can be executed as they stand; else something must be filled in, or a person must decide.
    pub run: bool,
    /// The lines.
    pub lines: Vec<String>,
}

impl Step {
    /// A step with this title.
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a paragraph.
    pub(super) fn text(mut self, text: impl Into<String>) -> Self {
        self.text.push(text.into());
        self
    }

    /// The commands, to be executed as they stand.
    pub(super) fn run(mut self, lines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.commands = Some(Commands { run: true, lines: lines.into_iter().map(Into::into).collect() });
        self
    }

    /// Commands that a person must look at first.
    pub(super) fn by_hand(mut self, lines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.commands = Some(Commands { run: false, lines: lines.into_iter().map(Into::into).collect() });
        self
    }

    /// Adds what must be true afterwards.
    pub(super) fn check(mut self, check: impl Into<String>) -> Self {
        self.check.push(check.into());
        self
    }
}

impl Runbook {
    /// Every line of every command: what a document is bound to.
    pub(super) fn commands(&self) -> String {
        let steps = self.scenarios.iter().flat_map(|s| s.steps.iter().map(move |step| (s.id, step)));
        let lines = steps.flat_map(|(id, step)| {
            step.commands.iter().flat_map(move |c| c.lines.iter().map(move |line| format!("{id} {line}\n")))
        });
        lines.collect()
    }
}
