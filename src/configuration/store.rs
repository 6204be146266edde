//! Configuration exports in the repository.
//!
//! Contents hold passwords and private keys, so they are sealed into packs, which the host that backs
//! up cannot open again. The manifest, which it can open, holds names, sizes and keyed digests: enough
//! to tell what changed since the previous export, and nothing of the contents.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::FutureExt;

use super::drift::{self, Drift, MaskedExport, Rules};
use super::export::{ConfigFile, Export, Unreadable, changes};
use super::manifest::{FORMAT, FileLine, Line, Manifest, keyed};
use super::mask::{MaskedFile, Masker};
use super::{Change, OdooInstance, Request, collect, write_beside};
use crate::config::{DriftRule, Environment, expand_glob};
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::evidence::entry::{ConfigurationExport, Suspect};
use crate::evidence::{Appended, Body, Ledger, LedgerEntry, Subject};
use crate::postgres::backup::record_failure;
use crate::postgres::base_backup::new_id;
use crate::postgres::source::Source;
use crate::postgres::sql::explain;
use crate::postgres::tools;
use crate::repository::catalogue::ledger;
use crate::repository::fetch::fetch;
use crate::repository::meta::MetaWriter;
use crate::repository::pack_stream::{self, Position};
use crate::repository::retention::guard::{self, Uses};
use crate::repository::{Repository, StreamWriter};
use crate::runtime::{Runtime, blocking};
use crate::storage::layout;

/// The program that writes roles as SQL.
const GLOBALS: &str = "pg_dumpall";

/// A committed export.
#[derive(Debug)]
pub struct Exported {
    /// What the ledger says of it.
    pub entry: ConfigurationExport,
    /// Where the ledger says it.
    pub appended: Appended,
    /// What differs from the previous export; nothing where this is the first.
    pub changes: Vec<Change>,
    /// The export that it was compared with.
    pub compared_with: Option<String>,
    /// The same, setting by setting; `None` where there is nothing to compare with.
    pub drift: Option<Drift>,
    /// Bytes that it added to the repository.
    pub stored_bytes: u64,
}

impl Exported {
    /// The failure to report, where something could not be read: done, with damage named.
    pub fn failure(&self) -> Option<Error> {
        let gaps = &self.entry.unreadable;
        let named: Vec<String> = gaps.iter().take(10).map(|gap| format!("{}: {}", gap.name, gap.reason)).collect();
        let more = if gaps.len() > 10 { format!("; and {} more", gaps.len() - 10) } else { String::new() };
        (!gaps.is_empty()).then(|| {
            error::partial(format!("the configuration export lacks {}{more}", named.join("; ")))
                .meaning("everything else was exported; what is named here must come from elsewhere after a disaster")
                .hint("let the account of Lifeboat read it, or take it out of the environment's configuration")
        })
    }
}

/// Exports the configuration of `environment` and commits it; a failure is recorded in the ledger too.
/// `path` is the value of `PATH`, one of the places where `pg_dumpall` is looked for; `rules` say what changes mean.
pub async fn export(
    repository: &Repository,
    environment: &Environment,
    rules: &[DriftRule],
    level: i32,
    path: Option<&OsStr>,
    runtime: &Runtime,
) -> Result<Exported> {
    let ledger = ledger(repository, &environment.name).await?;
    let (started_at, began) = (runtime.now(), Instant::now());
    let result = async {
        repository.signer()?;
        let export = gather(environment, path, runtime).await?;
        commit(repository, &environment.name, rules, &ledger, export, level, runtime).await
    };
    let result = result.await;
    if let Err(failure) = &result {
        record_failure(&ledger, repository, "configuration export", failure, started_at, began, runtime).await;
    }
    result
}

