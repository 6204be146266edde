//! Rule and column become SQL: what the column is set to, and what a value that is not masked would look like.

use super::columns::{Class, Column};
use crate::config::Rule;
use crate::error::{self, Result};

/// A name as an SQL identifier.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    // E'' whatever standard_conforming_strings says.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The expression that masks a column; `None` where it stays.
pub(super) fn masked(column: &Column, rule: &Rule) -> Result<Option<String>> {
    let name = quote(&column.name);
    let unfit = |why: &str| {
        error::config(format!(
            "the rule \"{}\" does not fit {}.{} ({}): {why}",
            rule.word(),
            column.table,
            column.name,
            column.sql_type
        ))
        .meaning("nothing was changed, and nothing was copied")
    };
    if column.generated && *rule != Rule::Keep {
        return Err(unfit("PostgreSQL computes it from other columns").hint("mask those; write \"keep\" here"));
    }
    let mask = match rule {
        Rule::Keep | Rule::DeleteRows => return Ok(None),
        Rule::Null if column.not_null => {
            return Err(unfit("it must hold a value").hint("use hash, or { constant = \"…\" }"));
        }
        Rule::Null => return Ok(Some("NULL".to_owned())),
        Rule::Constant(value) => {
            let constant = format!("{}::{}", literal(value), column.sql_type);
            return Ok(Some(format!("CASE WHEN {name} IS NOT NULL THEN {constant} END")));
        }
        Rule::Hash => "mask_hash",
        Rule::FakeName => "mask_name",
        Rule::FakeEmail => "mask_email",
        Rule::ScrambleDigits => "mask_digits",
    };
    Ok(Some(match column.class {
        Class::Text => {
            let masked = format!("pg_temp.{mask}({name}::text)");
            let cut = column.longest.map_or(masked.clone(), |longest| format!("left({masked}, {longest})"));
            format!("{cut}::{}", column.sql_type)
        }
        Class::Jsonb => format!("pg_temp.mask_json('{}', {name})", rule.word()),
        Class::Other => {
            return Err(unfit("this type holds no text").hint("use null, { constant = \"…\" } or keep"));
        }
    }))
}

/// A condition that holds for a value which the rule did not make; `None` where none can tell.
pub(super) fn unmasked(column: &Column, rule: &Rule) -> Option<String> {
    let name = quote(&column.name);
    // Short columns cut what they hold.
    let whole = column.class == Class::Text && column.longest.is_none_or(|longest| longest >= 48);
    match rule {
        Rule::Null => Some(format!("{name} IS NOT NULL")),
        Rule::Constant(value) => {
            Some(format!("{name} IS NOT NULL AND {name}::text <> ({}::{})::text", literal(value), column.sql_type))
        }
        Rule::Hash if whole => Some(format!("{name} !~ '^([0-9a-f]{{32}})?$'")),
        Rule::FakeEmail if whole => Some(format!("{name} !~ '^(u[0-9a-f]{{16}}@example\\.invalid)?$'")),
        Rule::FakeName if whole => Some(format!("{name} !~ '^([A-Z][a-z]+ [A-Z][a-z]+ [0-9a-f]{{8}})?$'")),
        _ => None,
    }
}
