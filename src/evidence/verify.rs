//! What an auditor runs: verifies a ledger with nothing but a copy of it and public keys. No network,
//! no decryption key, no belief in whoever wrote it.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::Result;
use crate::evidence::draw_check::Draws;
use crate::evidence::read::{Chain, Log, Problem};
use crate::evidence::trust::Trust;
use crate::storage::Store;

/// What was found in a ledger.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// The repository that it belongs to.
    pub repository: String,
    /// The environment that it belongs to.
    pub environment: String,
    /// Objects found under the names of entries.
    pub entries: u64,
    /// Entries that are sound.
    pub sound: u64,
    /// When the first sound entry was recorded.
    pub first_time: Option<DateTime<Utc>>,
    /// When the last sound entry was recorded.
    pub last_time: Option<DateTime<Utc>>,
    /// Who signed the sound entries.
    pub signers: Vec<Signer>,
    /// The signed head of the log, if its signature holds.
    pub checkpoint: Option<VerifiedCheckpoint>,
    /// Everything that is wrong: bytes were changed, removed, added or moved, or a random draw does not come out.
    pub problems: Vec<Problem>,
    /// What is odd, and proves nothing: a clock that went back, a checkpoint that lags, a draw never revealed.
    pub findings: Vec<Problem>,
    /// Whether nothing is wrong.
    pub ok: bool,
}

/// A key that signed entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// Id of the key.
    pub key_id: String,
    /// What people call it.
    pub name: String,
    /// How many of the sound entries it signed.
    pub entries: u64,
}

/// A checkpoint whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedCheckpoint {
    /// Number of entries that it vouches for.
    pub size: u64,
    /// Root of the tree over them, in hexadecimal.
    pub root: String,
    /// Id of the key that signed it.
    pub signer: String,
}

