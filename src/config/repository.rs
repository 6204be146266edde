//! `[repository]` and `[keys]`: where backups are kept and who can read them.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::raw::{Located, RawKeys, RawRepository};
use super::raw_secret::RawSecret;
use super::secret::SecretRef;
use super::source::Source;
use crate::error::Result;
use crate::units::Span;

/// Where backups are kept, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// `s3://`, `file://`, `az://` or `gs://`; without credentials, query or fragment.
    pub url: String,
    /// Address of an S3-compatible store.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// S3 access key; present exactly when `secret_access_key` is. Both absent: the usual AWS chain.
    pub access_key_id: Option<SecretRef>,
    /// S3 secret key.
    pub secret_access_key: Option<SecretRef>,
    /// S3 session token; only beside the two keys.
    pub session_token: Option<SecretRef>,
    /// How long a failing store is tried again.
    pub retry_for: Duration,
    /// zstd level, 1 to 19.
    pub compression_level: i32,
    /// How objects are locked; only of `s3://`.
    pub object_lock: Option<ObjectLockConfig>,
}

/// How objects are locked against deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLockConfig {
    /// Who may lift a lock before its date.
    pub mode: LockMode,
    /// For how many days; at least 1.
    pub days: u32,
}

/// Who may lift a lock before its date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Whoever has `s3:BypassGovernanceRetention`.
    Governance,
    /// Nobody.
    Compliance,
}

impl std::fmt::Display for LockMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        })
    }
}

/// Who can read backups, and where this host keeps its own keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysConfig {
    /// age X25519 recipients; at least one, no two alike.
    pub recipients: Vec<String>,
    /// The recovery key; only where restores and drills run.
    pub identity: Option<SecretRef>,
    /// Directory of the signing key, the index key and caches.
    pub state_dir: PathBuf,
}

/// Longer locks than ten years are a slip of the finger that nobody can take back.
const MOST_LOCKED_DAYS: u32 = 3650;
const DEFAULT_RETRY: Duration = Duration::from_secs(5 * 60);
pub(super) const DEFAULT_STATE_DIR: &str = "/var/lib/lifeboat";

/// Judges `[repository]`.
pub(super) fn repository(source: &Source, raw: RawRepository) -> Result<RepositoryConfig> {
    let url = repository_url(source, &raw.url)?;
    let keys = [
        ("endpoint", raw.endpoint.as_ref().map(|l| &l.span)),
        ("region", raw.region.as_ref().map(|l| &l.span)),
        ("access_key_id", raw.access_key_id.as_ref().map(|l| &l.span)),
        ("secret_access_key", raw.secret_access_key.as_ref().map(|l| &l.span)),
        ("session_token", raw.session_token.as_ref().map(|l| &l.span)),
        ("object_lock", raw.object_lock.as_ref().map(|l| &l.span)),
    ];
    if url.scheme() != "s3"
        && let Some((key, span)) = keys.iter().find_map(|(key, span)| Some((key, (*span)?)))
    {
        return Err(source
            .error(span, format!("`{key}` belongs to s3:// and means nothing for a {}:// repository", url.scheme()))
            .hint(match url.scheme() {
                "file" => "remove it, or write the s3:// address of the bucket in `url`",
                _ => "remove it: az:// and gs:// take their credentials from the usual AZURE_… and GOOGLE_… variables",
            }));
    }
    if let Some(endpoint) = &raw.endpoint {
        let ok = Url::parse(&endpoint.value).is_ok_and(|u| {
            matches!(u.scheme(), "http" | "https") && u.has_host() && u.username().is_empty() && u.password().is_none()
        });
        if !ok {
            return Err(source
                .error(&endpoint.span, "`endpoint` is not an address of the form http://host:port or https://host:port")
                .hint("credentials do not belong in it: use access_key_id and secret_access_key"));
        }
    }
    for (given, other, have, lack) in [
        (&raw.access_key_id, &raw.secret_access_key, "access_key_id", "secret_access_key"),
        (&raw.secret_access_key, &raw.access_key_id, "secret_access_key", "access_key_id"),
        (&raw.session_token, &raw.access_key_id, "session_token", "access_key_id"),
    ] {
        if let (Some(given), None) = (given, other) {
            return Err(source
                .error(&given.span, format!("`{have}` is given without `{lack}`"))
                .hint("give both, or neither to use the usual AWS chain (environment, profile, instance role)"));
        }
    }
    let compression_level = match raw.compression_level {
        Some(level) if !(1..=19).contains(&level.value) => {
            return Err(source
                .error(&level.span, format!("compression level {} does not exist", level.value))
                .hint("zstd levels go from 1 (fast) to 19 (small); 3 is the default"));
        }
        level => level.map_or(3, |l| l.value),
    };
    let object_lock = match raw.object_lock.map(|l| l.value) {
        Some(lock) if lock.days.value == 0 || lock.days.value > MOST_LOCKED_DAYS => {
            return Err(source
                .error(&lock.days.span, format!("objects cannot be locked for {} days", lock.days.value))
                .meaning("`lifeboat prune` moves the dates of what is needed on, so a lock need not outlast a backup")
                .hint(format!("write 1 to {MOST_LOCKED_DAYS}; 30 is usual")));
        }
        lock => lock.map(|lock| ObjectLockConfig { mode: lock.mode, days: lock.days.value }),
    };
    Ok(RepositoryConfig {
        url: raw.url.value,
        object_lock,
        endpoint: raw.endpoint.map(|l| l.value),
        region: raw.region.map(|l| l.value),
        access_key_id: optional_secret(source, raw.access_key_id)?,
        secret_access_key: optional_secret(source, raw.secret_access_key)?,
        session_token: optional_secret(source, raw.session_token)?,
        retry_for: raw.retry_for.map_or(DEFAULT_RETRY, |l| l.value.0),
        compression_level,
    })
}