/// Reads everything.
async fn gather(environment: &Environment, path: Option<&OsStr>, runtime: &Runtime) -> Result<Export> {
    let source = Source::new(&environment.postgres)?;
    let client = source.sql().await?;
    let row = client
        .query_one("SELECT current_setting('server_version_num')::int / 10000", &[])
        .await
        .map_err(|e| explain(e, "cannot read the server's version"))?;
    let major = row.get::<_, i32>(0).cast_unsigned();
    let bin_dir = match tools::program_dir(&environment.postgres, major, GLOBALS, path) {
        Ok(found) => found,
        Err(e) => {
            let hints = e.hints().join("; ");
            runtime.emit(Event::Warning(format!("roles cannot be exported: {e}; {hints}")));
            // The export then names roles as what it lacks, with the place where they were looked for.
            let usual = || PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
            environment.postgres.bin_dir.clone().unwrap_or_else(usual)
        }
    };
    let odoo: Vec<OdooInstance> = environment
        .odoo
        .iter()
        .map(|o| OdooInstance {
            data_dir: o.data_dir.clone(),
            config_file: o.config_file.clone(),
            databases: o.databases.clone(),
            addons: o.addons_paths.clone(),
        })
        .collect();
    let extra: Vec<String> = environment.configuration.files.iter().flat_map(|pattern| expanded(pattern)).collect();
    let mut program_environment = Vec::new();
    if let Some(root) = &environment.postgres.tls_root {
        program_environment.push(("PGSSLROOTCERT".to_owned(), root.to_string_lossy().into_owned()));
        program_environment.push(("PGSSLMODE".to_owned(), "verify-full".to_owned()));
    }
    let connect = |database: String| {
        let source = &source;
        async move { source.sql_in(&database).await }.boxed()
    };
    let request = Request {
        client: &client,
        connect: &connect,
        dsn: source.dsn(),
        program_environment: &program_environment,
        bin_dir: &bin_dir,
        odoo: &odoo,
        extra: &extra,
        process_environment: environment.configuration.process_environment,
    };
    collect(runtime, request).await
}

/// The paths that a pattern names now. One that names none stays as it is: the export says that.
fn expanded(pattern: &str) -> Vec<String> {
    match expand_glob(Path::new(pattern)) {
        Ok(paths) if !paths.is_empty() => paths.iter().map(|p| p.to_string_lossy().into_owned()).collect(),
        _ => vec![pattern.to_owned()],
    }
}

/// Stores an export and commits it.
async fn commit(
    repository: &Repository,
    environment: &str,
    rules: &[DriftRule],
    ledger: &Ledger,
    export: Export,
    level: i32,
    runtime: &Runtime,
) -> Result<Exported> {
    let id = new_id(export.taken_at)?;
    let digests: Vec<(String, String)> =
        export.digests().into_iter().map(|(name, digest)| (name.clone(), keyed(repository, &name, &digest))).collect();
    let entries = ledger.entries().await?;
    let previous = previous(repository, environment, &entries, runtime).await?;
    let changes = match &previous {
        Some((_, before)) => changes(before, &digests, &export.unreadable),
        None => Vec::new(),
    };
    let text: String = digests.iter().map(|(name, digest)| format!("{digest} {name}\n")).collect();
    let whole = keyed(repository, "", &text);

    let (writer, task) = pack_stream::start(repository, environment, level);
    let Export { files, unreadable, taken_at } = export;
    let masker = Masker::new(&repository.seal.index);
    let wrote = tokio::task::spawn_blocking(move || write_all(writer, files, &masker)).await;
    let written = task.written().await?;
    let (files, positions, masked) =
        wrote.or_err(ErrorKind::Internal, || "a worker ended unexpectedly".to_owned())??;
    let masked = MaskedExport {
        environment: environment.to_owned(),
        export: id.clone(),
        taken_at,
        files: masked,
        missing: unreadable.clone(),
    };
    let (masked_object, masked_size) = drift::store(repository, &masked).await?;

    let mut manifest = MetaWriter::new(repository)?;
    manifest.line(&Line::Export { format: FORMAT, id: id.clone(), taken_at })?;
    for ((file, at), (_, digest)) in files.iter().zip(positions).zip(&digests) {
        manifest.line(&Line::File(FileLine {
            name: file.name.clone(),
            origin: file.origin.clone(),
            mode: file.mode,
            size: file.content.len() as u64,
            at: (at.frame, at.offset),
            digest: digest.clone(),
        }))?;
    }
    for gap in &unreadable {
        manifest.line(&Line::Missing(gap.clone()))?;
    }
    for pack in &written.packs {
        manifest.line(&Line::Pack(pack.clone()))?;
    }
    let manifest = manifest.put(repository, environment).await?;

    let entry = ConfigurationExport {
        id,
        taken_at,
        files: files.len() as u64,
        bytes: files.iter().map(|f| f.content.len() as u64).sum(),
        manifest: manifest.sha256.clone(),
        digest: whole,
        masked: Some(masked_object.clone()),
        changed: changes.iter().map(|c| c.name.clone()).collect(),
        unreadable: unreadable
            .into_iter()
            .map(|gap| Suspect { name: gap.name, reason: format!("{}: {}", gap.origin, gap.reason) })
            .collect(),
    };
    let mut subjects = vec![Subject::new(layout::meta(environment, &manifest.sha256), &manifest.sha256)];
    subjects.push(Subject::new(layout::meta(environment, &masked_object), &masked_object));
    subjects.extend(written.packs.iter().map(|p| Subject::new(layout::pack(environment, &p.sha256), &p.sha256)));
    let body = Body::ConfigurationExport(entry.clone());
    let uses = Uses { since: entries.last().map_or(0, |e| e.sequence), ..Uses::default() };
    let appended = guard::commit(ledger, repository, environment, subjects, body, &uses, runtime).await?;
    let stored_bytes = written.stored_bytes + manifest.size + masked_size;
    let rules = Rules { own: rules, environment };
    let drift = tell_drift(repository, ledger, &entries, (&entry, masked), rules, runtime).await;
    Ok(Exported { entry, appended, changes, compared_with: previous.map(|(id, _)| id), drift, stored_bytes })
}

