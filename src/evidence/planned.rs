//! What an approval is bound to: one planned restore, of a whole environment or of one database into a running cluster.
//! Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::units::{Lsn, Timeline};

/// The restore that an approval is about. Its digest is over exactly these fields, so they stand in the order of
/// the alphabet: the canonical form is their JSON without white space, keys sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRestore {
    /// Where the configuration goes.
    pub configuration: Option<String>,
    /// Whether what lies in the data directory is made equal to the backup.
    pub delta: bool,
    /// The environment that is restored, or whose cluster receives a database: its people decide.
    pub environment: String,
    /// Where attachments go.
    pub filestore: Option<String>,
    /// Whether another cluster, or transactions that the repository lacks, may be given up.
    pub force: bool,
    /// The host on which it is to run.
    pub host: String,
    /// The data directory; of one database that is loaded elsewhere: the directory for what is restored aside meanwhile.
    pub pgdata: String,
    /// Id of the repository.
    pub repository: String,
    /// Where recovery stops: the end of the last record that is replayed.
    pub stop_lsn: Lsn,
    /// Tablespaces that go elsewhere: old place, new place.
    pub tablespaces: BTreeMap<String, String>,
    /// The target, as it must be written to mean the same later: never `latest`.
    pub target: String,
    /// The one database that is loaded into a cluster of the environment; absent where the whole is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<PlannedTenant>,
    /// The timeline that recovery follows.
    pub timeline: Timeline,
}

/// One database of an environment that is loaded into a running cluster. Fields in the order of the alphabet too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTenant {
    /// Where the cluster is: host and port.
    pub cluster: String,
    /// Whether Odoo must not see it yet.
    pub hidden: bool,
    /// Whether personal data are masked.
    pub masked: bool,
    /// Its name there.
    pub name: String,
    /// Whether it is made harmless: `lifeboat refresh`.
    pub neutralised: bool,
    /// Whether it becomes another database for the outside world.
    pub new_identity: bool,
    /// Its name in the backed-up cluster.
    pub of_database: String,
    /// The environment whose data it is.
    pub of_environment: String,
    /// Who owns it; null: the role of the session.
    pub owner: Option<String>,
}

impl PlannedRestore {
    /// SHA-256 of the canonical form, in hex.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(serde_json::to_vec(self).expect("plain data")))
    }

    /// What comes after `lifeboat` to carry it out, quoted for a shell, without the approval.
    pub fn carried_out_by(&self) -> String {
        match &self.tenant {
            None => format!("restore {}", self.flags()),
            Some(tenant) if tenant.neutralised => format!("refresh {}", self.flags()),
            Some(_) => format!("restore tenant {}", self.flags()),
        }
    }

    /// What comes after `lifeboat` to ask for it.
    pub fn asked_for_by(&self) -> String {
        let what = match &self.tenant {
            None => "request",
            Some(tenant) if tenant.neutralised => "request-refresh",
            Some(_) => "request-tenant",
        };
        format!("approval {what} {}", self.flags())
    }

    /// The command that an approval admits.
    pub fn command(&self, approval: &str) -> String {
        format!("lifeboat {} --approval {approval}", self.carried_out_by())
    }

    /// Where to, for people: `/srv/r on db-1`, `shop of production as shop_1401 at db-1:5432`.
    pub fn place(&self) -> String {
        match &self.tenant {
            None => format!("{} on {}", self.pgdata, self.host),
            Some(t) => format!("{} of {} as {} at {}", t.of_database, t.of_environment, t.name, t.cluster),
        }
    }

    /// The flags of that, quoted for a shell.
    pub fn flags(&self) -> String {
        let whose = self.tenant.as_ref().map_or(&self.environment, |tenant| &tenant.of_environment);
        let mut flags = vec![format!("-e {whose}"), format!("--to {}", quoted(&self.target))];
        flags.push(format!("--timeline {}", self.timeline.0));
        match &self.tenant {
            None => self.flags_of_whole(&mut flags),
            Some(tenant) => self.flags_of_tenant(tenant, &mut flags),
        }
        flags.join(" ")
    }

    fn flags_of_whole(&self, flags: &mut Vec<String>) {
        flags.push(format!("--pgdata {}", quoted(&self.pgdata)));
        let places = [("--filestore", &self.filestore), ("--configuration", &self.configuration)];
        flags.extend(places.into_iter().filter_map(|(flag, at)| Some(format!("{flag} {}", quoted(at.as_ref()?)))));
        let mapping =
            |(old, new): (&String, &String)| format!("--tablespace-mapping {}", quoted(&format!("{old}={new}")));
        flags.extend(self.tablespaces.iter().map(mapping));
        flags.extend(self.delta.then(|| "--delta".to_owned()));
        flags.extend(self.force.then(|| "--force".to_owned()));
    }

    fn flags_of_tenant(&self, tenant: &PlannedTenant, flags: &mut Vec<String>) {
        let into = if tenant.neutralised { "--to-environment" } else { "--into-cluster" };
        flags.push(format!("--database {} {into} {}", quoted(&tenant.of_database), self.environment));
        flags.push(format!("--as {} --work-dir {}", quoted(&tenant.name), quoted(&self.pgdata)));
        flags.push(match &self.filestore {
            Some(filestore) => format!("--filestore {}", quoted(filestore)),
            None => "--no-filestore".to_owned(),
        });
        flags.extend(tenant.owner.as_ref().map(|owner| format!("--owner {}", quoted(owner))));
        // A refresh is masked, new and seen in any case.
        let chosen =
            [(!tenant.hidden, "--release"), (tenant.new_identity, "--new-identity"), (tenant.masked, "--mask")];
        let chosen = chosen.into_iter().filter(|(is, _)| *is && !tenant.neutralised);
        flags.extend(chosen.map(|(_, flag)| flag.to_owned()));
    }

    /// The first field that differs from `other`, in words; `None` where they are equal.
    pub fn difference(&self, other: &PlannedRestore) -> Option<String> {
        let fields = |plan: &PlannedRestore| match serde_json::to_value(plan) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let theirs = fields(other);
        fields(self)
            .into_iter()
            .find(|(name, value)| theirs.get(name) != Some(value))
            .map(|(name, value)| format!("{name} is {}, approved is {}", value, theirs.get(&name).unwrap_or(&value)))
    }
}

