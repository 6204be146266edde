//! DSSE envelopes, version 1 (<https://github.com/secure-systems-lab/dsse>): a payload, its type and
//! the signatures over both.
//!
//! Reading is stricter than the standard asks for, because the envelope's bytes are a leaf of the
//! ledger's tree: there is exactly one accepted encoding of an envelope, and every signature in it
//! must be a trusted key's. So no byte can change without being noticed, not even one that the
//! signature does not cover.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::evidence::trust::{Trust, TrustedKey};
use crate::vault::signing::SigningKey;

/// The payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// Pre-authentication encoding: the bytes that are signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// A payload with its signatures, as it stands in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// A payload whose signatures were checked; the only way to get at it.
#[derive(Debug)]
pub struct Opened<'t> {
    /// The payload, exactly the bytes that were signed.
    pub payload: Vec<u8>,
    /// The keys that signed it; at least one.
    pub signers: Vec<&'t TrustedKey>,
}

impl Envelope {
    /// Signs `payload`.
    pub fn sign(payload_type: &str, payload: &[u8], signer: &SigningKey) -> Self {
        let sig = BASE64.encode(signer.sign(&pae(payload_type, payload)));
        Self {
            payload: BASE64.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![Signature { keyid: signer.verifying_key().id(), sig }],
        }
    }

    /// The one encoding of this envelope: JSON without white space, ended by a newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("strings always serialise");
        bytes.push(b'\n');
        bytes
    }

    /// Reads what [`Envelope::to_bytes`] wrote, and nothing else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let envelope: Self =
            serde_json::from_slice(bytes).or_err(ErrorKind::Integrity, || "not a DSSE envelope".to_owned())?;
        if envelope.to_bytes() != bytes {
            return Err(error::integrity("the envelope is not written the way Lifeboat writes it"));
        }
        Ok(envelope)
    }

    /// Checks every signature and hands out the payload.
    pub fn open<'t>(&self, payload_type: &str, trust: &'t Trust) -> Result<Opened<'t>> {
        let payload = BASE64.decode(&self.payload).or_err(ErrorKind::Integrity, || "the payload".to_owned())?;
        let signed = pae(&self.payload_type, &payload);
        let mut signers: Vec<&TrustedKey> = Vec::new();
        for Signature { keyid, sig } in &self.signatures {
            let key = trust.find(keyid).ok_or_else(|| {
                error::integrity(format!("signed by {keyid}, which is not one of the trusted keys"))
                    .hint("if that key was enrolled on purpose, add it to the trusted keys")
            })?;
            let signature = BASE64.decode(sig).or_err(ErrorKind::Integrity, || "the signature".to_owned())?;
            if !key.key.verify(&signed, &signature) {
                return Err(error::integrity(format!("the signature of {keyid} ({}) does not hold", key.name)));
            }
            if signers.iter().any(|s| s.key == key.key) {
                return Err(error::integrity(format!("signed twice by {keyid}")));
            }
            signers.push(key);
        }
        if signers.is_empty() {
            return Err(error::integrity("the envelope carries no signature"));
        }
        if self.payload_type != payload_type {
            return Err(error::integrity(format!("the payload is {}, not {payload_type}", self.payload_type)));
        }
        Ok(Opened { payload, signers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::testing::{key, trust};

    #[test]
    fn pae_is_the_standards_example() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), expected);
    }

    #[test]
    fn what_was_signed_comes_back_with_its_signer() {
        let bytes = Envelope::sign(IN_TOTO, b"{\"a\":1}", &key(1)).to_bytes();
        let trust = trust(&[1]);
        let opened = Envelope::from_bytes(&bytes).expect("parses").open(IN_TOTO, &trust).expect("opens");
        assert_eq!(opened.payload, b"{\"a\":1}");
        assert_eq!(opened.signers[0].key, key(1).verifying_key());
    }

    #[test]
    fn every_single_bit_counts() {
        let bytes = Envelope::sign(IN_TOTO, b"{\"a\":1}", &key(1)).to_bytes();
        let trust = trust(&[1, 2]);
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let read = Envelope::from_bytes(&changed).and_then(|e| e.open(IN_TOTO, &trust).map(|_| ()));
            assert!(read.is_err(), "bit {at} changed unnoticed: {}", String::from_utf8_lossy(&changed));
        }
    }

    #[test]
    fn other_keys_types_spellings_and_no_signature_are_refused() {
        let envelope = Envelope::sign(IN_TOTO, b"x", &key(1));
        assert!(envelope.open(IN_TOTO, &trust(&[2])).is_err());
        assert!(envelope.open("text/plain", &trust(&[1])).is_err());
        let unsigned = Envelope { signatures: Vec::new(), ..envelope.clone() };
        assert!(unsigned.open(IN_TOTO, &trust(&[1])).is_err());
        let twice = Envelope {
            signatures: [envelope.signatures.clone(), envelope.signatures.clone()].concat(),
            ..envelope.clone()
        };
        assert!(twice.open(IN_TOTO, &trust(&[1])).is_err());
        let pretty = serde_json::to_vec_pretty(&envelope).expect("json");
        assert!(Envelope::from_bytes(&pretty).is_err());
    }
}
