//! The words of a configuration, as they were read at one moment.
//!
//! A service goes on with the configuration that it loaded, whatever happens to the files afterwards; so it hands
//! these words to the commands that it starts. They hold no secret: secrets are given by reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// `lifeboat.toml`, and the files that it included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigText {
    /// Path and text of each file, `lifeboat.toml` first, the others in the order in which they were read.
    pub(super) files: Vec<(PathBuf, String)>,
    /// Path and text of each iCalendar file that a calendar names.
    pub(super) icalendars: BTreeMap<PathBuf, String>,
}

impl ConfigText {
    /// Path of the main file.
    pub fn file(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |(path, _)| path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Estate;
    use crate::error::ErrorKind;

    const MAIN: &str = r#"
[repository]
url = "file:///srv/backups"
[keys]
recipients = ["age16g7ufnh7spwc936zaf48lgx6ug0g6z40ypavlt4wju9hsqeg7e3qyu5yah"]
[[environment]]
name = "production"
purpose = "production"
owner = "shops"
[environment.objectives]
rpo = "60s"
rto = "1h"
[environment.postgres]
dsn = "host=/run/postgresql user=lifeboat dbname=postgres"
[[calendar]]
name = "peak"
ical = "peak.ics"
effects = ["forbid-drills"]
"#;

    fn season(day: u32) -> String {
        format!(
            "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTAMP:20261101T000000Z\r\n\
             DTSTART;VALUE=DATE:202611{day}\r\nSUMMARY:peak\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
        )
    }

    #[test]
    fn a_configuration_in_force_is_made_of_the_calendars_that_it_was_loaded_with() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (main, peak) = (dir.path().join("lifeboat.toml"), dir.path().join("peak.ics"));
        std::fs::write(&main, MAIN).expect("written");
        std::fs::write(&peak, season(23)).expect("written");
        let loaded = Estate::load(&main).unwrap_or_else(|e| panic!("{e} {:?}", e.hints()));
        let handed_over = serde_json::to_string(&loaded.text).expect("JSON");
        let again = || {
            let text: ConfigText = serde_json::from_str(&handed_over).expect("words");
            Estate::from_text(&text).unwrap_or_else(|e| panic!("{e} {:?}", e.hints()))
        };
        std::fs::write(&peak, season(24)).expect("written");
        assert_eq!(again().calendars, loaded.calendars, "what stands on the disk now is another configuration");
        std::fs::write(&peak, "nonsense").expect("written");
        assert_eq!(again().calendars, loaded.calendars);
        assert_eq!(Estate::load(&main).expect_err("refused").kind(), ErrorKind::Config);
        std::fs::remove_file(&peak).expect("removed");
        assert_eq!(again().calendars, loaded.calendars);
        assert_eq!(again().text, loaded.text);
    }
}