/// Records what changed since the previous export, and first what an export before it left untold because its process
/// died. The export is committed, so whatever fails here is a warning.
async fn tell_drift(
    repository: &Repository,
    ledger: &Ledger,
    entries: &[LedgerEntry],
    (entry, masked): (&ConfigurationExport, MaskedExport),
    rules: Rules<'_>,
    runtime: &Runtime,
) -> Option<Drift> {
    let mut earlier = drift::newest(entries);
    let (previous, before) = (earlier.next()?, earlier.next());
    let told = drift::latest(entries).is_some_and(|drift| drift.export == previous.id);
    let tell = async {
        if let Some(before) = before.filter(|before| !told && before.digest != previous.digest) {
            drift::append(repository, ledger, (before, None), (previous, None), rules, runtime).await?;
        }
        drift::append(repository, ledger, (previous, None), (entry, Some(masked)), rules, runtime).await
    };
    tell.await.unwrap_or_else(|failure| {
        let text =
            format!("what changed since export {} is not told in the ledger: {}", previous.id, failure.message());
        runtime.emit(Event::Warning(text));
        None
    })
}

type Wrote = (Vec<ConfigFile>, Vec<Position>, Vec<MaskedFile>);

fn write_all(mut writer: StreamWriter, files: Vec<ConfigFile>, masker: &Masker) -> Result<Wrote> {
    let masked = files.iter().map(|file| masker.mask(file)).collect();
    let mut positions = Vec::with_capacity(files.len());
    for file in &files {
        positions.push(writer.position());
        writer.write(&file.content)?;
    }
    writer.finish()?;
    Ok((files, positions, masked))
}

