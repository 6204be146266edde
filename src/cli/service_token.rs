//! `lifeboat service token`: makes a token for the page and the API. It is printed once and kept nowhere; the configuration
//! gets its hash.

use clap::Args;
use serde_json::json;

use super::output::Outcome;
use crate::config::Role;
use crate::error::{self, Result};
use crate::service::http::secrets;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What it allows: viewer, auditor, operator, approver or admin
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,

    /// Whose it is; appears in ledgers and in the audit log
    #[arg(long, value_name = "NAME")]
    name: String,

    /// An environment that it may see; may be repeated [default: all]
    #[arg(short, long = "environment", value_name = "ENV")]
    environments: Vec<String>,
}

fn role(text: &str) -> std::result::Result<Role, String> {
    let known = Role::ALL.into_iter().find(|role| role.as_str() == text);
    known.ok_or_else(|| format!("roles: {}", Role::ALL.map(Role::as_str).join(", ")))
}

/// Makes one.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let name = arguments.name.trim();
    if name.is_empty() || name.contains(char::is_control) {
        return Err(error::usage("--name wants the name of a person or a program"));
    }
    let token = secrets::new_token()?;
    let sha256 = hex::encode(secrets::hash(&token));
    let quoted = |text: &str| serde_json::to_string(text).expect("a text");
    let mut lines = format!(
        "[[service.http.token]]\nname = {}\nrole = \"{}\"\nsha256 = \"{sha256}\"\n",
        quoted(name),
        arguments.role
    );
    if !arguments.environments.is_empty() {
        let names: Vec<String> = arguments.environments.iter().map(|name| quoted(name)).collect();
        lines += &format!("environments = [{}]\n", names.join(", "));
    }
    let text = format!(
        "token: {token}\n  shown once and kept nowhere: hand it to {name} by a safe way\n\nput this into lifeboat.toml, then `lifeboat service reload`:\n\n{lines}"
    );
    let json =
        json!({ "token": token, "name": name, "role": arguments.role, "sha256": sha256, "configuration": lines });
    Ok(Outcome::new(json, text))
}