/// Parses and judges the address of the repository. The address is never repeated: it may hold credentials.
fn repository_url(source: &Source, raw: &Located<String>) -> Result<Url> {
    let wrong = |what: &str| source.error(&raw.span, what);
    let example = "write s3://bucket/prefix, file:///absolute/path, az://container/prefix or gs://bucket/prefix";
    let url = Url::parse(&raw.value).map_err(|_| wrong("the repository's `url` is not an address").hint(example))?;
    if !matches!(url.scheme(), "s3" | "file" | "az" | "gs") {
        return Err(wrong(&format!("no store is known for {}://", url.scheme())).hint(example));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("the repository's `url` holds credentials")
            .hint("secrets are given by reference: use access_key_id and secret_access_key"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("the repository's `url` holds `?` or `#`, which mean nothing here").hint(example));
    }
    match (url.scheme(), url.host_str().is_some_and(|h| !h.is_empty())) {
        ("file", true) => Err(wrong("a file:// repository needs an absolute path: three slashes, file:///path")),
        ("file", false) if !raw.value.starts_with("file:///") || url.path() == "/" => {
            Err(wrong("a file:// repository needs the absolute path of a directory of its own: file:///path"))
        }
        (_, false) if url.scheme() != "file" => Err(wrong("the repository's `url` names no bucket").hint(example)),
        _ => Ok(url),
    }
}

/// Judges `[keys]`.
pub(super) fn keys(source: &Source, raw: RawKeys) -> Result<KeysConfig> {
    let mut recipients: Vec<String> = Vec::new();
    for recipient in &raw.recipients.value {
        // Never repeated in a message: it may be an identity, put here by mistake.
        if recipient.value.trim().to_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(source
                .error(
                    &recipient.span,
                    "this is an identity, the secret half of a key pair; a recipient (age1…) belongs here",
                )
                .meaning("whoever could read this file can read every backup made for that key")
                .hint("make a new key pair with `lifeboat keygen` and put only its age1… half here"));
        }
        if recipient.value.parse::<age::x25519::Recipient>().is_err() {
            return Err(source
                .error(&recipient.span, "this is not an age X25519 recipient")
                .hint("`lifeboat keygen -o recovery.key` makes a key pair and prints the recipient, age1 and 58 characters")
                .hint("keep recovery.key away from the host that takes backups: nothing else can open them"));
        }
        if recipients.contains(&recipient.value) {
            return Err(source.error(&recipient.span, "this recipient is listed twice"));
        }
        recipients.push(recipient.value.clone());
    }
    if recipients.is_empty() {
        return Err(source
            .error(&raw.recipients.span, "no recipient is listed")
            .meaning("nobody could ever read a backup")
            .hint("`lifeboat keygen -o recovery.key` makes a key pair and prints the recipient"));
    }
    Ok(KeysConfig {
        recipients,
        identity: optional_secret(source, raw.identity)?,
        state_dir: raw.state_dir.map_or_else(|| DEFAULT_STATE_DIR.into(), |l| source.resolve(&l.value)),
    })
}

/// Judges a reference to a secret: exactly one of its three keys.
pub(super) fn secret(source: &Source, raw: Located<RawSecret>) -> Result<SecretRef> {
    let Located { value, span } = raw;
    match (value.env, value.file, value.command) {
        (Some(name), None, None) if !name.is_empty() && !name.contains(['=', '\0']) => Ok(SecretRef::Env(name)),
        (Some(_), None, None) => Err(source.error(&span, "`env` is not the name of an environment variable")),
        (None, Some(path), None) if !path.is_empty() => Ok(SecretRef::File(source.resolve(&path))),
        (None, Some(_), None) => Err(source.error(&span, "`file` names no file")),
        (None, None, Some(mut words)) if words.first().is_some_and(|w| !w.is_empty()) => {
            if words[0].contains('/') {
                words[0] = source.resolve(&words[0]).display().to_string();
            }
            Ok(SecretRef::Command(words))
        }
        (None, None, Some(_)) => Err(source.error(&span, "`command` names no program")),
        (None, None, None) => Err(source
            .error(&span, "this reference to a secret names nothing")
            .hint("write { env = \"VARIABLE\" }, { file = \"path\" } or { command = [\"program\", \"argument\"] }")),
        _ => Err(source
            .error(&span, "this reference to a secret names more than one place")
            .hint("keep exactly one of env, file and command")),
    }
}

/// The same where the key may be absent.
pub(super) fn optional_secret(source: &Source, raw: Option<Located<RawSecret>>) -> Result<Option<SecretRef>> {
    raw.map(|raw| secret(source, raw)).transpose()
}

/// A duration that must not be zero.
pub(super) fn positive(source: &Source, key: &str, raw: &Located<Span>) -> Result<Duration> {
    if raw.value.0.is_zero() {
        return Err(source.error(&raw.span, format!("`{key}` is zero")));
    }
    Ok(raw.value.0)
}
