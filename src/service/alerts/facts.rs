//! What alerts need to know beyond the model of the service: clocks, room, and what expires.
//!
//! Gathered rarely (minutes), each with a time limit; what cannot be found out is absent, not zero: other conditions tell
//! that PostgreSQL or the store does not answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use url::Url;
use x509_cert::Certificate;
use x509_cert::der::DecodePem;

use crate::config::{Environment, Estate};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::postgres::source::Source;
use crate::runtime::Runtime;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(6);

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// The environment, where it belongs to one.
    pub environment: Option<String>,
    /// What it is, for people: `the password of role lifeboat`, a certificate's file.
    pub what: String,
    /// Whether it is a certificate, or else a password or key.
    pub certificate: bool,
    /// When.
    pub at: DateTime<Utc>,
}

/// A clock beside ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherClock {
    /// The environment, where it is that of its server.
    pub environment: Option<String>,
    /// Whose it is.
    pub whose: String,
    /// How far it is ahead of this host's, to a second or two.
    pub ahead: TimeDelta,
}

/// What was found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Free and all bytes of the disk of a repository in a folder.
    pub room: Option<(u64, u64)>,
    /// Other clocks.
    pub clocks: Vec<OtherClock>,
    /// What ends, and when.
    pub expiring: Vec<Expiring>,
    /// Certificates that could not be read.
    pub unreadable: Vec<(PathBuf, String)>,
}

impl Facts {
    /// Finds out what can be found out now. `certificates` are further files than those that the environments name.
    pub async fn gather(estate: &Estate, certificates: &[PathBuf], http: &reqwest::Client, runtime: &Runtime) -> Self {
        let mut facts =
            Facts { room: Url::parse(&estate.repository.url).ok().and_then(|url| room(&url)), ..Facts::default() };
        let store = store_clock(estate, http, runtime);
        let servers =
            futures::future::join_all(estate.environments.iter().map(|environment| server(environment, runtime)));
        let (store, servers) = tokio::join!(store, servers);
        facts.clocks.extend(store);
        for (clock, password) in servers.into_iter().flatten() {
            facts.clocks.push(clock);
            facts.expiring.extend(password);
        }
        let of_environments = estate.environments.iter().filter_map(|environment| {
            environment.postgres.tls_root.as_ref().map(|file| (Some(environment.name.clone()), file))
        });
        for (environment, file) in of_environments.chain(certificates.iter().map(|file| (None, file))) {
            match certificate_ends(file) {
                Ok(at) => facts.expiring.push(Expiring {
                    environment,
                    what: format!("the certificate in {}", file.display()),
                    certificate: true,
                    at,
                }),
                Err(e) => facts.unreadable.push((file.clone(), e.message())),
            }
        }
        facts
    }
}

/// Free and all bytes below a `file://` repository.
fn room(url: &Url) -> Option<(u64, u64)> {
    let folder = url.to_file_path().ok()?;
    let disk = rustix::fs::statvfs(&folder).ok()?;
    Some((disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize))
}

/// The clock of the store, from the `Date` of whatever it answers (RFC 9110, 6.6.1).
async fn store_clock(estate: &Estate, http: &reqwest::Client, runtime: &Runtime) -> Option<OtherClock> {
    let address =
        match (&estate.repository.endpoint, estate.repository.url.starts_with("s3:"), &estate.repository.region) {
            (Some(endpoint), true, _) => endpoint.clone(),
            (None, true, Some(region)) => format!("https://s3.{region}.amazonaws.com/"),
            _ => return None,
        };
    let answer = tokio::time::timeout(PATIENCE, http.head(address).send()).await.ok()?.ok()?;
    let date = answer.headers().get("date")?.to_str().ok()?;
    let there = DateTime::parse_from_rfc2822(date).ok()?.with_timezone(&Utc);
    Some(OtherClock { environment: None, whose: "the store".into(), ahead: there - runtime.now() })
}

/// The clock of an environment's server, and when the password of our role ends.
async fn server(environment: &Environment, runtime: &Runtime) -> Option<(OtherClock, Option<Expiring>)> {
    const QUERY: &str = "SELECT clock_timestamp(), current_user::text,
        (SELECT CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil END FROM pg_catalog.pg_roles WHERE rolname = current_user)";
    let ask = async {
        let client = Source::new(&environment.postgres).ok()?.sql().await.ok()?;
        client.query_one(QUERY, &[]).await.ok()
    };
    let row = tokio::time::timeout(PATIENCE, ask).await.ok()??;
    let there: DateTime<Utc> = row.try_get(0).ok()?;
    let role: String = row.try_get(1).ok()?;
    let ends: Option<DateTime<Utc>> = row.try_get(2).ok()?;
    let clock = OtherClock {
        environment: Some(environment.name.clone()),
        whose: "PostgreSQL's host".into(),
        ahead: there - runtime.now(),
    };
    let password = ends.map(|at| Expiring {
        environment: Some(environment.name.clone()),
        what: format!("the password of the role {role} in PostgreSQL"),
        certificate: false,
        at,
    });
    Some((clock, password))
}

/// When the first of the certificates in a PEM file ends to be valid.
fn certificate_ends(file: &Path) -> Result<DateTime<Utc>> {
    let text = std::fs::read(file).or_err(ErrorKind::Config, || format!("cannot read {}", file.display()))?;
    let certificate = Certificate::from_pem(first_pem(&text))
        .or_err(ErrorKind::Config, || format!("{} does not begin with a certificate", file.display()))?;
    let ends = certificate.tbs_certificate.validity.not_after.to_unix_duration();
    DateTime::from_timestamp(ends.as_secs().cast_signed(), 0).ok_or_else(|| {
        crate::error::config(format!("the certificate in {} has no end that can be told", file.display()))
    })
}

/// The first PEM block of a file that may hold several.
fn first_pem(text: &[u8]) -> &[u8] {
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let start = text.windows(10).position(|w| w == b"-----BEGIN").unwrap_or(0);
    let end = text.windows(END.len()).position(|w| w == END).map_or(text.len(), |at| at + END.len());
    &text[start..end.max(start)]
}