/// Id, names and digests of the newest export. A damaged one is a warning: it must not stop a new one.
async fn previous(
    repository: &Repository,
    environment: &str,
    entries: &[LedgerEntry],
    runtime: &Runtime,
) -> Result<Option<(String, Vec<(String, String)>)>> {
    let Some(newest) = drift::newest(entries).next() else { return Ok(None) };
    match Manifest::read(repository, environment, &newest.manifest).await {
        Ok(manifest) => {
            let digests = manifest.files.into_iter().map(|f| (f.name, f.digest)).collect();
            Ok(Some((newest.id.clone(), digests)))
        }
        Err(e) if e.kind() == ErrorKind::Integrity => {
            runtime.emit(Event::Warning(format!("changes since export {} cannot be told: {e}", newest.id)));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Reads an export back: its files and what it lacks.
pub async fn read(
    repository: &Repository,
    environment: &str,
    entry: &ConfigurationExport,
) -> Result<(Vec<ConfigFile>, Vec<Unreadable>)> {
    let manifest = Manifest::read(repository, environment, &entry.manifest).await?;
    let mut wanted = BTreeSet::new();
    for file in &manifest.files {
        manifest.packs.cut(file.at.0, file.at.1, file.size, |frame, _, _, _| wanted.extend([frame]))?;
    }
    // Configuration is small and bounded at export, so its frames may stand in memory together.
    let frames: Arc<Mutex<BTreeMap<u64, Vec<u8>>>> = Arc::default();
    let keep = frames.clone();
    let sink = move |number: u64, plaintext: &[u8]| {
        keep.lock().expect("no holder panics").insert(number, plaintext.to_vec());
        Ok(())
    };
    fetch(repository, environment, &manifest.packs, wanted, Arc::new(sink)).await?;
    let frames = frames.lock().expect("no holder panics");
    let mut files = Vec::with_capacity(manifest.files.len());
    for line in manifest.files {
        let mut content = Vec::with_capacity(line.size as usize);
        manifest.packs.cut(line.at.0, line.at.1, line.size, |frame, offset, length, _| {
            let part = frames.get(&frame).and_then(|f| f.get(offset as usize..(offset + length) as usize));
            content.extend_from_slice(part.unwrap_or_default());
        })?;
        let file = ConfigFile { name: line.name, origin: line.origin, mode: line.mode, content };
        if file.content.len() as u64 != line.size || keyed(repository, &file.name, &file.drift_digest()) != line.digest
        {
            return Err(error::integrity(format!("{} of configuration export {} is damaged", file.name, entry.id))
                .hint("use another export; `lifeboat show` lists them"));
        }
        files.push(file);
    }
    Ok((files, manifest.missing))
}

/// Lays an export out in `dir`, which is absent or empty; returns how many files that were.
pub async fn restore(
    repository: &Repository,
    environment: &str,
    entry: &ConfigurationExport,
    dir: &Path,
) -> Result<usize> {
    let (files, missing) = read(repository, environment, entry).await?;
    let dir = dir.to_owned();
    let write = move || write_beside(&dir, &files, &missing).map(|()| files.len());
    blocking(write).await
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::repository::testing::repository_and_writer;

    fn export(files: &[(&str, &[u8])]) -> Export {
        let file = |(name, content): &(&str, &[u8])| ConfigFile {
            name: (*name).into(),
            origin: format!("/{name}"),
            mode: Some(0o640),
            content: content.to_vec(),
        };
        Export { files: files.iter().map(file).collect(), unreadable: Vec::new(), taken_at: DateTime::UNIX_EPOCH }
    }

    #[tokio::test]
    async fn what_was_exported_comes_back_and_the_host_that_wrote_it_cannot_read_it() {
        let (reader, writer) = repository_and_writer().await;
        let ledger = ledger(&writer, "e").await.expect("ledger");
        let runtime = Runtime::silent();
        let mut large = vec![0; (2 << 20) + 5];
        aws_lc_rs::rand::fill(&mut large).expect("random");
        let first = export(&[("a", b""), ("b", b"admin_passwd = secret"), ("c", &large), ("d", b"tail")]);
        let done = commit(&writer, "e", &[], &ledger, first.clone(), 3, &runtime).await.expect("first");
        assert_eq!((done.changes.len(), done.compared_with, done.entry.files), (0, None, 4));

        let (files, missing) = read(&reader, "e", &done.entry).await.expect("read");
        assert_eq!((files, missing.len()), (first.files, 0));
        assert_eq!(read(&writer, "e", &done.entry).await.expect_err("no key").kind(), ErrorKind::Denied);

        let second = export(&[("b", b"admin_passwd = other"), ("c", &large), ("d", b"tail"), ("e", b"new")]);
        let again = commit(&writer, "e", &[], &ledger, second.clone(), 3, &runtime).await.expect("second");
        assert_eq!(again.entry.changed, ["a", "b", "e"]);
        assert_eq!(again.compared_with, Some(done.entry.id));
        assert_ne!(again.entry.digest, done.entry.digest);
        let same = commit(&writer, "e", &[], &ledger, second, 3, &runtime).await.expect("third");
        assert_eq!((same.entry.changed.len(), same.entry.digest), (0, again.entry.digest));
    }
}
