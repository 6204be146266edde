//! What a sealed copy tried to reach, as the sandbox's sinkhole wrote it down: one JSON line for each attempt,
//! and the summary of them that goes into a drill's record. Nothing of it left the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::evidence::odoo_record::{Neutralised, Silenced};

/// Destinations that a summary lists; it counts all.
const DESTINATIONS: usize = 200;
/// Different things asked of one destination that a summary keeps.
const ASKED: usize = 5;

/// One attempt to reach something outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub time: DateTime<Utc>,
    /// `dns`, `smtp`, `http`, `tls`, `tcp`, `udp`.
    pub protocol: String,
    /// The address that was dialled.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The name that the address was given out for; null where it was dialled without asking for a name.
    pub name: Option<String>,
    /// What was wanted: method and URL, sender and recipients and subject, server name, question.
    pub asked: Option<String>,
    /// Who tried.
    pub process: Option<Caller>,
}

/// The process behind an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Its id, as seen from inside the sandbox.
    pub pid: u32,
    /// Its command line, shortened.
    pub command: String,
}

/// The attempts of one drill.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Connections and datagrams; questions for names are counted apart.
    pub attempts: u64,
    /// Questions for names.
    pub questions: u64,
    /// Lines of the sinkhole's log that could not be read: attempts of which nothing more is known.
    pub unreadable: u64,
    /// Where they were going, busiest first, at most 200.
    pub destinations: Vec<Destination>,
    /// Names that were asked for and not connected to, at most 200.
    pub names: Vec<String>,
    /// Attempts by a channel that had been neutralised, in words: a finding each.
    pub neutralised: Vec<String>,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// As in [`Attempt`].
    pub protocol: String,
    /// The name, where there was one.
    pub name: Option<String>,
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// How often.
    pub attempts: u64,
    /// The first.
    pub first: DateTime<Utc>,
    /// The last.
    pub last: DateTime<Utc>,
    /// The first different things that were asked of it.
    pub asked: Vec<String>,
    /// Command lines of the processes that tried.
    pub processes: Vec<String>,
}

impl Destination {
    /// `smtp to smtp.example.com (198.18.0.3) port 587`.
    pub fn in_words(&self) -> String {
        match &self.name {
            Some(name) => format!("{} to {name} ({}) port {}", self.protocol, self.address, self.port),
            None => format!("{} to {} port {}", self.protocol, self.address, self.port),
        }
    }
}

impl Egress {
    /// Sums up the lines of a sinkhole's log, in the light of what had been neutralised before.
    pub fn of(log: &str, neutralised: &[Neutralised]) -> Self {
        let mut egress = Self::default();
        let mut by_destination: BTreeMap<(String, Option<String>, IpAddr, u16), Destination> = BTreeMap::new();
        let mut asked_names = BTreeSet::new();
        for line in log.lines().filter(|line| !line.trim().is_empty()) {
            let Ok(attempt) = serde_json::from_str::<Attempt>(line) else {
                egress.unreadable += 1;
                continue;
            };
            if attempt.protocol == "dns" {
                egress.questions += 1;
                asked_names.extend(attempt.name);
                continue;
            }
            egress.attempts += 1;
            let key = (attempt.protocol.clone(), attempt.name.clone(), attempt.address, attempt.port);
            by_destination.entry(key).or_insert_with(|| Destination::new(&attempt)).add(&attempt);
        }
        let silenced: Vec<&Silenced> = neutralised.iter().flat_map(|n| &n.silenced).collect();
        let mut destinations: Vec<Destination> = by_destination.into_values().collect();
        destinations.sort_by(|a, b| b.attempts.cmp(&a.attempts).then(a.first.cmp(&b.first)));
        if !neutralised.is_empty() {
            egress.neutralised = destinations.iter().filter_map(|d| d.breaks_silence(&silenced)).collect();
        }
        for destination in &destinations {
            destination.name.as_ref().map(|name| asked_names.remove(name));
        }
        destinations.truncate(DESTINATIONS);
        egress.destinations = destinations;
        egress.names = asked_names.into_iter().take(DESTINATIONS).collect();
        egress
    }
}

