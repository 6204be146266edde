//! The configuration that a responder writes on an empty machine: this estate's repository, keys and environment, with
//! the recovery key beside it. Secrets stay references.

use super::Facts;
use super::words::{span, toml};
use crate::config::{Purpose, SecretRef};

/// Lines of `lifeboat.toml`; `recovery` adds the recovery key, which a host that only backs up must not have.
pub(super) fn lines(facts: &Facts<'_>, recovery: bool) -> Vec<String> {
    let (estate, environment) = (facts.estate, facts.environment);
    let repository = &estate.repository;
    let mut lines = vec!["[repository]".to_owned(), format!("url = {}", toml(&repository.url))];
    let mut optional = |key: &str, value: Option<String>| lines.extend(value.map(|value| format!("{key} = {value}")));
    optional("endpoint", repository.endpoint.as_deref().map(toml));
    optional("region", repository.region.as_deref().map(toml));
    optional("access_key_id", repository.access_key_id.as_ref().map(secret));
    optional("secret_access_key", repository.secret_access_key.as_ref().map(secret));
    optional("session_token", repository.session_token.as_ref().map(secret));
    let recipients: Vec<String> = estate.keys.recipients.iter().map(|r| toml(r)).collect();
    lines.push("[keys]".to_owned());
    lines.push(format!("recipients = [{}]", recipients.join(", ")));
    if recovery {
        lines.push("identity = { file = \"recovery.key\" }".to_owned());
    }
    lines.push("state_dir = \"state\"".to_owned());
    lines.push("[[environment]]".to_owned());
    lines.push(format!("name = {}", toml(&environment.name)));
    lines.push(format!("purpose = {}", toml(purpose(environment.purpose))));
    lines.push(format!("owner = {}", toml(&environment.owner)));
    lines.push("[environment.objectives]".to_owned());
    lines.push(format!("rpo = {}", toml(&span(environment.objectives.rpo))));
    lines.push(format!("rto = {}", toml(&span(environment.objectives.rto))));
    let postgres = &environment.postgres;
    lines.push("[environment.postgres]".to_owned());
    lines.push(format!("dsn = {}", toml(&postgres.dsn)));
    let mut optional = |key: &str, value: Option<String>| lines.extend(value.map(|value| format!("{key} = {value}")));
    optional("password", postgres.password.as_ref().map(secret));
    optional("tls_root", postgres.tls_root.as_ref().map(|p| toml(&p.to_string_lossy())));
    optional("slot", Some(toml(&postgres.slot)));
    optional("bin_dir", postgres.bin_dir.as_ref().map(|p| toml(&p.to_string_lossy())));
    optional("run_as", postgres.run_as.as_deref().map(toml));
    for odoo in &environment.odoo {
        lines.push("[[environment.odoo]]".to_owned());
        lines.push(format!("data_dir = {}", toml(&odoo.data_dir.to_string_lossy())));
        if let Some(file) = &odoo.config_file {
            lines.push(format!("config_file = {}", toml(&file.to_string_lossy())));
        }
        if let Some(databases) = &odoo.databases {
            lines.push(format!("databases = [{}]", databases.iter().map(|d| toml(d)).collect::<Vec<_>>().join(", ")));
        }
        if !odoo.addons_paths.is_empty() {
            let paths: Vec<String> = odoo.addons_paths.iter().map(|p| toml(&p.to_string_lossy())).collect();
            lines.push(format!("addons_paths = [{}]", paths.join(", ")));
        }
    }
    if !environment.configuration.files.is_empty() {
        let files: Vec<String> = environment.configuration.files.iter().map(|f| toml(f)).collect();
        lines.push("[environment.configuration]".to_owned());
        lines.push(format!("files = [{}]", files.join(", ")));
    }
    lines
}

/// Where each secret that is needed comes from, for people.
pub(super) fn secrets(facts: &Facts<'_>) -> Vec<String> {
    let repository = &facts.estate.repository;
    let named = [
        ("access key of the bucket", &repository.access_key_id),
        ("secret key of the bucket", &repository.secret_access_key),
        ("session token of the bucket", &repository.session_token),
        ("password of the role in the cluster", &facts.environment.postgres.password),
    ];
    let told = named.into_iter().filter_map(|(what, secret)| {
        let place = match secret.as_ref()? {
            SecretRef::Env(name) => format!("in the environment variable `{name}`"),
            SecretRef::File(path) => format!("in the file {}", super::words::code(&path.to_string_lossy())),
            SecretRef::Command(words) => format!("from the program {}", super::words::code(&words[0])),
        };
        Some(format!("{what}: expected {place}"))
    });
    told.collect()
}

fn secret(secret: &SecretRef) -> String {
    match secret {
        SecretRef::Env(name) => format!("{{ env = {} }}", toml(name)),
        SecretRef::File(path) => format!("{{ file = {} }}", toml(&path.to_string_lossy())),
        SecretRef::Command(words) => {
            format!("{{ command = [{}] }}", words.iter().map(|w| toml(w)).collect::<Vec<_>>().join(", "))
        }
    }
}

fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Production => "production",
        Purpose::Staging => "staging",
        Purpose::Qa => "qa",
        Purpose::Training => "training",
        Purpose::PeakSeason => "peak-season",
        Purpose::Other => "other",
    }
}
