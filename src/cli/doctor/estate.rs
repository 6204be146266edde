//! What all environments share: configuration, secrets, store, repository, keys, disk space.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::{Findings, State};
use crate::cli::context::Context;
use crate::cli::text::counted;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::repository::Repository;
use crate::repository::descriptor::Descriptor;
use crate::storage::{self, Location, Store, layout};
use crate::units::{ByteSize, Span};

/// A store that is away is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Staged files of writers that were killed longer ago than this are removed.
const LEFTOVERS: Duration = Duration::from_secs(24 * 3600);
/// Less free space than this in the state directory is told.
const STATE_ROOM: u64 = 1 << 30;
/// Less free space than this share of a `file://` repository's disk is told.
const REPOSITORY_ROOM: f64 = 0.1;

/// Examines what the environments share; gives the repository, where it opens with any key.
pub(super) async fn examine(findings: &mut Findings, context: &Context) -> Option<Repository> {
    let estate = &context.estate;
    let environments = counted(estate.environments.len() as u64, "environment", "environments");
    let checks = counted(estate.checks.len() as u64, "check", "checks");
    findings.ok("configuration", format!("{} is sound: {environments}, {checks}", estate.file.display()));
    state_dir(findings, context);

    let identity = match context.recovery() {
        Ok(identity) => identity,
        Err(failure) => {
            findings.fail("recovery identity", &failure);
            None
        }
    };
    let mut location = findings.take("repository secrets", context.location())?;
    location.retry.give_up_after = location.retry.give_up_after.min(PATIENCE);
    let store = findings.take("store", storage::open(&location, &context.runtime).await)?;
    probe(findings, context, &location, &store).await;

    let descriptor = match Descriptor::find(&store).await {
        Ok(Some(descriptor)) => descriptor,
        Ok(None) => {
            let absent = error::repository(format!("there is no repository in {}", store.url()))
                .hint("run `lifeboat init` to make one, or correct `[repository] url`");
            findings.fail("repository", &absent);
            return None;
        }
        Err(failure) => {
            findings.fail("repository", &failure);
            return None;
        }
    };
    findings.ok("repository", format!("{} of {}, format {}", descriptor.repository, store.url(), descriptor.format));

    let state = context.state_dir();
    let with_identity = match &identity {
        Some(identity) => match Repository::open(&store, &state, Some(identity)).await {
            Ok(repository) => {
                let key = layout::epoch_key(descriptor.epoch);
                findings.ok("recovery identity", format!("opens {key}: this host can restore"));
                Some(repository)
            }
            Err(failure) => {
                findings.fail("recovery identity", &failure);
                None
            }
        },
        None => {
            if estate.keys.identity.is_none() {
                findings.ok("recovery identity", "none configured: this host backs up and cannot read its backups");
            }
            None
        }
    };
    let repository = match with_identity {
        Some(repository) => repository,
        None => findings.take("host keys", Repository::open(&store, &state, None).await)?,
    };
    enrolment(findings, &repository).await;
    Some(repository)
}

async fn enrolment(findings: &mut Findings, repository: &Repository) {
    let key = match repository.signer() {
        Ok(signer) => signer.verifying_key(),
        Err(failure) => return findings.weak("host keys", &failure),
    };
    let Some(trust) = findings.take("host keys", repository.trust().await) else { return };
    match trust.find(&key.id()) {
        Some(known) => findings.ok("host keys", format!("this host is enrolled as {} (key {})", known.name, key.id())),
        None => {
            let stranger = error::denied(format!("the signing key {} of this host is not enrolled", key.id()))
                .hint("run `lifeboat init` with the recovery identity configured; it enrols this host");
            findings.fail("host keys", &stranger);
        }
    }
}

