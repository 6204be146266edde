//! Secrets in JSON: the files that an export makes itself, whose shape is known, and those from elsewhere.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Masker;
use super::words::{is_harmless, is_secret};
use crate::configuration::export::VOLATILE;

impl Masker {
    /// `ir_config_parameter`: what the server masked already is known by its digest, and keyed here.
    pub(super) fn parameters(&self, text: &str) -> String {
        self.each(text, |parameter| {
            let key = parameter["key"].as_str().unwrap_or_default().to_owned();
            let written = parameter["value"].as_str().map(str::to_owned);
            let sha256 = written.as_ref().map(|value| hex::encode(Sha256::digest(value)));
            let sha256 = sha256.or_else(|| parameter["sha256"].as_str().map(str::to_owned));
            let value = match (&written, sha256) {
                (Some(value), _) if !is_secret(&key) => self.lines(value),
                (Some(value), _) if is_harmless(value) => value.clone(),
                (_, Some(sha256)) => self.secret(&sha256),
                (_, None) => String::new(),
            };
            *parameter = json!({ "key": key, "value": value });
        })
    }

    /// `pg_settings`.
    pub(super) fn settings(&self, text: &str) -> String {
        self.each(text, |setting| {
            let name = setting["name"].as_str().unwrap_or_default().to_owned();
            if let Some(value) = setting["setting"].as_str() {
                let masked = match is_secret(&name) && !is_harmless(value) {
                    true => self.secret(value),
                    false => self.line(value),
                };
                setting["setting"] = Value::String(masked);
            }
        })
    }

    /// Arguments and variables of running processes.
    pub(super) fn processes(&self, text: &str) -> String {
        let Ok(mut value) = serde_json::from_str::<Value>(text) else { return self.lines(text) };
        if let Some(object) = value.as_object_mut() {
            object.remove(VOLATILE);
        }
        for process in value["processes"].as_array_mut().into_iter().flatten() {
            if let Some(command) = process["command"].as_array() {
                process["command"] = Value::Array(self.command(command));
            }
            for (name, value) in process["environment"].as_object_mut().into_iter().flatten() {
                let Some(text) = value.as_str() else { continue };
                let masked = match is_secret(name) && !is_harmless(text) {
                    true => self.secret(text),
                    false => self.lines(text),
                };
                *value = Value::String(masked);
            }
        }
        format!("{value:#}\n")
    }

    /// An option that names a secret hides its value, in the same argument or in the next one.
    fn command(&self, command: &[Value]) -> Vec<Value> {
        let mut hide = false;
        let mut masked = Vec::with_capacity(command.len());
        for argument in command.iter().filter_map(Value::as_str) {
            let option = argument.starts_with('-');
            masked.push(Value::String(match std::mem::take(&mut hide) && !option {
                true => self.secret(argument),
                false => self.lines(argument),
            }));
            let name = argument.trim_start_matches('-');
            // `-w` is Odoo's short form of `--db_password`.
            hide = option && (argument == "-w" || !name.contains('=') && is_secret(name));
        }
        masked
    }

    /// Facts whose columns were chosen: no name in them says anything about secrets.
    pub(super) fn facts(&self, text: &str) -> String {
        let Ok(mut value) = serde_json::from_str::<Value>(text) else { return self.lines(text) };
        if let Some(object) = value.as_object_mut() {
            object.remove(VOLATILE);
        }
        strings(&mut value, &|text| self.plain(text));
        format!("{value:#}\n")
    }

    /// JSON that nobody here knows.
    pub(super) fn foreign_json(&self, text: &str) -> String {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return self.lines(text) };
        let kubernetes = value["kind"] == "Secret";
        format!("{:#}\n", self.unknown(value, false, kubernetes))
    }

    fn unknown(&self, value: Value, secret: bool, kubernetes: bool) -> Value {
        match value {
            Value::String(text) if secret && !is_harmless(&text) => Value::String(self.secret(&text)),
            Value::Number(number) if secret => Value::String(self.secret(&number.to_string())),
            Value::String(text) => Value::String(self.lines(&text)),
            Value::Array(list) => list.into_iter().map(|v| self.unknown(v, secret, kubernetes)).collect(),
            Value::Object(object) => {
                let called = |name: &str| object.get(name).and_then(Value::as_str).is_some_and(is_secret);
                let announced = called("name") || called("key");
                let member = |(name, value): (String, Value)| {
                    // `{"name": "PASSWORD", "value": …}`: the name is none, its value is one.
                    let names = announced && matches!(name.as_str(), "name" | "key");
                    let hides = !names && is_secret(&name)
                        || announced && name == "value"
                        || kubernetes && matches!(name.as_str(), "data" | "stringData");
                    (self.foreign(&name), self.unknown(value, secret || hides, kubernetes))
                };
                Value::Object(object.into_iter().map(member).collect::<Map<_, _>>())
            }
            other => other,
        }
    }

    /// Each object of a list; a text that is no such list is treated as lines.
    fn each(&self, text: &str, change: impl FnMut(&mut Value)) -> String {
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Array(mut list)) => {
                list.iter_mut().for_each(change);
                format!("{:#}\n", Value::Array(list))
            }
            _ => self.lines(text),
        }
    }
}

/// Changes every string in a value.
fn strings(value: &mut Value, change: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(list) => list.iter_mut().for_each(|v| strings(v, change)),
        Value::Object(object) => object.values_mut().for_each(|v| strings(v, change)),
        _ => {}
    }
}
