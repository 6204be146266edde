//! The part of the report that tells of Odoo: that the copy was harmless before Odoo saw it, how Odoo came up, and
//! what the copy tried to reach.

use maud::{Markup, html};

use crate::evidence::drill_record::DrillRecord;
use crate::evidence::egress_record::Egress;
use crate::evidence::odoo_record::{Boot, Neutralised};
use crate::evidence::wording::{counted, number, second, span};

/// Destinations listed on the page; the JSON report has more.
const DESTINATIONS: usize = 50;

pub(crate) fn odoo(record: &DrillRecord) -> Markup {
    html! {
        (neutralised(&record.neutralised))
        (boots(&record.boots))
        @if let Some(egress) = &record.egress { (reached_out(egress)) }
    }
}

fn neutralised(databases: &[Neutralised]) -> Markup {
    html! {
        @if !databases.is_empty() {
            section {
                h2 { "Made harmless before Odoo saw it" }
                div.scroll { table {
                    caption { "The modules' own scripts and Lifeboat's statements, in one transaction for each database; that they worked was asserted afterwards (checks N1 to N15)." }
                    thead { tr {
                        th scope="col" { "Database" } th.number scope="col" { "Odoo" } th.number scope="col" { "Modules" }
                        th.number scope="col" { "Own scripts" } th.number scope="col" { "Not found" }
                        th.number scope="col" { "Rows changed by Lifeboat" } th scope="col" { "Identity of the original" } th.number scope="col" { "Time" }
                    } }
                    tbody { @for n in databases {
                        @let refused = n.unneutralised.iter().any(|m| !n.allowed.contains(m));
                        tr class=(if refused { "row-bad" } else if n.allowed.is_empty() { "" } else { "row-warn" }) {
                            th scope="row" { (n.database) }
                            td.number { (n.odoo) } td.number { (number(n.modules)) }
                            td.number { (number(n.scripts.len() as u64)) } td.number { (number(n.unneutralised.len() as u64)) }
                            td.number { (number(n.steps.iter().map(|s| s.rows).sum())) }
                            td { @match &n.uuid_before { Some(uuid) => code { (uuid) }, None => span.muted { "none" } } }
                            td.number { (span(n.seconds)) }
                        }
                    } }
                } }
                @for n in databases { @if !n.allowed.is_empty() {
                    p.note { "In " (n.database) " the configuration lets these modules stay as they are: " (n.allowed.join(", ")) }
                } }
            }
        }
    }
}

fn boots(boots: &[Boot]) -> Markup {
    html! {
        @if !boots.is_empty() {
            section {
                h2 { "Odoo on the restored data" }
                div.scroll { table {
                    caption { "Odoo was started on each database with schedules off, and asked as a user would ask it (checks B and H)." }
                    thead { tr {
                        th scope="col" { "Database" } th scope="col" { "Odoo" } th.number scope="col" { "Up after" }
                        th.number scope="col" { "Modules loaded" } th.number scope="col" { "Errors" } th.number scope="col" { "Warnings" }
                    } }
                    tbody { @for boot in boots {
                        tr class=(if boot.seconds.is_none() || !boot.problems.is_empty() { "row-bad" } else { "" }) {
                            th scope="row" { (boot.database) }
                            td { @match &boot.odoo { Some(version) => (version), None => span.muted { "not known" } } }
                            td.number { @match boot.seconds { Some(seconds) => (span(seconds)), None => span.not-met { "never" } } }
                            td.number { @match boot.modules_loaded { Some(n) => (number(n)), None => "?" } " of " (number(boot.modules_installed)) }
                            td.number { (number(boot.log.errors)) } td.number { (number(boot.log.warnings)) }
                        }
                    } }
                } }
            }
        }
    }
}

