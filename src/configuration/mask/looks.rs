//! What a secret looks like where no name says that it is one.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::Masker;

/// A pattern of this program.
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern that was tested")
}

/// Keys and certificates in PEM; without its end, one goes on to the end of the text.
static PEM: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"-----BEGIN ([A-Z0-9 ]+)-----(?s:.*?)(?:-----END [A-Z0-9 ]+-----|\z)"));

/// `scheme://user:password@`.
static URL: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"([A-Za-z][A-Za-z0-9+.\-]*://)([^/\s@:'"<>]*):([^@\s'"<>]+)@"#));

/// `scheme://token@`.
static URL_TOKEN: LazyLock<Regex> = LazyLock::new(|| pattern(r#"([A-Za-z][A-Za-z0-9+.\-]*://)([^/\s@:'"<>]{16,})@"#));

/// `Authorization: Bearer …`, `PASSWORD '…'`, `IDENTIFIED BY '…'`.
static SPOKEN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?i)\b(bearer\s+|basic\s+|password\s+|passphrase\s+|identified by\s+)('(?:[^']|'')*'|"[^"]*"|[A-Za-z0-9+/=._~\-]{16,})"#,
    )
});

/// Tokens and password hashes whose makers gave them a mark.
static MARKED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?x)
        AGE-SECRET-KEY-1[A-Z0-9]+ | (?:AKIA|ASIA)[A-Z0-9]{16} | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_[A-Za-z0-9_]{20,}
        | glpat-[A-Za-z0-9_\-]{16,} | [sr]k_(?:live|test)_[A-Za-z0-9]{10,} | whsec_[A-Za-z0-9]{10,} | xox[abprs]-[A-Za-z0-9\-]{10,}
        | hv[sbr]\.[A-Za-z0-9_\-]{20,} | SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,} | AIza[A-Za-z0-9_\-]{30,}
        | eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)?
        | SCRAM-SHA-256\$[^\s'\x22<>]+ | \bmd5[0-9a-f]{32}\b | \{S?SHA(?:256|512)?\}[A-Za-z0-9+/=]{8,}
        | \$(?:apr1|1|2[aby]|5|6|y|7|argon2[a-z]*|pbkdf2[a-z0-9\-]*|scrypt)\$[^\s'\x22,:<>]+",
    )
});

/// What may be random: judged by [`is_random`].
static LONG: LazyLock<Regex> = LazyLock::new(|| pattern(r"(sha(?:1|256|384|512)[:\-])?([A-Za-z0-9+/_\-]{24,}={0,2})"));

impl Masker {
    /// Keys and certificates, each in one word.
    pub(super) fn keys<'t>(&self, text: &'t str) -> Cow<'t, str> {
        PEM.replace_all(text, |found: &Captures<'_>| {
            let what = if found[1].contains("PRIVATE") { "private key" } else { "certificate" };
            self.stand_in(what, &found[0])
        })
    }

    /// A text of one of our own notations: what is marked as a secret, and nothing that merely looks random.
    pub(super) fn plain(&self, text: &str) -> String {
        let text = self.keys(text);
        let text = URL.replace_all(&text, |found: &Captures<'_>| {
            format!("{}{}:{}@", &found[1], &found[2], self.secret(&found[3]))
        });
        let text =
            URL_TOKEN.replace_all(&text, |found: &Captures<'_>| format!("{}{}@", &found[1], self.secret(&found[2])));
        let text = SPOKEN.replace_all(&text, |found: &Captures<'_>| {
            format!("{}{}", &found[1], self.secret(found[2].trim_matches(['\'', '"'])))
        });
        MARKED.replace_all(&text, |found: &Captures<'_>| self.secret(&found[0])).into_owned()
    }

    /// A text from elsewhere: what looks random is taken for a secret too.
    pub(super) fn foreign(&self, text: &str) -> String {
        let text = self.plain(text);
        let text = LONG.replace_all(&text, |found: &Captures<'_>| match found.get(1) {
            None if is_random(&found[2]) => self.secret(&found[2]),
            _ => found[0].to_owned(),
        });
        text.into_owned()
    }
}

/// Letters of both cases with digits among them, or hexadecimal digits: no word, no path, no name. UUIDs and what stands
/// behind `sha256:` are names.
fn is_random(text: &str) -> bool {
    let count = |class: fn(&char) -> bool| text.chars().filter(class).count();
    let digits = count(char::is_ascii_digit);
    let (upper, lower) = (count(char::is_ascii_uppercase), count(char::is_ascii_lowercase));
    let hex = text.chars().all(|c| c.is_ascii_hexdigit());
    digits >= 3 && upper >= 3 && lower >= 3 || hex && digits >= 6 && upper + lower >= 4
}
