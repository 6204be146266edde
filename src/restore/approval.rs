//! The gate before a restore of an environment that wants a second person: requests, decisions and use, each an
//! entry of the ledger. What they mean is decided in `evidence/approval.rs`, from the entries alone.
//!
//! Single use holds with several hosts at once: the use is an entry, the ledger puts entries in one order, and
//! whoever finds that the first use is not his own does not restore.

use std::collections::HashMap;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};

use super::plan::Plan;
use crate::config::RestoreConfig;
use crate::error::{self, Error, ErrorKind, Result};
use crate::event::Event;
use crate::evidence::approval::{Approval, Approvals, Person, PlannedRestore, Status, Step, approvals};
use crate::evidence::{Appended, Body, Ledger};
use crate::runtime::Runtime;
use crate::vault::SigningKey;

/// What an approval is bound to: the stop point and the destination of `plan`, carried out on `host`.
pub fn planned(plan: &Plan, repository: &str, host: &str, tablespaces: &HashMap<String, PathBuf>) -> PlannedRestore {
    let text = |path: &PathBuf| path.display().to_string();
    PlannedRestore {
        configuration: plan.configuration.as_ref().map(text),
        delta: plan.delta,
        environment: plan.environment.clone(),
        filestore: plan.filestore.as_ref().map(text),
        force: plan.force,
        host: host.to_owned(),
        pgdata: text(&plan.pgdata),
        repository: repository.to_owned(),
        stop_lsn: plan.target.stop_end,
        tablespaces: tablespaces.iter().map(|(old, new)| (old.clone(), text(new))).collect(),
        target: plan.again(),
        tenant: None,
        timeline: plan.target.timeline,
    }
}

/// The approvals of one environment: its ledger, and who signs what this host adds.
#[derive(Debug)]
pub struct Desk<'a> {
    /// The ledger of the environment.
    pub ledger: &'a Ledger,
    /// This host's key.
    pub signer: &'a SigningKey,
    /// Clock and events.
    pub runtime: &'a Runtime,
    /// What the environment's configuration says.
    pub rules: &'a RestoreConfig,
}