/// Verifies the ledger of `environment` in `store`, which may be a copied folder.
pub async fn verify_ledger(
    store: &Store,
    environment: &str,
    repository_id: &str,
    trust: &Trust,
) -> Result<VerifyReport> {
    let log = Log {
        store: store.clone(),
        repository: repository_id.to_owned(),
        environment: environment.to_owned(),
        trust: trust.clone(),
        // An auditor believes the store alone.
        cache: None,
    };
    let mut reading = log.read(&mut Chain::beginning()).await?;
    if let Some(why) = reading.checkpoint_unusable {
        let what = format!("{why}; entries missing at the end would go unnoticed");
        reading.problems.push(Problem { sequence: None, what });
    }
    // When it is looked at makes no difference here: a commitment that nothing reveals is told in any case.
    let draws = Draws::of(&reading.entries, DateTime::<Utc>::MAX_UTC);
    reading.problems.extend(draws.problems);
    reading.findings.extend(draws.findings);
    let times = || reading.entries.iter().map(|e| e.statement.predicate.recorded_at);
    let signers = trust.keys.iter().filter_map(|known| {
        let key_id = known.key.id();
        let entries = reading.entries.iter().filter(|e| e.signers.contains(&key_id)).count() as u64;
        (entries > 0).then(|| Signer { key_id, name: known.name.clone(), entries })
    });
    Ok(VerifyReport {
        repository: log.repository,
        environment: log.environment,
        entries: reading.found,
        sound: reading.entries.len() as u64,
        first_time: times().min(),
        last_time: times().max(),
        signers: signers.collect(),
        checkpoint: reading.checkpoint.map(|(checkpoint, signer)| VerifiedCheckpoint {
            size: checkpoint.size,
            root: hex::encode(checkpoint.root),
            signer,
        }),
        ok: reading.problems.is_empty(),
        problems: reading.problems,
        findings: reading.findings,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use object_store::local::LocalFileSystem;

    use super::*;
    use crate::evidence::ledger::Ledger;
    use crate::evidence::testing::{body, key, ledger, memory, trust};
    use crate::runtime::Runtime;
    use crate::storage::store::RetryPolicy;

    fn name(sequence: u64) -> String {
        format!("production/ledger/{sequence:020}.json")
    }

    /// A ledger of five entries by two hosts.
    async fn filled() -> Store {
        filled_with(5).await
    }

    async fn filled_with(entries: usize) -> Store {
        let store = memory();
        let (one, two) = (ledger(&store, &[1, 2]), ledger(&store, &[1, 2]));
        let all = [(&one, 1, "a"), (&two, 2, "b"), (&one, 1, "c"), (&one, 1, "d"), (&two, 2, "e")];
        for (writer, signer, what) in all.into_iter().take(entries) {
            append(writer, signer, what).await;
        }
        store
    }

    async fn append(ledger: &Ledger, signer: u8, what: &str) {
        ledger.append(&Runtime::silent(), &key(signer), Vec::new(), body(what)).await.expect("appended");
    }

    async fn verify(store: &Store) -> VerifyReport {
        verify_ledger(store, "production", "0123abcd", &trust(&[1, 2])).await.expect("readable")
    }

    async fn get(store: &Store, key: &str) -> Bytes {
        store.get(key).await.expect("there")
    }

    async fn put(store: &Store, key: &str, bytes: Bytes) {
        store.replace(key, bytes).await.expect("written");
    }

    async fn delete(store: &Store, key: &str) {
        store.delete_all(vec![key.to_owned()]).await.expect("deleted");
    }

    fn told(report: &VerifyReport) -> String {
        report.problems.iter().map(|p| format!("{}: {}\n", p.sequence.unwrap_or(0), p.what)).collect()
    }

    #[tokio::test]
    async fn a_sound_ledger_verifies_also_as_a_copied_folder_with_public_keys_only() {
        let store = filled().await;
        let report = verify(&store).await;
        assert!(report.ok, "{}", told(&report));
        assert_eq!((report.entries, report.sound), (5, 5));
        let signed: Vec<_> = report.signers.iter().map(|s| (s.name.as_str(), s.entries)).collect();
        assert_eq!(signed, [("host-1", 3), ("host-2", 2)]);
        assert_eq!(report.checkpoint.as_ref().map(|c| c.size), Some(5));
        assert!(report.first_time <= report.last_time && report.first_time.is_some());

        let folder = tempfile::tempdir().expect("folder");
        for object in store.list("production/").await.expect("list") {
            let file = folder.path().join(&object.key);
            std::fs::create_dir_all(file.parent().expect("in a folder")).expect("folder");
            std::fs::write(file, get(&store, &object.key).await).expect("copied");
        }
        let local = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("store"));
        let copy = Store::new(local, "file:", RetryPolicy::default(), Runtime::silent());
        assert!(verify(&copy).await.ok);
    }

    #[tokio::test]
    async fn every_changed_byte_is_found() {
        let store = filled_with(3).await;
        for object in store.list("production/ledger/").await.expect("list") {
            let bytes = get(&store, &object.key).await;
            for at in 0..bytes.len() {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1;
                put(&store, &object.key, changed.into()).await;
                let report = verify(&store).await;
                assert!(!report.ok, "byte {at} of {} changed unnoticed", object.key);
            }
            for cut in [0, 1, bytes.len() - 1] {
                put(&store, &object.key, bytes.slice(..cut)).await;
                assert!(!verify(&store).await.ok, "{} cut to {cut} bytes unnoticed", object.key);
            }
            put(&store, &object.key, bytes).await;
        }
        assert!(verify(&store).await.ok);
    }

    #[tokio::test]
    async fn every_dropped_entry_is_found() {
        for sequence in 1..=5 {
            let store = filled().await;
            delete(&store, &name(sequence)).await;
            let report = verify(&store).await;
            assert_eq!(report.problems[0].sequence, Some(sequence), "{}", told(&report));
            assert!(report.problems[0].what.contains("missing"), "{}", told(&report));
        }
        let store = filled().await;
        delete(&store, "production/ledger/checkpoint").await;
        assert!(!verify(&store).await.ok, "without a checkpoint nothing betrays a dropped end");
        let store = filled().await;
        for sequence in 1..=5 {
            delete(&store, &name(sequence)).await;
        }
        assert!(!verify(&store).await.ok, "a checkpoint over nothing");
    }

    #[tokio::test]
    async fn every_reordering_and_renumbering_is_found() {
        for (first, second) in [(1, 2), (2, 3), (1, 5), (4, 5)] {
            let store = filled().await;
            let (one, other) = (get(&store, &name(first)).await, get(&store, &name(second)).await);
            put(&store, &name(first), other).await;
            put(&store, &name(second), one).await;
            assert!(told(&verify(&store).await).contains("under another number"));
        }
        let store = filled().await;
        // Dropped from the middle, and the rest moved up to hide it.
        for sequence in 3..=4 {
            put(&store, &name(sequence), get(&store, &name(sequence + 1)).await).await;
        }
        delete(&store, &name(5)).await;
        assert!(!verify(&store).await.ok);
        let store = filled().await;
        put(&store, "production/ledger/6.json", get(&store, &name(5)).await).await;
        assert!(told(&verify(&store).await).contains("neither an entry nor the checkpoint"));
    }

    #[tokio::test]
    async fn entries_of_other_ledgers_keys_and_histories_are_found() {
        // Another repository, environment or history, written with the right keys.
        for (repository, environment) in [("ffff", "production"), ("0123abcd", "staging"), ("0123abcd", "production")] {
            let (store, other) = (filled().await, memory());
            let foreign = Ledger::new(other.clone(), environment, repository, trust(&[1, 2]));
            for what in ["a", "b", "forged", "d", "e"] {
                append(&foreign, 1, what).await;
            }
            let forged = get(&other, &format!("{environment}/ledger/{:020}.json", 3)).await;
            put(&store, &name(3), forged).await;
            let report = verify(&store).await;
            assert!(report.problems.iter().any(|p| p.sequence == Some(3)), "{}", told(&report));
            for sequence in (1..=5).filter(|_| repository == "ffff" || environment == "staging") {
                put(&store, &name(sequence), get(&other, &format!("{environment}/ledger/{sequence:020}.json")).await)
                    .await;
                assert!(told(&verify(&store).await).contains(&format!("{sequence}: belongs to the ledger of")));
            }
        }
        // The whole history written anew with the right keys: only the checkpoint tells.
        let (store, other) = (filled().await, filled().await);
        for sequence in 1..=5 {
            put(&store, &name(sequence), get(&other, &name(sequence)).await).await;
        }
        assert!(told(&verify(&store).await).contains("not those that the checkpoint was signed for"));
        // Everything is right but the signer.
        let report = verify_ledger(&filled().await, "production", "0123abcd", &trust(&[1])).await.expect("readable");
        assert_eq!(report.problems.iter().filter_map(|p| p.sequence).collect::<Vec<_>>(), [2, 5]);
    }

    #[tokio::test]
    async fn a_lagging_checkpoint_and_a_clock_that_went_back_are_findings() {
        let store = filled().await;
        let old = get(&store, "production/ledger/checkpoint").await;
        let late = Runtime::silent().with_clock(Early);
        ledger(&store, &[1, 2]).append(&late, &key(1), Vec::new(), body("f")).await.expect("appended");
        put(&store, "production/ledger/checkpoint", old).await;
        let report = verify(&store).await;
        assert!(report.ok, "{}", told(&report));
        let findings: Vec<&str> = report.findings.iter().map(|f| f.what.as_str()).collect();
        assert!(findings[0].contains("a clock went back") && findings[1].contains("counts 5 of 6"), "{findings:?}");
    }

    struct Early;

    impl crate::runtime::Clock for Early {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH
        }
    }
}
