//! Odoo's configuration file: kept verbatim, and read for what it points to (add-on paths, key
//! files). Only as much of the INI language is understood as that needs.

use std::path::{Path, PathBuf};

use super::disk;
use super::export::{Collector, ConfigFile, component};

/// What one `odoo.conf` says, as far as it matters here.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Options(Vec<(String, String)>);

impl Options {
    /// The `[options]` section of the text of an `odoo.conf`.
    pub(crate) fn parse(content: &[u8]) -> Self {
        let text = String::from_utf8_lossy(content);
        let mut options: Vec<(String, String)> = Vec::new();
        let mut inside = false;
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if trimmed.starts_with('[') {
                inside = trimmed == "[options]";
            } else if line.starts_with([' ', '\t']) && inside {
                // A continuation, as Python's configparser reads it.
                if let Some((_, value)) = options.last_mut() {
                    value.push('\n');
                    value.push_str(trimmed);
                }
            } else if let (true, Some(at)) = (inside, trimmed.find(['=', ':'])) {
                let (key, value) = (trimmed[..at].trim().to_lowercase(), trimmed[at + 1..].trim().to_owned());
                options.push((key, value));
            }
        }
        Self(options)
    }

    /// The last value given for `key`, unless it is one of Odoo's words for "none".
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())?;
        (!matches!(value, "" | "False" | "None")).then_some(value)
    }
}

/// Directories of a comma-separated `addons_path`.
pub(crate) fn split_paths(list: &str) -> impl Iterator<Item = PathBuf> {
    list.split([',', '\n']).map(str::trim).filter(|p| !p.is_empty()).map(PathBuf::from)
}

/// The add-on directories that the text of an `odoo.conf` names.
pub(crate) fn addons_path(content: &[u8]) -> Vec<PathBuf> {
    Options::parse(content).get("addons_path").map(|list| split_paths(list).collect()).unwrap_or_default()
}

/// Keeps the file of instance `number` (from 0) and the key files that it names.
pub(crate) fn collect(config_file: &Path, number: usize, into: &mut Collector) -> Options {
    let dir = if number == 0 { "odoo".to_owned() } else { format!("odoo/instance-{}", number + 1) };
    let origin = config_file.to_string_lossy().into_owned();
    let content = match disk::read(config_file) {
        Ok((content, mode)) => {
            let name = format!("{dir}/odoo.conf");
            into.add(ConfigFile { name, origin, mode: Some(mode), content: content.clone() });
            content
        }
        Err(reason) => {
            into.missing(format!("{dir}/odoo.conf"), origin, reason);
            return Options::default();
        }
    };
    let options = Options::parse(&content);
    for key in ["smtp_ssl_private_key_filename", "smtp_ssl_certificate_filename"] {
        let Some(path) = options.get(key).map(Path::new) else { continue };
        let base = path.file_name().map(|n| component(&n.to_string_lossy())).unwrap_or_default();
        let (name, origin) = (format!("{dir}/keys/{key}-{base}"), path.to_string_lossy().into_owned());
        match disk::read(path) {
            Ok((content, mode)) => into.add(ConfigFile { name, origin, mode: Some(mode), content }),
            Err(reason) => into.missing(name, origin, reason),
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_as_configparser_reads_them() {
        let text = "[options]\n; addons_path = /no\naddons_path = /a,\n    /b/c ,/d\nDB_Password: x=y\nlogfile = False\n\
                    [queue_job]\nchannels = root:4\naddons_path = /elsewhere\n";
        let options = Options::parse(text.as_bytes());
        let paths: Vec<PathBuf> = split_paths(options.get("addons_path").expect("set")).collect();
        assert_eq!(paths, ["/a", "/b/c", "/d"].map(PathBuf::from));
        assert_eq!(options.get("db_password"), Some("x=y"));
        assert_eq!(options.get("logfile"), None);
        assert_eq!(options.get("channels"), None);
    }
}
