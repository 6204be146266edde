//! Approval of a restore by a second person: what the ledger says of it, and what follows from that.
//!
//! An approval is bound to the digest of one planned restore (which data, up to where, to which place on which
//! host). It counts if somebody else than the requester gave it, until it expires, and once. All of that follows
//! from the entries alone, in their order: whoever reads the ledger comes to the same answer. Pure.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::evidence::Body;
use crate::evidence::read::LedgerEntry;

pub use super::planned::{PlannedRestore, PlannedTenant, quoted};

/// Somebody who acts, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The name: an account of the host, the name of a token, or what the identity provider says.
    pub name: String,
    /// How it is known.
    pub known_by: KnownBy,
    /// The host on which it was said; beside the entry's signature, which is that host's.
    pub host: String,
}

/// How a person's name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// The operating system of the host says so.
    Account,
    /// A token of the service, which whoever holds it can show.
    Token,
    /// An identity provider (OpenID Connect).
    Oidc,
}

impl Person {
    /// Whether two names mean one person. `Alice`, `alice` and `alice@shop.example` do: somebody with an account
    /// here and a login there must not be her own second person.
    pub fn is_same(&self, other: &Person) -> bool {
        plain(&self.name) == plain(&other.name)
    }

    /// Whether this is one of `names`.
    pub fn is_among(&self, names: &[String]) -> bool {
        names.iter().any(|name| plain(name) == plain(&self.name))
    }
}

fn plain(name: &str) -> String {
    name.split('@').next().unwrap_or_default().trim().to_lowercase()
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = match self.known_by {
            KnownBy::Account => "account",
            KnownBy::Token => "token",
            KnownBy::Oidc => "login",
        };
        write!(f, "{} ({known}, {})", self.name, self.host)
    }
}

/// What an entry says about an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Names the approval; the same in all its entries.
    pub id: String,
    /// What happened.
    pub step: Step,
    /// Who did it.
    pub person: Person,
    /// [`PlannedRestore::sha256`] of the restore concerned.
    pub plan_sha256: String,
    /// The restore itself, in a request and in a broken glass; null otherwise.
    pub plan: Option<Box<PlannedRestore>>,
    /// Why, in the person's words.
    pub reason: Option<String>,
    /// Of a request: until when it can be approved. Of an approval: until when it can be used. Null otherwise.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What happened to an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Somebody asks for it.
    Requested,
    /// A second person agrees.
    Approved,
    /// Somebody refuses, or takes it back.
    Denied,
    /// The restore begins.
    Used,
    /// The restore begins without an approval, in an emergency.
    BrokenGlass,
}

/// Something that a person did by way of the service, beside approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Who.
    pub person: Person,
    /// What: `start job`, `cancel job`.
    pub action: String,
    /// To what, and how.
    pub detail: String,
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody has decided.
    Waiting,
    /// It can be used.
    Approved,
    /// It was refused or taken back.
    Denied,
    /// It was used, and cannot be used again.
    Used,
    /// Its time ran out.
    Expired,
    /// There was none: the glass was broken.
    BrokenGlass,
}

impl Status {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Status::Waiting => "waiting for a second person",
            Status::Approved => "approved",
            Status::Denied => "denied",
            Status::Used => "used",
            Status::Expired => "expired",
            Status::BrokenGlass => "without approval",
        }
    }
}

/// One decision about an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Who.
    pub person: Person,
    /// When it was recorded.
    pub at: DateTime<Utc>,
    /// Number of the entry.
    pub sequence: u64,
    /// Why, in the person's words.
    pub reason: Option<String>,
}

/// An approval, as all its entries together say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approvals {
    /// Its name.
    pub id: String,
    /// The restore.
    pub plan: PlannedRestore,
    /// Its digest.
    pub plan_sha256: String,
    /// Who asked, when, and why.
    pub requested: Decision,
    /// Until when it can be approved.
    pub request_expires_at: DateTime<Utc>,
    /// Who agreed.
    pub approved: Option<Decision>,
    /// Until when it can be used.
    pub approval_expires_at: Option<DateTime<Utc>>,
    /// Who refused, or took it back.
    pub denied: Option<Decision>,
    /// Who used it.
    pub used: Option<Decision>,
    /// Whether the restore was made without approval.
    pub broken_glass: bool,
}

impl Approvals {
    /// Where it stands at `now`.
    pub fn status(&self, now: DateTime<Utc>) -> Status {
        if self.broken_glass {
            Status::BrokenGlass
        } else if self.used.is_some() {
            Status::Used
        } else if self.denied.is_some() {
            Status::Denied
        } else if self.approved.is_some() {
            if self.approval_expires_at.is_some_and(|until| now < until) { Status::Approved } else { Status::Expired }
        } else if now < self.request_expires_at {
            Status::Waiting
        } else {
            Status::Expired
        }
    }

    /// Until when what it is now lasts; `None` where it no longer changes.
    pub fn until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.status(now) {
            Status::Waiting => Some(self.request_expires_at),
            Status::Approved => self.approval_expires_at,
            _ => None,
        }
    }
}

/// All approvals in a ledger, in the order of their requests. Entries that do not count are passed over: an approval by
/// the requester, or after its time, or of another plan, or a second use.
pub fn approvals<'a>(entries: impl IntoIterator<Item = &'a LedgerEntry>) -> Vec<Approvals> {
    let mut all: Vec<Approvals> = Vec::new();
    for entry in entries {
        let said = &entry.statement.predicate;
        let Body::Approval(approval) = &said.body else { continue };
        let decision = Decision {
            person: approval.person.clone(),
            at: said.recorded_at,
            sequence: entry.sequence,
            reason: approval.reason.clone(),
        };
        take(&mut all, approval, decision);
    }
    all
}