impl Desk<'_> {
    /// All approvals, oldest first.
    ///
    /// # Errors
    /// Integrity where the ledger is damaged: what it says of approvals is then not believed.
    pub async fn all(&self) -> Result<Vec<Approvals>> {
        Ok(approvals(&self.ledger.entries().await?))
    }

    /// Asks for approval of `plan`; tells its id.
    pub async fn request(
        &self,
        plan: PlannedRestore,
        person: Person,
        reason: Option<String>,
    ) -> Result<(Approvals, Appended)> {
        let id = new_id()?;
        let entry = Approval {
            id: id.clone(),
            step: Step::Requested,
            person,
            plan_sha256: plan.sha256(),
            plan: Some(Box::new(plan)),
            reason,
            expires_at: Some(self.expiry()),
        };
        let appended = self.append(entry).await?;
        Ok((self.find(&id).await?, appended))
    }

    /// A second person agrees.
    ///
    /// # Errors
    /// Denied where the person asked for it, is not among the approvers, or where it is no longer waiting.
    pub async fn approve(&self, id: &str, person: Person, reason: Option<String>) -> Result<(Approvals, Appended)> {
        let approval = self.find(id).await?;
        self.require_waiting(&approval)?;
        if approval.requested.person.is_same(&person) {
            return Err(error::denied(format!("{} asked for {id} and cannot approve it as well", person.name))
                .meaning("a restore of this environment needs two people")
                .hint("somebody else approves it, here or on the page of the service")
                .hint("in an emergency: `lifeboat restore … --break-glass \"REASON\"`"));
        }
        if let Some(approvers) = &self.rules.approvers
            && !person.is_among(approvers)
        {
            return Err(error::denied(format!("{} is not among the approvers of this environment", person.name))
                .hint(format!("approvers: {}", approvers.join(", "))));
        }
        let entry = self.about(&approval, Step::Approved, person, reason, Some(self.expiry()));
        let appended = self.append(entry).await?;
        let now = self.find(id).await?;
        match &now.approved {
            Some(decision) if decision.sequence == appended.sequence => Ok((now, appended)),
            _ => Err(overtaken(&now, self.runtime.now())),
        }
    }

    /// Somebody refuses, or takes back what was approved.
    pub async fn deny(&self, id: &str, person: Person, reason: Option<String>) -> Result<(Approvals, Appended)> {
        let approval = self.find(id).await?;
        let status = approval.status(self.runtime.now());
        if !matches!(status, Status::Waiting | Status::Approved) {
            return Err(overtaken(&approval, self.runtime.now()));
        }
        let appended = self.append(self.about(&approval, Step::Denied, person, reason, None)).await?;
        Ok((self.find(id).await?, appended))
    }

    /// Uses approval `id` for `plan`, or finds out why that cannot be. `continues` says that an interrupted restore of
    /// this very plan lies there: it may go on with the approval that it began with.
    pub async fn admit(&self, id: &str, plan: &PlannedRestore, person: Person, continues: bool) -> Result<()> {
        let approval = self.find(id).await?;
        if let Some(difference) = plan.difference(&approval.plan) {
            return Err(error::denied(format!("{id} approves another restore than this one: {difference}"))
                .meaning("nothing was touched")
                .hint("repeat the command that the approval was asked for; `lifeboat approval list` prints it"));
        }
        match approval.status(self.runtime.now()) {
            Status::Approved => {}
            Status::Used if continues => return Ok(()),
            Status::Waiting => {
                return Err(error::denied(format!("nobody has approved {id} yet"))
                    .meaning("nothing was touched")
                    .hint(format!(
                        "a second person runs `lifeboat approval approve -e {} {id}`, or does it on the page",
                        plan.environment
                    ))
                    .hint("in an emergency: --break-glass \"REASON\""));
            }
            _ => return Err(overtaken(&approval, self.runtime.now())),
        }
        let appended = self.append(self.about(&approval, Step::Used, person, None, None)).await?;
        let now = self.find(id).await?;
        match &now.used {
            Some(used) if used.sequence == appended.sequence => Ok(()),
            _ => Err(overtaken(&now, self.runtime.now())),
        }
    }

    /// Records that `plan` is carried out without an approval.
    pub async fn break_glass(&self, plan: PlannedRestore, person: Person, reason: &str) -> Result<Appended> {
        let entry = Approval {
            id: new_id()?,
            step: Step::BrokenGlass,
            person,
            plan_sha256: plan.sha256(),
            plan: Some(Box::new(plan)),
            reason: Some(reason.to_owned()),
            expires_at: None,
        };
        self.append(entry).await
    }

    /// The approval called `id`.
    ///
    /// # Errors
    /// Denied where there is none.
    pub async fn find(&self, id: &str) -> Result<Approvals> {
        let all = self.all().await?;
        let found = all.iter().position(|approval| approval.id == id && !approval.broken_glass);
        found.map(|place| all[place].clone()).ok_or_else(|| {
            error::denied(format!("there is no approval \"{id}\" of this environment"))
                .meaning("nothing was touched")
                .hint("`lifeboat approval list` shows those that there are, `lifeboat approval request` asks for one")
        })
    }

    fn require_waiting(&self, approval: &Approvals) -> Result<()> {
        match approval.status(self.runtime.now()) {
            Status::Waiting => Ok(()),
            _ => Err(overtaken(approval, self.runtime.now())),
        }
    }

    fn about(
        &self,
        approval: &Approvals,
        step: Step,
        person: Person,
        reason: Option<String>,
        expires_at: Option<DateTime<Utc>>,
    ) -> Approval {
        let (id, plan_sha256) = (approval.id.clone(), approval.plan_sha256.clone());
        Approval { id, step, person, plan_sha256, plan: None, reason, expires_at }
    }

    fn expiry(&self) -> DateTime<Utc> {
        let lasts = TimeDelta::from_std(self.rules.approval_lasts).unwrap_or(TimeDelta::hours(4));
        self.runtime.now() + lasts
    }

    async fn append(&self, entry: Approval) -> Result<Appended> {
        self.ledger.append(self.runtime, self.signer, Vec::new(), Body::Approval(entry)).await
    }
}

/// Tells everybody, as loudly as a program can. `what` is an environment, or what is loaded into one.
pub fn tell_broken_glass(runtime: &Runtime, what: &str, person: &Person, reason: &str, recorded: Result<Appended>) {
    let told = match recorded {
        Ok(appended) => format!("recorded as entry {} of the ledger", appended.sequence),
        Err(e) => format!("and this could NOT be recorded in the ledger: {e}"),
    };
    runtime.emit(Event::Warning(format!(
        "BREAK GLASS: {person} restores {what} without an approval (\"{reason}\"); {told}"
    )));
}

/// Why an approval can no longer be decided or used.
fn overtaken(approval: &Approvals, now: DateTime<Utc>) -> Error {
    let id = &approval.id;
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    let what = match (approval.status(now), &approval.denied, &approval.used, &approval.approved) {
        (Status::Denied, Some(by), ..) => format!("{id} was denied by {} at {}", by.person, time(by.at)),
        (Status::Used, _, Some(by), _) => {
            format!("{id} was used by {} at {} and serves only once", by.person, time(by.at))
        }
        (Status::Expired, .., Some(_)) => {
            format!("{id} expired at {}", approval.approval_expires_at.map(time).unwrap_or_default())
        }
        (Status::Expired, ..) => format!("the request {id} expired at {}", time(approval.request_expires_at)),
        (Status::Approved, .., Some(by)) => format!("{id} was approved by {} at {}", by.person, time(by.at)),
        (status, ..) => format!("{id} is {}", status.words()),
    };
    Error::new(ErrorKind::Denied, what).meaning("nothing was touched").hint("`lifeboat approval request` asks anew")
}

