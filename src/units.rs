//! Quantities with their units in the type: WAL positions, timelines, byte sizes, durations.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{self, Error};

/// A position in the write-ahead log, in bytes; printed as PostgreSQL prints `pg_lsn` (`16/B374D848`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Number of the WAL segment that holds this byte.
    pub fn segment(self, segment_size: u64) -> u64 {
        self.0 / segment_size
    }

    /// Number of the WAL segment that holds the byte *before* this position: an end position on an
    /// exact boundary belongs to the previous segment (`XLByteToPrevSeg`).
    pub fn previous_segment(self, segment_size: u64) -> u64 {
        self.0.saturating_sub(1) / segment_size
    }

    /// First byte of the segment that holds this byte.
    pub fn segment_start(self, segment_size: u64) -> Lsn {
        Lsn(self.0 - self.0 % segment_size)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || error::usage(format!("\"{text}\" is not a WAL position; one looks like 16/B374D848"));
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        let part = |s: &str| match s.len() {
            1..=8 => u32::from_str_radix(s, 16).map_err(|_| wrong()),
            _ => Err(wrong()),
        };
        Ok(Lsn(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

/// Number of a PostgreSQL timeline, from 1; printed as in file names (`00000001`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

/// A number of bytes; reads `64MiB`, `1 GiB`, `500kB`, prints in binary units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || error::config(format!("\"{text}\" is not a size; write for example 64MiB or 2GiB"));
        let (number, unit) = split_number(text).ok_or_else(wrong)?;
        let factor: u64 = match unit {
            "" | "B" => 1,
            "kB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(wrong()),
        };
        number.checked_mul(factor).map(ByteSize).ok_or_else(wrong)
    }
}

/// A span of time as configured: reads `60s`, `15m`, `1h`, `7d`, `250ms`; prints `1h 5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms < 1000 {
            return write!(f, "{ms} ms");
        }
        if ms < 60_000 {
            let s = format!("{:.1}", self.0.as_secs_f64());
            return write!(f, "{} s", s.strip_suffix(".0").unwrap_or(&s));
        }
        let s = self.0.as_secs();
        let parts = [(s / 86_400, "d"), (s / 3600 % 24, "h"), (s / 60 % 60, "min"), (s % 60, "s")];
        let shown: Vec<String> = parts
            .iter()
            .skip_while(|p| p.0 == 0)
            .take(2)
            .filter(|p| p.0 > 0)
            .map(|p| format!("{} {}", p.0, p.1))
            .collect();
        f.write_str(&shown.join(" "))
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong =
            || error::config(format!("\"{text}\" is not a duration; write for example 250ms, 60s, 15m, 1h or 7d"));
        let (number, unit) = split_number(text).ok_or_else(wrong)?;
        let ms: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(ms).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(wrong)
    }
}

/// Splits `64MiB` into 64 and `MiB`.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

/// Serde through the textual form, for the units that are written as text.
macro_rules! serde_as_text {
    ($($t:ty),*) => {$(
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Lsn);

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_and_prints_as_postgresql_does() {
        let lsn: Lsn = "16/B374D848".parse().expect("valid");
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        for wrong in ["", "16", "16/", "/1", "G/1", "1/123456789", "16-1"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_end_on_a_boundary_belongs_to_the_previous_segment() {
        let size = 16 << 20;
        assert_eq!(Lsn(size).segment(size), 1);
        assert_eq!(Lsn(size).previous_segment(size), 0);
        assert_eq!(Lsn(size + 1).previous_segment(size), 1);
        assert_eq!(Lsn(size + 5).segment_start(size), Lsn(size));
    }

    #[test]
    fn sizes_and_spans() {
        assert_eq!("64MiB".parse::<ByteSize>().expect("valid"), ByteSize(64 << 20));
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize(1 << 30).to_string(), "1.0 GiB");
        assert!("12 parsecs".parse::<ByteSize>().is_err());
        assert_eq!("15m".parse::<Span>().expect("valid").to_string(), "15 min");
        assert_eq!(Span(Duration::from_millis(4500)).to_string(), "4.5 s");
        assert_eq!(Span(Duration::from_secs(3_900)).to_string(), "1 h 5 min");
        assert!("soon".parse::<Span>().is_err());
    }
}
