//! `[environment.drill.container]`: the engine and the images of drills in containers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::raw::Located;
use super::source::Source;
use crate::error::{self, Error, Result};

const ALGORITHM: &str = "sha256:";
/// Processes and threads of a container, unless said otherwise.
const PROCESSES: u64 = 4096;

/// The engine and the images of drills in containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillContainer {
    /// Socket of the engine.
    pub socket: PathBuf,
    /// The image of PostgreSQL, of the cluster's major version.
    pub postgres: ImageReference,
    /// The image of Odoo; `None`: no Odoo is started.
    pub odoo: Option<ImageReference>,
    /// Directory of PostgreSQL's programs in its image; `None`: the usual places are searched.
    pub bin_dir: Option<PathBuf>,
    /// Billionths of a processor that each container may use; `None`: all.
    pub nano_cpus: Option<u64>,
    /// Processes and threads that each container may have.
    pub processes: u64,
}

/// An image by its digest: `name@sha256:…`, or `sha256:…` for the id of an image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    text: String,
    digest: String,
}

impl ImageReference {
    /// As an engine is asked for it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its digest: `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ImageReference {
    type Err = Error;

    /// A tag beside the digest says nothing more, and is left out. A tag alone is refused: somebody may move it.
    fn from_str(text: &str) -> Result<Self> {
        let (name, digest) = match text.rsplit_once('@') {
            Some((name, digest)) => (Some(name), digest),
            None => (None, text),
        };
        let hex = digest.strip_prefix(ALGORITHM).unwrap_or_default();
        let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if hex.len() != 64 || !hex.chars().all(lower) {
            return Err(error::config(format!("\"{text}\" does not name an image by its digest"))
                .meaning("a tag can be moved to another image, and then a drill would prove something else")
                .hint("write name@sha256:… with 64 hexadecimal digits; `podman image inspect NAME --format '{{.RepoDigests}}'` (or docker) tells it")
                .hint("of an image that was made here, its id serves: sha256:…, from `podman image inspect NAME --format '{{.Id}}'`"));
        }
        let name = name.map(|name| match name.rsplit_once(':') {
            // A port is followed by a path.
            Some((before, tag)) if !tag.contains('/') => before,
            _ => name,
        });
        let plain = |c: char| c.is_ascii_alphanumeric() || "./-_:".contains(c);
        if name.is_some_and(|name| name.is_empty() || !name.chars().all(plain)) {
            return Err(error::config(format!("\"{text}\" is not the name of an image")));
        }
        let text = name.map_or_else(|| digest.to_owned(), |name| format!("{name}@{digest}"));
        Ok(Self { text, digest: digest.to_owned() })
    }
}

/// Engine and images of drills with `sandbox = "container"`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DrillContainer")]
pub(super) struct RawDrillContainer {
    /// Unix socket of the Engine API: `/run/podman/podman.sock`, `/run/docker.sock`.
    socket: Located<String>,
    /// Image of PostgreSQL by digest: `docker.io/library/postgres@sha256:…`, or the id `sha256:…`. A tag alone is refused.
    postgres: Located<String>,
    /// Image of Odoo by digest; absent: no Odoo is started. `command` in `[environment.drill.odoo]` is then a program in it.
    odoo: Option<Located<String>>,
    /// Directory of PostgreSQL's programs in its image; absent: the usual places are searched.
    bin_dir: Option<Located<String>>,
    /// Processors that each container may use, like `1.5`; absent: all.
    cpus: Option<Located<f64>>,
    /// Processes and threads that each container may have; default 4096.
    processes: Option<Located<u64>>,
}

pub(super) fn drill_container(source: &Source, raw: RawDrillContainer) -> Result<DrillContainer> {
    let image = |raw: &Located<String>| {
        raw.value.parse::<ImageReference>().map_err(|e| {
            let mut located = source.error(&raw.span, e.message());
            if let Some(meaning) = e.what_it_means() {
                located = located.meaning(meaning);
            }
            e.hints().iter().fold(located, |located, hint| located.hint(hint.as_str()))
        })
    };
    let nano_cpus = match &raw.cpus {
        Some(cpus) if (0.01..=4096.0).contains(&cpus.value) => Some((cpus.value * 1e9).round() as u64),
        Some(cpus) => return Err(source.error(&cpus.span, "`cpus` must be from 0.01 to 4096")),
        None => None,
    };
    let processes = raw.processes.as_ref().map_or(PROCESSES, |processes| processes.value);
    if let Some(few) = raw.processes.filter(|processes| !(64..=4_194_304).contains(&processes.value)) {
        return Err(source.error(&few.span, "`processes` must be from 64 to 4194304"));
    }
    if let Some(relative) = raw.bin_dir.as_ref().filter(|dir| !dir.value.starts_with('/')) {
        return Err(source.error(&relative.span, "`bin_dir` is a directory in the image: write it in full"));
    }
    Ok(DrillContainer {
        socket: source.resolve(raw.socket.value.strip_prefix("unix://").unwrap_or(&raw.socket.value)),
        postgres: image(&raw.postgres)?,
        odoo: raw.odoo.as_ref().map(image).transpose()?,
        bin_dir: raw.bin_dir.map(|dir| dir.value.into()),
        nano_cpus,
        processes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_digest_names_an_image() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let parsed = |text: &str| text.parse::<ImageReference>().map(|image| image.to_string());
        let named = format!("docker.io/library/postgres@{digest}");
        assert_eq!(parsed(&named).expect("a digest"), named);
        assert_eq!(parsed(&format!("docker.io/library/postgres:16@{digest}")).expect("a digest"), named);
        let port = format!("localhost:5000/pg@{digest}");
        assert_eq!(parsed(&port).expect("a digest"), port);
        assert_eq!(parsed(&digest).expect("an id"), digest);
        for wrong in ["postgres", "postgres:16", "postgres@sha256:0a", "postgres@md5:00", &format!("@{digest}"), ""] {
            let failure = parsed(wrong).expect_err(wrong);
            assert!(failure.message().contains("image"), "{failure}");
        }
        assert!(parsed("postgres:16").expect_err("a tag").what_it_means().is_some_and(|m| m.contains("moved")));
        assert!(parsed(&format!("a b@{digest}")).is_err() && parsed(&digest.to_uppercase()).is_err());
    }
}
