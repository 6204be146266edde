//! The name of a file in Odoo's filestore, `ir_attachment.store_fname`: the SHA-1 of its content
//! below a directory of its first two hex digits, or three (before Odoo 9, still read today).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{self, Error};

/// A name such as `da/da4b9237…`. Ordered by digest, which is the order of scans and of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    sha1: [u8; 20],
    /// Whether the directory has three digits.
    wide: bool,
}

impl FileName {
    /// The name that Odoo gives today to content with this digest.
    pub fn new(sha1: [u8; 20]) -> Self {
        Self { sha1, wide: false }
    }

    /// The digest that the content must have.
    pub fn sha1(&self) -> [u8; 20] {
        self.sha1
    }

    /// The byte that its directory is named after.
    pub(super) fn first_byte(&self) -> u8 {
        self.sha1[0]
    }

    /// The path below the database's directory.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.to_string())
    }

    /// The name of `file` in `directory`, both without slashes, if that is how Odoo names files.
    pub(crate) fn in_directory(directory: &str, file: &str) -> Option<Self> {
        let lower_hex = |s: &str| s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let named = file.len() == 40 && lower_hex(file) && file.starts_with(directory);
        let wide = match directory.len() {
            2 => false,
            3 => true,
            _ => return None,
        };
        let mut sha1 = [0; 20];
        (named && hex::decode_to_slice(file, &mut sha1).is_ok()).then_some(Self { sha1, wide })
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 40];
        hex::encode_to_slice(self.sha1, &mut digits).expect("20 bytes are 40 digits");
        let digits = std::str::from_utf8(&digits).expect("hex digits are ASCII");
        write!(f, "{}/{digits}", &digits[..if self.wide { 3 } else { 2 }])
    }
}

impl FromStr for FileName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once('/').and_then(|(directory, file)| Self::in_directory(directory, file));
        parsed.ok_or_else(|| error::integrity(format!("{text:?} is not the name of a file in an Odoo filestore")))
    }
}

impl Serialize for FileName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_survive_the_way_through_text(sha1: [u8; 20], wide: bool) {
            let name = FileName { sha1, wide };
            prop_assert_eq!(name.to_string().parse::<FileName>().expect("valid"), name);
        }

        #[test]
        fn order_is_that_of_the_query(a: [u8; 20], b: [u8; 20], wide: (bool, bool)) {
            // The query orders by the part after the slash, then by the whole, both bytewise.
            let (a, b) = (FileName { sha1: a, wide: wide.0 }, FileName { sha1: b, wide: wide.1 });
            let key = |n: FileName| {
                let text = n.to_string();
                (text.split_once('/').expect("slash").1.to_owned(), text)
            };
            prop_assert_eq!(a.cmp(&b), key(a).cmp(&key(b)));
        }
    }

    #[test]
    fn only_what_odoo_writes_is_a_name() {
        let digits = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        for good in [format!("da/{digits}"), format!("da3/{digits}")] {
            assert_eq!(good.parse::<FileName>().expect("valid").to_string(), good);
        }
        let upper = digits.to_uppercase();
        for bad in [
            format!("db/{digits}"),
            format!("d/{digits}"),
            format!("da39/{digits}"),
            format!("DA/{upper}"),
            format!("da/{digits}0"),
            format!("../da/{digits}"),
            format!("s3://bucket/{digits}"),
            digits.to_owned(),
            String::new(),
        ] {
            assert!(bad.parse::<FileName>().is_err(), "{bad}");
        }
    }
}
