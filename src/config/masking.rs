//! `[masking]`: what becomes of personal data in a copy for another environment, column by column.

use serde::Serialize;

use super::raw::{Located, RawRule};
use super::source::Source;
use super::suggest::nearest;
use crate::error::Result;

/// What becomes of the values of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Nothing is left.
    Null,
    /// The same value everywhere.
    Constant(String),
    /// A keyed digest.
    Hash,
    /// A made-up name of a person.
    FakeName,
    /// An address that no mail reaches.
    FakeEmail,
    /// Every digit becomes another one; all else stays.
    ScrambleDigits,
    /// It stays as it is: somebody decided so.
    Keep,
    /// All rows of the table go.
    DeleteRows,
}

impl Rule {
    /// The rules that are a word.
    const WORDS: [(&'static str, Rule); 7] = [
        ("null", Rule::Null),
        ("hash", Rule::Hash),
        ("fake-name", Rule::FakeName),
        ("fake-email", Rule::FakeEmail),
        ("scramble-digits", Rule::ScrambleDigits),
        ("keep", Rule::Keep),
        ("delete-rows", Rule::DeleteRows),
    ];

    /// How it is written.
    pub fn word(&self) -> &'static str {
        Self::WORDS.iter().find(|(_, rule)| rule == self).map_or("constant", |(word, _)| word)
    }
}

/// A rule, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskingRule {
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The column; `None` for `delete-rows`, and only there.
    pub column: Option<String>,
    /// What becomes of it.
    pub rule: Rule,
    /// Where it stands, for messages.
    pub place: String,
}

impl MaskingRule {
    /// Whether both are about the same column or table.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        (&self.schema, &self.table, &self.column) == (&other.schema, &other.table, &other.column)
    }
}

/// Judges one line of `[masking]`.
pub(super) fn rule(source: &Source, name: &str, raw: &Located<RawRule>) -> Result<MaskingRule> {
    let rule = match &raw.value {
        RawRule::Constant { constant } => Rule::Constant(constant.clone()),
        RawRule::Word(word) => {
            let known = Rule::WORDS.iter().find(|(w, _)| w == word).map(|(_, rule)| rule.clone());
            known.ok_or_else(|| {
                let words = Rule::WORDS.map(|(w, _)| w);
                let error = source.error(&raw.span, format!("there is no rule \"{word}\""));
                let all = format!("rules: {}, {{ constant = \"…\" }}", words.join(", "));
                match nearest(word, words) {
                    Some(near) => error.hint(format!("did you mean \"{near}\"?")).hint(all),
                    None => error.hint(all),
                }
            })?
        }
    };
    let parts: Vec<&str> = name.split('.').collect();
    let (schema, table, column) = match (parts.as_slice(), &rule) {
        ([table], Rule::DeleteRows) => ("public", *table, None),
        ([table, column], rule) if *rule != Rule::DeleteRows => ("public", *table, Some((*column).to_owned())),
        ([schema, table, column], rule) if *rule != Rule::DeleteRows => (*schema, *table, Some((*column).to_owned())),
        (_, Rule::DeleteRows) => {
            return Err(source
                .error(&raw.span, format!("\"{name}\" is not the name of a table"))
                .hint("delete-rows is for a whole table: \"mail_mail\" = \"delete-rows\""));
        }
        _ => {
            return Err(source
                .error(&raw.span, format!("\"{name}\" is not a column"))
                .hint("write \"table.column\", or \"schema.table.column\" outside of public, in quotes"));
        }
    };
    if parts.iter().any(|part| part.is_empty()) {
        return Err(source.error(&raw.span, format!("\"{name}\" is not a column")).hint("write \"table.column\""));
    }
    Ok(MaskingRule { schema: schema.to_owned(), table: table.to_owned(), column, rule, place: source.place(&raw.span) })
}
