//! The signed head of a ledger: a C2SP checkpoint (<https://c2sp.org/tlog-checkpoint>) in a C2SP
//! signed note (<https://c2sp.org/signed-note>) with an Ed25519 signature.
//!
//! It says "the log had this many entries, with this root". Any tool that speaks C2SP can check it
//! with the [`vkey`]. It follows from the entries and is replaced after each append; it is the only
//! thing that betrays entries cut off at the end of a ledger.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::error::{self, Result};
use crate::evidence::merkle::Hash;
use crate::evidence::trust::{Trust, TrustedKey};
use crate::vault::signing::{SigningKey, VerifyingKey};

const ED25519: u8 = 1;

/// Size and root of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names the log.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// RFC 6962 root over the bytes of the entries.
    pub root: Hash,
}

/// The name of an environment's log: origin line and key name of its checkpoints.
pub fn origin(repository: &str, environment: &str) -> String {
    format!("lifeboat/{repository}/{environment}")
}

fn key_id(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The key as other C2SP tools take it: `name+id+key`.
pub fn vkey(name: &str, key: &VerifyingKey) -> String {
    let material = [&[ED25519], key.as_bytes().as_slice()].concat();
    format!("{name}+{}+{}", hex::encode(key_id(name, key)), BASE64.encode(material))
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// The signed note.
    pub fn sign(&self, signer: &SigningKey) -> String {
        let text = self.text();
        let mut signature = key_id(&self.origin, &signer.verifying_key()).to_vec();
        signature.extend(signer.sign(text.as_bytes()));
        format!("{text}\n— {} {}\n", self.origin, BASE64.encode(signature))
    }

    /// Reads a signed note about the log `origin`. Signatures of unknown keys are ignored, as the
    /// standard demands; one of a trusted key must be there, and every such must hold.
    pub fn open<'t>(note: &str, origin: &str, trust: &'t Trust) -> Result<(Self, &'t TrustedKey)> {
        let damaged = |what: &str| error::integrity(format!("the checkpoint {what}"));
        let (text, signatures) = note.rsplit_once("\n\n").ok_or_else(|| damaged("is not a signed note"))?;
        let text = format!("{text}\n");
        let checkpoint = Self::parse(&text).filter(|c| c.text() == text).ok_or_else(|| damaged("is malformed"))?;
        if checkpoint.origin != origin {
            return Err(damaged(&format!("is of the log {}, not {origin}", checkpoint.origin)));
        }
        let mut signer = None;
        for line in signatures.strip_suffix('\n').ok_or_else(|| damaged("is cut off"))?.split('\n') {
            let (name, signature) = line
                .strip_prefix("— ")
                .and_then(|rest| rest.split_once(' '))
                .ok_or_else(|| damaged("has a malformed signature line"))?;
            let signature = BASE64.decode(signature).map_err(|_| damaged("has a malformed signature"))?;
            let Some((id, signature)) = signature.split_at_checked(4) else {
                return Err(damaged("has a malformed signature"));
            };
            let Some(known) = trust.keys.iter().find(|k| name == origin && key_id(origin, &k.key) == id) else {
                continue;
            };
            if !known.key.verify(text.as_bytes(), signature) {
                return Err(damaged(&format!("is not what {} ({}) signed", known.key.id(), known.name)));
            }
            signer = Some(known);
        }
        signer.map(|known| (checkpoint, known)).ok_or_else(|| damaged("is not signed by a trusted key"))
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.strip_suffix('\n')?.split('\n').collect();
        let [origin, size, root] = lines[..] else { return None };
        let root = BASE64.decode(root).ok()?.try_into().ok()?;
        Some(Self { origin: origin.to_owned(), size: size.parse().ok()?, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::testing::{key, trust};

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: origin("0123", "production"), size: 7, root: [9; 32] }
    }

    #[test]
    fn the_standards_example_key_has_its_id() {
        // c2sp.org/signed-note: example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k
        let material = BASE64.decode("AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k").expect("base64");
        let key = VerifyingKey::try_from(BASE64.encode(&material[1..])).expect("a key");
        assert_eq!(
            vkey("example.com/foo", &key),
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
        );
        let text = "This is an example message.\n";
        let note = BASE64
            .decode("Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=")
            .expect("base64");
        assert_eq!(note[..4], key_id("example.com/foo", &key));
        assert!(key.verify(text.as_bytes(), &note[4..]));
    }

    #[test]
    fn a_note_comes_back_and_every_bit_of_it_counts() {
        let note = checkpoint().sign(&key(1));
        let trust = trust(&[1, 2]);
        let (read, signer) = Checkpoint::open(&note, &checkpoint().origin, &trust).expect("opens");
        assert_eq!((read, signer.name.as_str()), (checkpoint(), "host-1"));
        for at in 0..note.len() * 8 {
            let mut changed = note.clone().into_bytes();
            changed[at / 8] ^= 1 << (at % 8);
            let Ok(changed) = String::from_utf8(changed) else { continue };
            assert!(Checkpoint::open(&changed, &checkpoint().origin, &trust).is_err(), "bit {at}:\n{changed}");
        }
    }

    #[test]
    fn unknown_signatures_are_ignored_but_do_not_suffice() {
        let note = checkpoint().sign(&key(1));
        assert!(Checkpoint::open(&note, &checkpoint().origin, &trust(&[2])).is_err());
        let witnessed = format!("{note}— witness.example/w AAAAAEFB\n");
        assert!(Checkpoint::open(&witnessed, &checkpoint().origin, &trust(&[1])).is_ok());
        assert!(Checkpoint::open(&note, "lifeboat/0123/staging", &trust(&[1])).is_err());
    }
}
