//! The JSON Schema of the configuration files, for editors and for review tools.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::policy_raw::RawPolicy;
use super::raw::RawFile;
use crate::units::{ByteSize, Span};

/// JSON Schema (draft 2020-12) of `lifeboat.toml` and of the files that it includes.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(RawFile).to_value()
}

/// JSON Schema of `policy.toml`.
pub fn policy_schema() -> serde_json::Value {
    schemars::schema_for!(RawPolicy).to_value()
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\s*[0-9]+\s*(ms|s|m|min|h|d)\s*$", "examples": ["60s", "15m", "1h"] })
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\s*[0-9]+\s*(B|[kMGT]B|[KMGT]iB)?\s*$", "examples": ["64MiB", "2GiB"] })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Every property name in a schema, with its description.
    fn properties(schema: &Value, into: &mut BTreeSet<(String, bool)>) {
        match schema {
            Value::Object(object) => {
                if let Some(Value::Object(properties)) = object.get("properties") {
                    for (name, property) in properties {
                        into.insert((name.clone(), property.get("description").is_some()));
                    }
                }
                object.values().for_each(|v| properties(v, into));
            }
            Value::Array(list) => list.iter().for_each(|v| properties(v, into)),
            _ => {}
        }
    }

    #[test]
    fn every_key_is_described_in_the_schema_and_in_the_documentation() {
        let mut found = BTreeSet::new();
        properties(&json_schema(), &mut found);
        assert!(found.len() > 40, "{found:?}");
        let docs =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).expect("docs");
        for (name, described) in &found {
            assert!(described, "{name} has no description in the schema");
            let documented = [
                format!("| `{name}`"),
                format!("`[{name}]"),
                format!("[[{name}]]"),
                format!("environment.{name}]"),
                format!("`{{ {name} = "),
            ];
            assert!(documented.iter().any(|d| docs.contains(d)), "{name} is not in docs/configuration.md");
        }
    }

    #[test]
    fn a_secret_is_a_reference_of_exactly_one_kind() {
        let schema = json_schema();
        let secret = &schema["$defs"]["SecretReference"];
        assert_eq!((&secret["minProperties"], &secret["maxProperties"]), (&Value::from(1), &Value::from(1)));
        assert!(schema.to_string().contains("#/$defs/SecretReference"));
    }

    #[test]
    fn unknown_keys_are_refused_by_the_schema_too() {
        let schema = json_schema();
        assert_eq!(schema["additionalProperties"], Value::Bool(false));
        assert_eq!(schema["$defs"]["Postgres"]["additionalProperties"], Value::Bool(false));
        assert_eq!(schema["$defs"]["Postgres"]["required"], serde_json::json!(["dsn"]));
    }
}
