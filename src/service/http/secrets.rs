//! Random secrets, and comparing them without telling by time how much of one was right.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{self, Result};

/// What tokens begin with: so that scanners for leaked secrets find them.
pub const TOKEN_PREFIX: &str = "lifeboat_";

/// 256 random bits as text for URLs and headers.
///
/// # Errors
/// Internal where the operating system gives no random numbers.
pub fn random() -> Result<String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| error::internal("the operating system gives no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A new static token.
///
/// # Errors
/// As [`random`].
pub fn new_token() -> Result<String> {
    Ok(format!("{TOKEN_PREFIX}{}", random()?))
}

/// SHA-256 of a secret. Enough, because these secrets are random and long: there is nothing to guess.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// SHA-256 in base64 for URLs: the challenge of PKCE (RFC 7636).
pub(crate) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

/// Whether two secrets are the same, in a time that depends on their lengths only.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// The one of `known` with this hash. All are compared, whichever it is.
pub(crate) fn find<'a, T>(hash: &[u8; 32], known: impl IntoIterator<Item = (&'a [u8; 32], T)>) -> Option<T> {
    let mut found = None;
    for (theirs, what) in known {
        if bool::from(hash.ct_eq(theirs)) {
            found = Some(what);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_random_and_long_and_found_by_their_hash() {
        let (one, other) = (new_token().expect("random"), new_token().expect("random"));
        assert!(one != other && one.len() == TOKEN_PREFIX.len() + 43, "{}", one.len());
        let known = [(hash(&one), 1), (hash(&other), 2)];
        let find = |token: &str| find(&hash(token), known.iter().map(|(h, n)| (h, *n)));
        assert_eq!((find(&one), find(&other), find("guess"), find("")), (Some(1), Some(2), None, None));
        assert!(same("a", "a") && !same("a", "b") && !same("a", "ab"));
    }

    #[test]
    fn the_challenge_is_that_of_the_standard() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