async fn probe(findings: &mut Findings, context: &Context, location: &Location, store: &Store) {
    if let Some(report) = findings.take("store", storage::probe(store, location, &context.runtime).await) {
        let good = report.findings.iter().filter(|f| f.state == storage::State::Good).count() as u64;
        findings
            .ok("store", format!("{} does what a repository needs ({})", report.url, counted(good, "trial", "trials")));
        for finding in report.warnings() {
            findings.warning(
                "store",
                format!("{}: {}", finding.name, finding.words),
                "docs/providers.md says what to set",
            );
        }
    }
    if let Some(left) =
        findings.take("leftovers", storage::remove_leftovers(location, LEFTOVERS, &context.runtime).await)
    {
        match left.files {
            0 => findings.ok("leftovers", "no unfinished files older than a day"),
            files => {
                let files = counted(files, "unfinished file", "unfinished files");
                let words = format!("{files} of killed writers removed ({})", ByteSize(left.bytes));
                findings.ok("leftovers", words);
            }
        }
    }
    let folder =
        url::Url::parse(&location.url).ok().filter(|u| u.scheme() == "file").and_then(|u| u.to_file_path().ok());
    if let Some(folder) = folder {
        match room(&folder) {
            Ok((free, total)) if (free as f64) < total as f64 * REPOSITORY_ROOM => findings.warning(
                "room for backups",
                format!("{} of {} are free in {}", ByteSize(free), ByteSize(total), folder.display()),
                "make room: on a full disk backups and WAL stop, and PostgreSQL keeps its WAL",
            ),
            Ok((free, total)) => {
                findings.ok("room for backups", format!("{} of {} are free", ByteSize(free), ByteSize(total)));
            }
            Err(failure) => findings.weak("room for backups", &failure),
        }
    }
}

/// The state directory: there, private, with room.
fn state_dir(findings: &mut Findings, context: &Context) {
    let state = context.state_dir();
    let path = state.path();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => {
            let words = format!("{} does not exist yet", path.display());
            return findings.warning(
                "state directory",
                words,
                "`lifeboat init` makes it; a host with a recovery identity can restore without",
            );
        }
        Err(e) => {
            let failure = error::config(format!("cannot read {}", path.display())).source(e);
            return findings.fail("state directory", &failure);
        }
    };
    let mut open = Vec::new();
    for name in ["signing.key", "index.key"] {
        match std::fs::metadata(path.join(name)) {
            Ok(file) if file.mode() & 0o077 != 0 => open.push(path.join(name).display().to_string()),
            _ => {}
        }
    }
    let writable = meta.mode() & 0o022 != 0;
    if !open.is_empty() {
        findings.warning(
            "state directory",
            format!("{} can be read by other accounts", open.join(", ")),
            format!("chmod 600 {}", open.join(" ")),
        );
    } else if writable {
        findings.warning(
            "state directory",
            format!("{} can be written by other accounts", path.display()),
            format!("chmod 700 {}", path.display()),
        );
    } else {
        findings.ok("state directory", format!("{}, its keys readable by their owner only", path.display()));
    }
    match room(path) {
        Ok((free, _)) if free < STATE_ROOM => findings.warning(
            "room for state",
            format!("{} are free in {}", ByteSize(free), path.display()),
            "make room: caches live there",
        ),
        Ok(_) => {}
        Err(failure) => findings.weak("room for state", &failure),
    }
}

/// Free and total bytes of the file system that holds `path`.
fn room(path: &Path) -> Result<(u64, u64)> {
    let status = rustix::fs::statvfs(path)
        .or_err(ErrorKind::Config, || format!("cannot tell how much room is left in {}", path.display()))?;
    Ok((status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize))
}

/// A finding about an age: a warning when it is beyond `limit`.
pub(super) fn by_age(
    findings: &mut Findings,
    name: &'static str,
    words: String,
    age: Duration,
    limit: Duration,
    to_do: String,
) {
    if age > limit {
        findings.add(name, State::Warning, format!("{words}, which is over {}", Span(limit))).to_do.push(to_do);
    } else {
        findings.ok(name, words);
    }
}
