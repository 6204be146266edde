//! Looking at a repository: what `show`, `verify`, `evidence` and `doctor` say about a sound one, and
//! that every kind of damage to every kind of object turns the right command red.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Cluster, Lifeboat, Output, Scratch};

mod damage;
mod doctor;
mod policy;
mod show;

/// An estate with one environment, `production`, in a folder.
struct Estate {
    scratch: Scratch,
    cluster: Cluster,
    lifeboat: Lifeboat,
    recipient: String,
}

impl Estate {
    /// A new repository; the cluster's WAL segments are of 1 MiB, so that there are many.
    fn new() -> Self {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).tcp().start();
        let recipient = keygen(&scratch, "recovery.key");
        let mut estate = Self { lifeboat: Lifeboat::new(scratch.join("lifeboat.toml")), scratch, cluster, recipient };
        estate.configure("", &estate.cluster.dsn(), Some("recovery.key"), "state");
        estate.run(&["init"]).ok();
        estate
    }

    /// With two base backups and a dozen WAL segments behind and between them.
    fn filled() -> Self {
        let estate = Self::new();
        estate.cluster.psql("postgres", "CREATE TABLE t (v text)");
        estate.run(&["backup", "base", "-e", "production"]).ok();
        for _ in 0..4 {
            estate.switch();
        }
        estate.receive();
        estate.run(&["backup", "base", "-e", "production"]).ok();
        for _ in 0..4 {
            estate.switch();
        }
        estate.cluster.psql("postgres", "INSERT INTO t VALUES ('in the segment that is being written')");
        estate.receive();
        estate
    }

    fn configure(&mut self, repository: &str, dsn: &str, identity: Option<&str>, state: &str) {
        self.lifeboat = self.with("lifeboat.toml", repository, dsn, identity, state);
    }

    /// Lifeboat with a configuration of its own.
    fn with(&self, file: &str, repository: &str, dsn: &str, identity: Option<&str>, state: &str) -> Lifeboat {
        let repository = match repository {
            "" => format!("url = \"file://{}\"", self.repository().display()),
            other => other.to_owned(),
        };
        let identity = identity.map(|file| format!("identity = {{ file = \"{file}\" }}\n")).unwrap_or_default();
        let config = format!(
            "[repository]\n{repository}\nretry_for = \"2s\"\n[keys]\nrecipients = [\"{}\"]\n{identity}state_dir = \"{state}\"\n\
             [[environment]]\nname = \"production\"\npurpose = \"production\"\nowner = \"test\"\n\
             [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
             [environment.postgres]\nslot = \"lifeboat\"\n{}\n",
            self.recipient,
            if dsn.contains('\n') { dsn.to_owned() } else { format!("dsn = \"{dsn}\"") },
        );
        Lifeboat::new(self.scratch.write(file, config))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.lifeboat.run(arguments)
    }

    fn repository(&self) -> PathBuf {
        self.scratch.join("repository")
    }

    /// Fills a segment and begins the next.
    fn switch(&self) {
        self.cluster.psql("postgres", "INSERT INTO t SELECT repeat('x', 200) FROM generate_series(1, 500)");
        self.cluster.psql("postgres", "SELECT pg_switch_wal()");
    }

    /// Receives everything that the server has written.
    fn receive(&self) {
        let lsn = self.cluster.psql("postgres", "SELECT pg_current_wal_flush_lsn()");
        self.run(&["wal", "receive", "-e", "production", "--until-lsn", &lsn]).ok();
    }

    /// Objects below a folder of the repository, by name.
    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(self.repository().join(folder)).sort_by_file_name();
        let files = files.into_iter().filter_map(Result::ok).filter(|e| e.file_type().is_file());
        files.map(walkdir::DirEntry::into_path).collect()
    }

    /// Complete WAL segments.
    fn segments(&self) -> Vec<PathBuf> {
        self.objects("production/wal").into_iter().filter(|p| name(p).len() == 24).collect()
    }

    fn verify(&self) -> Output {
        self.run(&["verify", "-e", "production"])
    }

    fn deep(&self) -> Output {
        self.run(&["verify", "-e", "production", "--deep"])
    }
}

fn keygen(scratch: &Scratch, file: &str) -> String {
    let bare = Lifeboat::new(scratch.write("none.toml", ""));
    let path = scratch.join(file).display().to_string();
    let key = bare.run(&["--format", "json", "keygen", "-o", &path]).ok();
    key.json()["recipient"].as_str().expect("a recipient").to_owned()
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

/// What can happen to an object.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip,
    Truncate,
    Append,
    Delete,
    /// Its bytes and those of another object change places.
    Swap,
}

/// Does harm, and undoes it when dropped.
struct Harmed(Vec<(PathBuf, Vec<u8>)>);

impl Harmed {
    fn new(harm: Harm, object: &Path, other: &Path) -> Self {
        let saved = |path: &Path| (path.to_owned(), fs::read(path).expect("an object"));
        let (this, that) = (saved(object), saved(other));
        let mut bytes = this.1.clone();
        match harm {
            Harm::Flip => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(object, bytes).expect("written");
            }
            Harm::Truncate => fs::write(object, &bytes[..bytes.len() - 1]).expect("written"),
            Harm::Append => fs::write(object, [bytes, b"more".to_vec()].concat()).expect("written"),
            Harm::Delete => fs::remove_file(object).expect("deleted"),
            Harm::Swap => {
                fs::write(object, &that.1).expect("written");
                fs::write(other, &bytes).expect("written");
            }
        }
        Self(vec![this, that])
    }
}

impl Drop for Harmed {
    fn drop(&mut self) {
        for (path, bytes) in &self.0 {
            fs::write(path, bytes).expect("put back");
        }
    }
}

/// The finding called `name`, as `state: words`.
fn finding(doctor: &Output, name: &str) -> String {
    let json = doctor.json();
    let findings = json["findings"].as_array().expect("a list");
    let of = findings.iter().filter(|f| f["name"] == name).map(|f| {
        let to_do = f["to_do"].as_array().expect("a list").iter().map(|t| t.to_string()).collect::<String>();
        format!("{}: {} {to_do}", f["state"].as_str().unwrap_or_default(), f["words"].as_str().unwrap_or_default())
    });
    let of: Vec<String> = of.collect();
    assert!(!of.is_empty(), "no finding {name} in {json:#}");
    of.join("\n")
}