fn reached_out(egress: &Egress) -> Markup {
    let left_out = egress.destinations.len().saturating_sub(DESTINATIONS) as u64;
    html! {
        section {
            h2 { "What the copy tried to reach" }
            p { (in_words(egress)) }
            @if !egress.destinations.is_empty() {
                div.scroll { table {
                    caption { "Everything was answered inside the sandbox, whose network leads nowhere else." }
                    thead { tr {
                        th scope="col" { "Destination" } th.number scope="col" { "Attempts" } th scope="col" { "Asked for" }
                        th scope="col" { "By" } th scope="col" { "First" }
                    } }
                    tbody { @for d in egress.destinations.iter().take(DESTINATIONS) {
                        tr {
                            th scope="row" { (d.in_words()) }
                            td.number { (number(d.attempts)) }
                            td { @for asked in &d.asked { code { (asked) } " " } }
                            td { @for process in &d.processes { code { (process) } " " } }
                            td { (second(d.first)) }
                        }
                    } }
                } }
                @if left_out > 0 { p.muted { "… and " (number(left_out)) " more destinations, in the JSON report." } }
            }
            @if !egress.names.is_empty() {
                p { "Only asked for by name: " @for name in egress.names.iter().take(DESTINATIONS) { code { (name) } " " } }
            }
            @for told in &egress.neutralised { p.alarm { (told) } }
        }
    }
}

/// The attempts in one sentence, for the page and the terminal.
pub fn in_words(egress: &Egress) -> String {
    if egress.attempts == 0 && egress.questions == 0 && egress.unreadable == 0 {
        return "Nothing: no connection was tried, and no name asked for.".to_owned();
    }
    let mut text = format!(
        "{} to {}, and {}; nothing left the sandbox.",
        counted(egress.attempts, "attempt", "attempts"),
        counted(egress.destinations.len() as u64, "destination", "destinations"),
        counted(egress.questions, "question for a name", "questions for names"),
    );
    if egress.unreadable > 0 {
        text += &format!(" Of {} nothing more is known.", counted(egress.unreadable, "attempt", "attempts"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::egress_record::Destination;
    use crate::evidence::examples;
    use crate::evidence::odoo_record::{LogCount, Script, Silenced, Step};

    #[test]
    fn what_odoo_did_is_on_the_page_and_nothing_of_it_is_trusted() {
        let mut record = examples::passed();
        assert_eq!(odoo(&record).into_string(), "", "nothing is said of an Odoo that was not started");
        record.neutralised = vec![Neutralised {
            database: "retail".into(),
            odoo: 19,
            modules: 75,
            scripts: vec![Script { module: "base".into(), path: "/odoo/base".into(), sha256: "00".into() }],
            unneutralised: vec!["shop_export".into()],
            allowed: vec!["shop_export".into()],
            steps: vec![Step { id: "queued mails".into(), rows: 20 }],
            silenced: vec![Silenced { channel: "mail".into(), host: "smtp.example.com".into() }],
            uuid_before: Some("62242238-e6a9-11f1-a45e-02fc00000001".into()),
            uuid_after: Some("another".into()),
            seconds: 0.4,
        }];
        record.boots = vec![Boot {
            database: "retail".into(),
            odoo: Some("19.0".into()),
            seconds: Some(5.1),
            modules_installed: 75,
            modules_loaded: Some(75),
            log: LogCount::default(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }];
        record.egress = Some(Egress {
            attempts: 2,
            questions: 1,
            unreadable: 1,
            destinations: vec![Destination {
                protocol: "smtp".into(),
                name: Some("smtp.example.com".into()),
                address: "198.18.0.1".parse().expect("an address"),
                port: 587,
                attempts: 2,
                first: examples::at(0.0),
                last: examples::at(1.0),
                asked: vec!["mail from <script> to b: x".into()],
                processes: vec!["python odoo-bin".into()],
            }],
            names: vec!["only.asked.example".into()],
            neutralised: vec!["mail is neutralised, but it was tried".into()],
        });
        let page = odoo(&record).into_string();
        for wanted in [
            "shop_export",
            "62242238",
            "19.0",
            "75 of 75",
            "smtp to smtp.example.com (198.18.0.1) port 587",
            "&lt;script&gt;",
            "only.asked.example",
            "mail is neutralised, but",
            "2 attempts to 1 destination",
            "Of 1 attempt nothing more is known",
        ] {
            assert!(page.contains(wanted), "{wanted} is not in {page}");
        }
        assert!(in_words(&Egress::default()).starts_with("Nothing"));

        // Entries from before these members are still read.
        let mut old = serde_json::to_value(&record).expect("JSON");
        for member in ["neutralised", "boots", "egress"] {
            assert!(old.as_object_mut().expect("an object").remove(member).is_some());
        }
        let old: DrillRecord = serde_json::from_value(old).expect("an old entry");
        assert_eq!(old, examples::passed());
    }
}
