//! The report of a drill for programs: the record as it stands in the ledger, and where it stands.
//! Every field is always present; what is not known is null.

use serde::Serialize;

use crate::evidence::drill_record::DrillRecord;
use crate::evidence::forecast::Forecast;
use crate::evidence::ledger::Appended;
use crate::evidence::outlook::Outlook;
use crate::evidence::proven::Proven;
use crate::storage::layout;
use crate::vault::signing::VerifyingKey;

/// Where a record stands in the ledger, and who signed it: what makes a report more than a claim.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The repository, as configured.
    pub repository_url: &'a str,
    /// The entry.
    pub appended: &'a Appended,
    /// What people call the signing key.
    pub signer_name: &'a str,
    /// The signing key's public half.
    pub signer: VerifyingKey,
    /// What all drills of the environment said when this one was recorded, where that could be read.
    pub outlook: Option<&'a Outlook>,
}

impl Place<'_> {
    /// Name of the entry's object in the repository.
    pub fn object(&self, environment: &str) -> String {
        layout::ledger_entry(environment, self.appended.sequence)
    }
}

#[derive(Serialize)]
struct Report<'a> {
    report_format: u32,
    ledger: LedgerPlace<'a>,
    drill: &'a DrillRecord,
    coverage: Option<&'a Proven>,
    forecast: Option<&'a Forecast>,
}

#[derive(Serialize)]
struct LedgerPlace<'a> {
    repository: &'a str,
    object: String,
    sequence: u64,
    sha256: &'a str,
    previous: Option<&'a str>,
    signer: Signer<'a>,
}

#[derive(Serialize)]
struct Signer<'a> {
    key_id: &'a str,
    name: &'a str,
    public_key: String,
}

/// The report as JSON, for reading by people as well.
pub fn render(record: &DrillRecord, place: &Place<'_>) -> String {
    let report = Report {
        report_format: 1,
        ledger: LedgerPlace {
            repository: place.repository_url,
            object: place.object(&record.environment),
            sequence: place.appended.sequence,
            sha256: &place.appended.sha256,
            previous: place.appended.previous.as_deref(),
            signer: Signer {
                key_id: &place.appended.signer,
                name: place.signer_name,
                public_key: place.signer.to_string(),
            },
        },
        drill: record,
        coverage: place.outlook.map(|outlook| &outlook.coverage),
        forecast: place.outlook.and_then(|outlook| outlook.forecast.as_ref()),
    };
    let mut text = serde_json::to_string_pretty(&report).expect("a report has text keys only and always serialises");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::evidence::examples;

    fn paths(value: &Value, at: &str, into: &mut BTreeSet<String>) {
        into.insert(at.to_owned());
        if let Value::Object(fields) = value {
            for (name, value) in fields {
                paths(value, &format!("{at}/{name}"), into);
            }
        }
    }

    #[test]
    fn every_field_is_always_there() {
        let rendered = |record| -> Value {
            let appended = Appended { previous: None, ..examples::appended() };
            serde_json::from_str(&render(&record, &examples::place(&appended))).expect("JSON")
        };
        let (full, crashed) = (rendered(examples::passed()), rendered(examples::crashed()));
        let fields = |value: &Value| value["drill"].as_object().expect("object").keys().cloned().collect::<Vec<_>>();
        assert_eq!(fields(&full), fields(&crashed));
        assert_eq!(crashed["drill"]["rpo"], Value::Null);
        let mut all = BTreeSet::new();
        paths(&full, "", &mut all);
        for wanted in
            ["/ledger/previous", "/drill/rpo/components/filestore", "/drill/rto/measured_seconds", "/drill/error"]
        {
            assert!(all.contains(wanted), "{wanted}");
        }
        assert_eq!(full["ledger"]["object"], "production/ledger/00000000000000004711.json");
    }

    #[test]
    fn the_record_comes_back_as_it_was() {
        for record in [examples::passed(), examples::failed(), examples::missed(), examples::crashed()] {
            let appended = examples::appended();
            let json: Value = serde_json::from_str(&render(&record, &examples::place(&appended))).expect("JSON");
            let back: DrillRecord = serde_json::from_value(json["drill"].clone()).expect("a record");
            assert_eq!(back, record);
        }
    }
}