/// Short enough to be read out on the phone: 10 digits of hex.
fn new_id() -> Result<String> {
    let mut id = [0; 5];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| error::internal("the operating system gives no random numbers"))?;
    Ok(hex::encode(id))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::evidence::approval::KnownBy;
    use crate::evidence::planned;
    use crate::evidence::testing::{key, ledger, memory};
    use crate::runtime::testing::Hand;

    fn person(name: &str) -> Person {
        Person { name: name.into(), known_by: KnownBy::Account, host: "db-1".into() }
    }

    fn plan(pgdata: &str) -> PlannedRestore {
        PlannedRestore { filestore: None, pgdata: pgdata.into(), ..planned::tests::plan() }
    }

    fn rules(approvers: Option<&[&str]>) -> RestoreConfig {
        RestoreConfig {
            approval: true,
            approvers: approvers.map(|names| names.iter().map(|n| (*n).to_owned()).collect()),
            approval_lasts: Duration::from_secs(3600),
        }
    }

    fn denied(result: Result<impl std::fmt::Debug>) -> String {
        let refusal = result.expect_err("refused");
        assert_eq!(refusal.kind(), ErrorKind::Denied, "{refusal}");
        refusal.message()
    }

    #[tokio::test]
    async fn an_approval_opens_the_gate_once_for_its_plan_only_and_not_for_ever() {
        let hand = Hand::at(DateTime::UNIX_EPOCH);
        let runtime = Runtime::silent().with_clock(hand.clone());
        let later = |minutes| hand.pass(TimeDelta::minutes(minutes));
        let (store, signer, rules) = (memory(), key(1), rules(Some(&["bob", "alice"])));
        let ledger = ledger(&store, &[1]);
        let desk = Desk { ledger: &ledger, signer: &signer, runtime: &runtime, rules: &rules };

        let (asked, _) = desk.request(plan("/a"), person("alice"), Some("disk died".into())).await.expect("asked");
        let id = asked.id.as_str();
        assert!(denied(desk.admit(id, &plan("/a"), person("alice"), false).await).contains("nobody has approved"));
        assert!(denied(desk.approve(id, person("alice"), None).await).contains("cannot approve it as well"));
        assert!(denied(desk.approve(id, person("mallory"), None).await).contains("not among the approvers"));
        assert!(denied(desk.approve("ffff", person("bob"), None).await).contains("no approval"));
        desk.approve(id, person("bob"), None).await.expect("approved");
        assert!(denied(desk.approve(id, person("bob"), None).await).contains("was approved by bob"));
        assert!(denied(desk.admit(id, &plan("/b"), person("alice"), false).await).contains("pgdata is \"/b\""));
        later(59);
        desk.admit(id, &plan("/a"), person("alice"), false).await.expect("open");
        assert!(denied(desk.admit(id, &plan("/a"), person("alice"), false).await).contains("serves only once"));
        desk.admit(id, &plan("/a"), person("alice"), true).await.expect("the interrupted restore goes on");

        let (second, _) = desk.request(plan("/a"), person("alice"), None).await.expect("asked");
        desk.approve(&second.id, person("bob"), None).await.expect("approved");
        later(61);
        assert!(denied(desk.admit(&second.id, &plan("/a"), person("alice"), false).await).contains("expired at"));
        let (third, _) = desk.request(plan("/a"), person("alice"), None).await.expect("asked");
        desk.deny(&third.id, person("bob"), Some("not now".into())).await.expect("denied");
        assert!(denied(desk.approve(&third.id, person("bob"), None).await).contains("was denied by bob"));
        desk.break_glass(plan("/a"), person("alice"), "nobody answers").await.expect("recorded");
        let all = desk.all().await.expect("sound");
        let status: Vec<Status> = all.iter().map(|a| a.status(runtime.now())).collect();
        assert_eq!(status, [Status::Used, Status::Expired, Status::Denied, Status::BrokenGlass]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_many_who_use_it_at_once_one_comes_through() {
        let (store, runtime, rules) = (memory(), Runtime::silent(), rules(None));
        let signer = key(1);
        let first = ledger(&store, &[1]);
        let desk = Desk { ledger: &first, signer: &signer, runtime: &runtime, rules: &rules };
        let (asked, _) = desk.request(plan("/a"), person("alice"), None).await.expect("asked");
        desk.approve(&asked.id, person("bob"), None).await.expect("approved");
        let tries = (0..8).map(|n| {
            let (store, rules, id) = (store.clone(), rules.clone(), asked.id.clone());
            tokio::spawn(async move {
                let (ledger, signer, runtime) = (ledger(&store, &[1]), key(1), Runtime::silent());
                let desk = Desk { ledger: &ledger, signer: &signer, runtime: &runtime, rules: &rules };
                desk.admit(&id, &plan("/a"), person(&format!("host-{n}")), false).await.is_ok()
            })
        });
        let mut through = 0;
        for one in tries {
            through += usize::from(one.await.expect("no panic"));
        }
        assert_eq!(through, 1);
    }
}