impl Destination {
    fn new(attempt: &Attempt) -> Self {
        Self {
            protocol: attempt.protocol.clone(),
            name: attempt.name.clone(),
            address: attempt.address,
            port: attempt.port,
            attempts: 0,
            first: attempt.time,
            last: attempt.time,
            asked: Vec::new(),
            processes: Vec::new(),
        }
    }

    fn add(&mut self, attempt: &Attempt) {
        self.attempts += 1;
        self.first = self.first.min(attempt.time);
        self.last = self.last.max(attempt.time);
        let keep = |list: &mut Vec<String>, item: Option<&String>| {
            if let Some(item) = item.filter(|item| list.len() < ASKED && !list.contains(item)) {
                list.push(item.clone());
            }
        };
        keep(&mut self.asked, attempt.asked.as_ref());
        keep(&mut self.processes, attempt.process.as_ref().map(|p| &p.command));
    }

    /// Why it should not have been tried, if so: mail is neutralised as a whole, webhooks by their servers.
    fn breaks_silence(&self, silenced: &[&Silenced]) -> Option<String> {
        let host = self.name.clone().unwrap_or_else(|| self.address.to_string());
        let channel = match silenced.iter().find(|s| s.host.eq_ignore_ascii_case(&host)) {
            Some(silenced) => silenced.channel.as_str(),
            None if self.protocol == "smtp" => "mail",
            None => return None,
        };
        Some(format!("{channel} is neutralised, but {} was tried {} time(s)", self.in_words(), self.attempts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::examples::at;

    fn line(seconds: f64, protocol: &str, name: Option<&str>, port: u16, asked: &str) -> String {
        let attempt = Attempt {
            time: at(seconds),
            protocol: protocol.into(),
            address: "198.18.0.1".parse().expect("an address"),
            port,
            name: name.map(str::to_owned),
            asked: Some(asked.to_owned()),
            process: Some(Caller { pid: 7, command: "python odoo-bin".into() }),
        };
        serde_json::to_string(&attempt).expect("JSON")
    }

    fn neutralised(host: &str) -> Neutralised {
        Neutralised {
            database: "retail".into(),
            odoo: 19,
            modules: 1,
            scripts: Vec::new(),
            unneutralised: Vec::new(),
            allowed: Vec::new(),
            steps: Vec::new(),
            silenced: vec![Silenced { channel: "webhook".into(), host: host.into() }],
            uuid_before: None,
            uuid_after: None,
            seconds: 0.0,
        }
    }

    #[test]
    fn attempts_are_counted_by_destination_and_a_torn_line_is_not_forgotten() {
        let log = [
            line(0.0, "dns", Some("hooks.example.com"), 53, "A hooks.example.com"),
            line(0.1, "http", Some("hooks.example.com"), 80, "POST /a"),
            line(0.2, "http", Some("hooks.example.com"), 80, "POST /b"),
            line(0.2, "dns", Some("only.asked.example"), 53, "MX only.asked.example"),
            line(0.3, "tls", None, 443, "shop.example"),
            "{\"time\": \"20".to_owned(),
        ];
        let egress = Egress::of(&log.join("\n"), &[]);
        assert_eq!((egress.attempts, egress.questions, egress.unreadable), (3, 2, 1));
        assert_eq!(egress.destinations[0].asked, ["POST /a", "POST /b"]);
        assert_eq!(egress.destinations[0].processes, ["python odoo-bin"]);
        assert_eq!(egress.names, ["only.asked.example"]);
        assert!(egress.neutralised.is_empty());
    }

    #[test]
    fn what_was_neutralised_and_still_tries_is_a_finding() {
        let log = [
            line(0.0, "http", Some("Hooks.example.com"), 80, "POST /a"),
            line(0.0, "http", Some("other.example.com"), 80, "POST /a"),
            line(0.0, "smtp", None, 587, "from a to b"),
        ]
        .join("\n");
        let told = Egress::of(&log, &[neutralised("hooks.example.com")]).neutralised;
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().any(|t| t.starts_with("webhook is neutralised")), "{told:?}");
        assert!(told.iter().any(|t| t.starts_with("mail is neutralised")), "{told:?}");
        // Before anything was neutralised nothing was forbidden.
        assert!(Egress::of(&log, &[]).neutralised.is_empty());
    }
}