/// A word for a POSIX shell: as it is where that is safe, else in single quotes.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A restore of the whole.
    pub(crate) fn plan() -> PlannedRestore {
        PlannedRestore {
            configuration: None,
            delta: false,
            environment: "production".into(),
            filestore: Some("/srv/restored/filestore".into()),
            force: false,
            host: "db-1".into(),
            pgdata: "/srv/restored/pgdata".into(),
            repository: "0123abcd".into(),
            stop_lsn: Lsn(0x0300_0060),
            tablespaces: BTreeMap::new(),
            target: "lsn:0/3000060".into(),
            tenant: None,
            timeline: Timeline(1),
        }
    }

    fn tenant() -> PlannedRestore {
        PlannedRestore {
            pgdata: "/srv/aside".into(),
            filestore: None,
            tenant: Some(PlannedTenant {
                cluster: "db-1:5432".into(),
                hidden: true,
                masked: false,
                name: "shop_1401".into(),
                neutralised: false,
                new_identity: true,
                of_database: "shop".into(),
                of_environment: "staging".into(),
                owner: Some("odoo".into()),
            }),
            ..plan()
        }
    }

    fn sorted(value: &serde_json::Value) -> String {
        // `serde_json` keeps the keys of a value sorted.
        serde_json::to_string(value).expect("plain")
    }

    #[test]
    fn the_digest_is_that_of_sorted_json_without_white_space() {
        for plan in [plan(), tenant()] {
            let text = serde_json::to_string(&plan).expect("plain");
            let value = serde_json::from_str(&text).expect("an object");
            assert_eq!(text, sorted(&value), "fields stand in the order of the alphabet");
            assert_eq!(plan.sha256(), hex::encode(Sha256::digest(text)));
        }
        let whole = serde_json::to_string(&plan()).expect("plain");
        assert!(!whole.contains("tenant"), "digests of ledgers that were written before it stay: {whole}");
        let mut other = plan();
        other.pgdata = "/var/lib/postgresql/15/main".into();
        let difference = other.difference(&plan()).expect("differs");
        assert!(difference.contains("pgdata") && difference.contains("15/main"), "{difference}");
        assert_eq!(plan().difference(&plan()), None);
    }

    #[test]
    fn a_database_elsewhere_is_asked_for_and_loaded_with_the_same_flags() {
        let flags = "-e staging --to lsn:0/3000060 --timeline 1 --database shop --into-cluster production --as shop_1401 \
                     --work-dir /srv/aside --no-filestore --owner odoo --new-identity";
        assert_eq!(tenant().asked_for_by(), format!("approval request-tenant {flags}"));
        assert_eq!(tenant().command("a1"), format!("lifeboat restore tenant {flags} --approval a1"));
        assert_eq!(tenant().place(), "shop of staging as shop_1401 at db-1:5432");
        let mut refresh = tenant();
        refresh.tenant.as_mut().expect("one").neutralised = true;
        let command = refresh.command("a1");
        assert!(command.starts_with("lifeboat refresh -e staging") && command.contains("--to-environment production"));
        assert!(!command.contains("--new-identity"), "{command}");
        let mut other = tenant();
        other.tenant.as_mut().expect("one").name = "shop".into();
        assert!(other.difference(&tenant()).is_some_and(|difference| difference.starts_with("tenant is")));
        assert_ne!(other.sha256(), tenant().sha256());
    }
}
