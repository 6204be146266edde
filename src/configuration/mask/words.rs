//! Which names say that their value is a secret.

/// Parts of names that name a secret.
const SECRET: [&str; 22] = [
    "password",
    "passwords",
    "passwd",
    "passwort",
    "pass",
    "pwd",
    "pw",
    "passphrase",
    "passcode",
    "passfile",
    "secret",
    "secrets",
    "token",
    "tokens",
    "credential",
    "credentials",
    "private",
    "salt",
    "apikey",
    "psk",
    "otp",
    "jwt",
];

/// The same inside a longer part: `requirepass`, `ldapbindpasswd`, `authtoken`.
const WITHIN: [&str; 8] =
    ["password", "passwd", "passphrase", "passfile", "requirepass", "masterauth", "secret", "token"];

/// Last parts after which the value is about a secret and is none.
const ABOUT: [&str; 26] = [
    "file",
    "filename",
    "path",
    "dir",
    "directory",
    "encryption",
    "expiration",
    "expires",
    "expiry",
    "lifetime",
    "ttl",
    "type",
    "length",
    "algorithm",
    "rounds",
    "mode",
    "policy",
    "minlength",
    "required",
    "enabled",
    "scopes",
    "endpoint",
    "host",
    "port",
    "username",
    "interval",
];

/// What stands before `key` where that is no secret.
const OPEN_KEYS: [&str; 9] = ["primary", "foreign", "public", "sort", "partition", "cache", "routing", "group", "host"];

/// What stands before `pass` where that is no password.
const PASSES_ON: [&str; 5] = ["proxy", "fastcgi", "uwsgi", "scgi", "grpc"];

/// Whether the value of `name` is a secret; `smtp_password`, `apiKey`, `AWS_SECRET_ACCESS_KEY`, not
/// `password_encryption` and not `ssl_key_file`.
pub(super) fn is_secret(name: &str) -> bool {
    let parts = parts(name);
    let Some(last) = parts.last() else { return false };
    if ABOUT.contains(&last.as_str()) {
        return false;
    }
    let before_last = parts.len().checked_sub(2).map(|at| parts[at].as_str());
    // nginx passes requests on: `proxy_pass`.
    if last == "pass" && before_last.is_some_and(|before| PASSES_ON.contains(&before)) {
        return false;
    }
    let is_key = last == "key" || last == "keys" && before_last.is_some();
    parts.iter().any(|part| SECRET.contains(&part.as_str()) || WITHIN.iter().any(|w| part.contains(w)))
        || is_key && !before_last.is_some_and(|before| OPEN_KEYS.contains(&before))
        || name.contains("enterprise_code")
}

/// The parts of a name, in lower case: cut at anything but letters and digits, and before a capital letter that
/// follows a small one.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && before.is_lowercase()) {
            parts.push(String::new());
        }
        if c.is_alphanumeric() {
            parts.last_mut().expect("there is one").extend(c.to_lowercase());
        }
        before = c;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Whether a value hides nothing: empty, a word for none, or a reference to where the secret is.
pub(super) fn is_harmless(value: &str) -> bool {
    let value = value.trim().trim_matches(['"', '\'']);
    let lower = value.to_ascii_lowercase();
    if matches!(
        lower.as_str(),
        "" | "false" | "true" | "none" | "null" | "on" | "off" | "yes" | "no" | "~" | "{}" | "[]"
    ) {
        return true;
    }
    let variable = value.strip_prefix("${").and_then(|v| v.strip_suffix('}')).or_else(|| value.strip_prefix('$'));
    let plain = |v: &str| !v.is_empty() && v.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let capital = |v: &str| v.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    variable.is_some_and(|v| plain(v) && capital(v))
        || value.starts_with("{{") && value.ends_with("}}") && value.matches("{{").count() == 1 && !value.contains('"')
        || value.starts_with("/run/secrets/") && !value.contains(char::is_whitespace)
        || value.starts_with("<secret ") && value.ends_with('>')
}