fn take(all: &mut Vec<Approvals>, entry: &Approval, decision: Decision) {
    let known = all.iter_mut().find(|known| known.id == entry.id);
    match (entry.step, known) {
        (Step::Requested | Step::BrokenGlass, None) => {
            let Some(plan) = entry.plan.as_deref().filter(|plan| plan.sha256() == entry.plan_sha256) else { return };
            let broken_glass = entry.step == Step::BrokenGlass;
            all.push(Approvals {
                id: entry.id.clone(),
                plan: plan.clone(),
                plan_sha256: entry.plan_sha256.clone(),
                request_expires_at: entry.expires_at.unwrap_or(decision.at),
                requested: decision,
                approved: None,
                approval_expires_at: None,
                denied: None,
                used: None,
                broken_glass,
            });
        }
        (_, None) | (Step::Requested | Step::BrokenGlass, Some(_)) => {}
        (_, Some(known)) if known.plan_sha256 != entry.plan_sha256 || known.broken_glass => {}
        (step, Some(known)) => {
            let status = known.status(decision.at);
            match step {
                Step::Approved if status == Status::Waiting && !known.requested.person.is_same(&decision.person) => {
                    known.approval_expires_at = entry.expires_at;
                    known.approved = Some(decision);
                }
                Step::Denied if matches!(status, Status::Waiting | Status::Approved) => known.denied = Some(decision),
                Step::Used if status == Status::Approved => known.used = Some(decision),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::evidence::planned::tests::plan;
    use crate::evidence::testing;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    fn person(name: &str) -> Person {
        Person { name: name.into(), known_by: KnownBy::Account, host: "db-1".into() }
    }

    fn said(step: Step, who: &str, lasts: i64) -> (Step, String, Option<i64>) {
        (step, who.to_owned(), (lasts > 0).then_some(lasts))
    }

    /// Entries ten minutes apart, about one approval of one plan.
    fn story(steps: &[(Step, String, Option<i64>)]) -> Vec<LedgerEntry> {
        let entry = |(n, (step, who, until)): (u64, &(Step, String, Option<i64>))| {
            let approval = Approval {
                id: "a1".into(),
                step: *step,
                person: person(who),
                plan_sha256: plan().sha256(),
                plan: matches!(step, Step::Requested | Step::BrokenGlass).then(|| Box::new(plan())),
                reason: None,
                expires_at: until.map(at),
            };
            testing::entry(n, at(i64::try_from(n).expect("few") * 10), Body::Approval(approval))
        };
        (1..).zip(steps).map(entry).collect()
    }

    fn status(steps: &[(Step, String, Option<i64>)], now: i64) -> Status {
        let all = approvals(&story(steps));
        assert_eq!(all.len(), 1);
        all[0].status(at(now))
    }

    #[test]
    fn an_approval_counts_by_a_second_person_in_time_and_once() {
        use Step::{Approved, Denied, Requested, Used};
        let requested = said(Requested, "alice", 100);
        let approved = said(Approved, "bob", 60);
        assert_eq!(status(std::slice::from_ref(&requested), 11), Status::Waiting);
        assert_eq!(status(std::slice::from_ref(&requested), 100), Status::Expired);
        let both = [requested.clone(), approved.clone()];
        assert_eq!((status(&both, 59), status(&both, 60)), (Status::Approved, Status::Expired));
        let own = [requested.clone(), said(Approved, "Alice@shop.example", 60)];
        assert_eq!(status(&own, 30), Status::Waiting, "nobody is her own second person");
        let late = [said(Requested, "alice", 15), approved.clone()];
        assert_eq!(status(&late, 30), Status::Expired);
        let used = [requested.clone(), approved.clone(), said(Used, "carol", 0), said(Used, "dave", 0)];
        let all = approvals(&story(&used));
        assert_eq!(all[0].used.as_ref().map(|u| u.sequence), Some(3), "the first use counts");
        assert_eq!(status(&used, 200), Status::Used);
        let too_late = [requested.clone(), said(Approved, "bob", 25), said(Used, "carol", 0)];
        assert_eq!(status(&too_late, 31), Status::Expired);
        let refused = [requested.clone(), approved.clone(), said(Denied, "erin", 0), said(Used, "carol", 0)];
        assert_eq!(status(&refused, 50), Status::Denied);
        let again = [requested, said(Denied, "erin", 0), approved];
        assert_eq!(status(&again, 50), Status::Denied, "what was denied stays denied");
        assert_eq!(status(&[said(Step::BrokenGlass, "alice", 0)], 50), Status::BrokenGlass);
    }

    #[test]
    fn entries_about_another_plan_or_with_a_wrong_digest_do_not_count() {
        let mut entries = story(&[said(Step::Requested, "alice", 100), said(Step::Approved, "bob", 60)]);
        let Body::Approval(approval) = &mut entries[1].statement.predicate.body else { panic!("an approval") };
        approval.plan_sha256 = "00".repeat(32);
        assert_eq!(approvals(&entries)[0].status(at(30)), Status::Waiting);
        let Body::Approval(request) = &mut entries[0].statement.predicate.body else { panic!("a request") };
        request.plan_sha256 = "00".repeat(32);
        assert!(approvals(&entries).is_empty(), "a request whose digest is not that of its plan is none");
    }
}
