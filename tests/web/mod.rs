//! The page and the API of `lifeboat serve`, over real HTTP, on a real estate: what they show, what can be done with them,
//! who may, and what happens when somebody means harm.

mod approvals;
mod flood;
mod fuzz;
mod look;
mod oidc;
mod see;
mod tls;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::{Cluster, Estate, Running, Scratch, free_port};

pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// How drills run, and what they check.
const DRILL: &str = r#"
[environment.drill]
work_dir = "DRILLS"
[[check]]
id = "T1"
title = "There is something in t"
severity = "hard"
database = "every"
requires_tables = ["t"]
sql = "SELECT 1 WHERE NOT EXISTS (SELECT FROM t)"
why = "What was there must be there again."
"#;

/// People, what they may do, and their tokens.
pub(super) const PEOPLE: [(&str, &str, &str); 6] = [
    ("vera", "viewer", "lifeboat_vera-vera-vera-vera-vera-vera-vera-vera-ve"),
    ("aude", "auditor", "lifeboat_aude-aude-aude-aude-aude-aude-aude-aude-au"),
    ("otto", "operator", "lifeboat_otto-otto-otto-otto-otto-otto-otto-otto-ot"),
    ("petra", "approver", "lifeboat_petra-petra-petra-petra-petra-petra-petra-pe"),
    ("paul", "approver", "lifeboat_paul-paul-paul-paul-paul-paul-paul-paul-pau"),
    ("ada", "admin", "lifeboat_ada-ada-ada-ada-ada-ada-ada-ada-ada-ada-ada-"),
];

pub(super) fn token(name: &str) -> &'static str {
    PEOPLE.iter().find(|(who, ..)| *who == name).expect("a known person").2
}

/// `[service]` with everybody's tokens, on `port`.
pub(super) fn service(port: u16, more: &str) -> String {
    let mut text =
        format!("[service]\nrefresh_every = \"1s\"\n[service.http]\nlisten = \"127.0.0.1:{port}\"\n{more}\n");
    for (name, role, token) in PEOPLE {
        let hash = hex::encode(Sha256::digest(token));
        write!(text, "[[service.http.token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n")
            .expect("text");
    }
    text
}

/// An estate that is served.
pub(super) struct Site {
    pub(super) scratch: Scratch,
    pub(super) cluster: Cluster,
    pub(super) estate: Estate,
    pub(super) serve: Running,
    pub(super) address: String,
    pub(super) client: reqwest::Client,
}

impl Site {
    /// Serves an estate; `more` of `[service.http]`, and more tables of the environment.
    pub(super) async fn new(more: &str, tables: &str) -> Self {
        Self::with_scheme("http", more, tables).await
    }

    /// The same by `https`, whoever signed the certificate.
    pub(super) async fn with_scheme(scheme: &str, more: &str, tables: &str) -> Self {
        Self::start(scheme, free_port(), more, tables, &[]).await
    }

    /// On a port that was chosen before, with variables of the environment.
    pub(super) async fn on_port(port: u16, more: &str, variables: &[(&str, &str)]) -> Self {
        Self::start("http", port, more, "", variables).await
    }

    async fn start(scheme: &str, port: u16, more: &str, tables: &str, variables: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).start();
        cluster.psql("postgres", "CREATE TABLE t AS SELECT 1 AS one");
        // In place of what is built in, so that only what a test asks for is done.
        let never = "[[job]]\nname = \"never\"\nkind = \"configuration\"\ncron = \"0 0 29 2 *\"";
        let drills = scratch.server_dir("drills");
        let drill = DRILL.replace("DRILLS", drills.to_str().expect("UTF-8"));
        let builder = Estate::builder(&scratch, &cluster).tables(tables).tables(&drill).tables(&service(port, more));
        let estate = builder.tables(if tables.contains("[[job]]") { "" } else { never }).init();
        let program = variables.iter().fold(estate.lifeboat.clone(), |program, (name, value)| program.env(name, value));
        let serve = program.spawn(&["serve"]);
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .tls_danger_accept_invalid_certs(true)
            .build()
            .expect("a client");
        let address = format!("{scheme}://127.0.0.1:{port}");
        let mut site = Self { scratch, cluster, estate, serve, address, client };
        site.ready().await;
        site
    }

    /// Waits until it has looked at everything.
    pub(super) async fn ready(&mut self) {
        let (client, url) = (self.client.clone(), format!("{}/readyz", self.address));
        for _ in 0..600 {
            assert!(self.serve.is_running(), "the service ended: {}", self.serve.said());
            if client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not ready: {}", self.serve.said());
    }

    /// Asks as somebody; status and text.
    pub(super) async fn get(&self, who: &str, path: &str) -> (u16, String) {
        let request = self.client.get(format!("{}{path}", self.address)).bearer_auth(token(who));
        let answer = request.header("accept", "text/html").send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// The JSON of a path that must be there.
    pub(super) async fn json(&self, who: &str, path: &str) -> Value {
        let (status, text) = self.get(who, path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }

    /// Sends JSON as somebody; status and JSON.
    pub(super) async fn post(&self, who: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.address)).bearer_auth(token(who)).json(body);
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("text");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Waits until what the API says of the environment is as wanted.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..900 {
            last = self.json("vera", "/api/v1/environments/production").await;
            if wanted(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what} did not come about: {last:#}\n{}", self.serve.said());
    }

    /// Starts a job and waits for its end.
    pub(super) async fn job(&self, who: &str, body: &Value) -> Value {
        let (status, started) = self.post(who, "/api/v1/environments/production/jobs", body).await;
        assert_eq!(status, 202, "{started}");
        let run = started["run"].as_str().expect("a run").to_owned();
        for _ in 0..900 {
            let jobs = self.json("vera", "/api/v1/jobs").await;
            let ended =
                jobs["recent"].as_array().expect("a list").iter().find(|job| job["run"] == run.as_str()).cloned();
            if let Some(job) = ended {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the job does not end: {}", self.serve.said());
    }
}
