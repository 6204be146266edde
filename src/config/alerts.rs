//! `[alerts]`: who is told what is wrong, how, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::check::is_name;
use super::estate::Purpose;
use super::raw::Located;
use super::raw_secret::RawSecret;
use super::read::text;
use super::repository::{optional_secret, positive};
use super::secret::SecretRef;
use super::source::Source;
use super::suggest::nearest;
use crate::error::Result;
use crate::units::Span;

const DEFAULT_GROUP_WAIT: Duration = Duration::from_secs(30);
const DEFAULT_GROUP_INTERVAL: Duration = Duration::from_secs(300);
const DEFAULT_REPEAT_INTERVAL: Duration = Duration::from_secs(4 * 3600);
const DEFAULT_DEAD_MAN: Duration = Duration::from_secs(60);
const DEFAULT_DRILL_AGE: Duration = Duration::from_secs(8 * 86_400);
const DEFAULT_BASE_AGE: Duration = Duration::from_secs(2 * 86_400);
const DEFAULT_DANGER: u8 = 80;
const DEFAULT_SIZE_CHANGE: u8 = 50;

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertSeverity {
    /// Worth knowing.
    Info,
    /// Somebody must look at it in working hours.
    Warning,
    /// Somebody must be woken.
    Critical,
}

impl AlertSeverity {
    /// How it is written.
    pub fn word(self) -> &'static str {
        match self {
            AlertSeverity::Info => "info",
            AlertSeverity::Warning => "warning",
            AlertSeverity::Critical => "critical",
        }
    }
}

/// Who is told what is wrong.
#[derive(Debug, Clone)]
pub struct AlertsConfig {
    /// How long a new group waits for more of its kind.
    pub group_wait: Duration,
    /// How long a group that grew waits before it is told again.
    pub group_interval: Duration,
    /// After how long what has not changed is told again.
    pub repeat_interval: Duration,
    /// From which share of an objective on, in percent, it counts as in danger.
    pub danger_percent: u8,
    /// By how much, in percent, a size may change from one backup to the next.
    pub size_change_percent: u8,
    /// How old the newest drill may be.
    pub drill_age: Duration,
    /// How old the newest base backup may be.
    pub base_age: Duration,
    /// Who can be told, by name.
    pub receivers: BTreeMap<String, Receiver>,
    /// Who is told what; without any, everybody is told everything.
    pub routes: Vec<Route>,
    /// The sign of life.
    pub dead_man: Option<DeadMan>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            group_wait: DEFAULT_GROUP_WAIT,
            group_interval: DEFAULT_GROUP_INTERVAL,
            repeat_interval: DEFAULT_REPEAT_INTERVAL,
            danger_percent: DEFAULT_DANGER,
            size_change_percent: DEFAULT_SIZE_CHANGE,
            drill_age: DEFAULT_DRILL_AGE,
            base_age: DEFAULT_BASE_AGE,
            receivers: BTreeMap::new(),
            routes: Vec::new(),
            dead_man: None,
        }
    }
}

/// Somebody who can be told.
#[derive(Debug, Clone)]
pub enum Receiver {
    /// Prometheus' Alertmanager, by its API v2; it groups and repeats by its own rules.
    Alertmanager {
        /// Its address, without `/api/v2/alerts`.
        url: Url,
        /// Bearer token.
        token: Option<SecretRef>,
    },
    /// Any program that takes a JSON document by POST.
    Webhook {
        /// Where to.
        url: Url,
        /// Bearer token.
        token: Option<SecretRef>,
    },
    /// People.
    Email {
        /// Whom.
        to: Vec<String>,
        /// By which server.
        smtp: Smtp,
    },
}

impl Receiver {
    /// What it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Receiver::Alertmanager { .. } => "alertmanager",
            Receiver::Webhook { .. } => "webhook",
            Receiver::Email { .. } => "email",
        }
    }
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: SmtpTls,
    /// Account and password.
    pub login: Option<(String, SecretRef)>,
    /// Who writes.
    pub from: String,
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// STARTTLS, required.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// Not at all; for a server on the same host.
    None,
}

/// Which alerts go to a receiver; what is not said matches everything.
#[derive(Debug, Clone)]
pub struct Route {
    /// The receiver's name.
    pub receiver: String,
    /// Only of these environments.
    pub environments: Option<Vec<String>>,
    /// Only of environments for these purposes.
    pub purposes: Option<Vec<Purpose>>,
    /// Only of environments of these owners.
    pub owners: Option<Vec<String>>,
    /// Only as bad as this or worse.
    pub severity: AlertSeverity,
}

/// A sign of life, whose absence is the alarm: nothing else tells that the service itself is gone.
#[derive(Debug, Clone)]
pub struct DeadMan {
    /// What is fetched (GET) as long as the service is alive.
    pub url: Url,
    /// How often.
    pub every: Duration,
}

/// Who is told what is wrong.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Alerts")]
pub(super) struct RawAlerts {
    /// How long a new group of alerts waits for more of its kind; default `30s`.
    group_wait: Option<Located<Span>>,
    /// How long a group that grew waits before it is told again; default `5m`.
    group_interval: Option<Located<Span>>,
    /// After how long what has not changed is told again; default `4h`.
    repeat_interval: Option<Located<Span>>,
    /// From which share of an objective on, in percent, it counts as in danger; default 80.
    danger_percent: Option<Located<u8>>,
    /// By how much, in percent, a size may change from one backup to the next; default 50.
    size_change_percent: Option<Located<u8>>,
    /// How old the newest drill may be; default `8d`.
    drill_age: Option<Located<Span>>,
    /// How old the newest base backup may be; default `2d`.
    base_age: Option<Located<Span>>,
    /// The mail server, for receivers with `email`.
    smtp: Option<Located<RawSmtp>>,
    /// Who can be told.
    #[serde(default)]
    receiver: Vec<RawReceiver>,
    /// Who is told what; every route that matches counts. Without any, everybody is told everything.
    #[serde(default)]
    route: Vec<RawRoute>,
    /// A sign of life, whose absence is the alarm.
    dead_man: Option<RawDeadMan>,
}

/// Somebody who can be told: exactly one of `alertmanager`, `webhook` and `email`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AlertReceiver")]
struct RawReceiver {
    /// Its name, for routes.
    name: Located<String>,
    /// Address of an Alertmanager, without `/api/v2/alerts`.
    alertmanager: Option<Located<String>>,
    /// Address that takes a JSON document by POST.
    webhook: Option<Located<String>>,
    /// Bearer token for either.
    token: Option<Located<RawSecret>>,
    /// Addresses of people.
    email: Option<Located<Vec<Located<String>>>>,
}

/// Which alerts go to a receiver; what is not said matches everything.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AlertRoute")]
struct RawRoute {
    /// Name of the receiver.
    receiver: Located<String>,
    /// Only of these environments.
    environments: Option<Vec<Located<String>>>,
    /// Only of environments for these purposes.
    purposes: Option<Vec<Purpose>>,
    /// Only of environments of these owners.
    owners: Option<Vec<String>>,
    /// Only as bad as this or worse; default `info`.
    severity: Option<AlertSeverity>,
}

/// A mail server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Smtp")]
struct RawSmtp {
    /// Its name.
    host: Located<String>,
    /// Its port; default 587, 465 with `tls = "tls"`, 25 with `tls = "none"`.
    port: Option<u16>,
    /// `starttls` (default), `tls` or `none`.
    tls: Option<SmtpTls>,
    /// Account, where it wants one.
    username: Option<Located<String>>,
    /// Its password.
    password: Option<Located<RawSecret>>,
    /// Who writes: `Lifeboat <lifeboat@example.org>`.
    from: Located<String>,
}

/// A sign of life, whose absence is the alarm.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DeadMan")]
struct RawDeadMan {
    /// What is fetched (GET) as long as the service is alive: a health check that alarms when it hears nothing.
    url: Located<String>,
    /// How often; default `1m`.
    every: Option<Located<Span>>,
}

/// Judges `[alerts]`; `environments` are the names that routes may use.
pub(super) fn alerts(source: &Source, raw: RawAlerts, environments: &[&str]) -> Result<AlertsConfig> {
    let span = |key, raw: Option<Located<Span>>, default| raw.map_or(Ok(default), |raw| positive(source, key, &raw));
    let smtp = raw.smtp.map(|raw| smtp(source, raw.value)).transpose()?;
    let mut receivers = BTreeMap::new();
    for raw in raw.receiver {
        let span = raw.name.span.clone();
        let (name, receiver) = receiver(source, raw, smtp.as_ref())?;
        if receivers.insert(name.clone(), receiver).is_some() {
            return Err(source.error(&span, format!("the receiver \"{name}\" is defined twice")));
        }
    }
    let routes =
        raw.route.into_iter().map(|raw| route(source, raw, &receivers, environments)).collect::<Result<Vec<_>>>()?;
    Ok(AlertsConfig {
        group_wait: span("group_wait", raw.group_wait, DEFAULT_GROUP_WAIT)?,
        group_interval: span("group_interval", raw.group_interval, DEFAULT_GROUP_INTERVAL)?,
        repeat_interval: span("repeat_interval", raw.repeat_interval, DEFAULT_REPEAT_INTERVAL)?,
        danger_percent: percent(source, "danger_percent", raw.danger_percent, DEFAULT_DANGER)?,
        size_change_percent: percent(source, "size_change_percent", raw.size_change_percent, DEFAULT_SIZE_CHANGE)?,
        drill_age: span("drill_age", raw.drill_age, DEFAULT_DRILL_AGE)?,
        base_age: span("base_age", raw.base_age, DEFAULT_BASE_AGE)?,
        receivers,
        routes,
        dead_man: raw.dead_man.map(|raw| dead_man(source, raw)).transpose()?,
    })
}

fn percent(source: &Source, key: &str, raw: Option<Located<u8>>, default: u8) -> Result<u8> {
    match raw {
        Some(raw) if !(1..=100).contains(&raw.value) => {
            Err(source.error(&raw.span, format!("`{key}` is {}; it goes from 1 to 100", raw.value)))
        }
        raw => Ok(raw.map_or(default, |raw| raw.value)),
    }
}

fn receiver(source: &Source, raw: RawReceiver, smtp: Option<&Smtp>) -> Result<(String, Receiver)> {
    if !is_name(&raw.name.value) {
        return Err(source
            .error(&raw.name.span, "this is not the name of a receiver")
            .hint("use up to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit"));
    }
    let token = optional_secret(source, raw.token)?;
    let receiver = match (raw.alertmanager, raw.webhook, raw.email) {
        (Some(url), None, None) => Receiver::Alertmanager { url: http_url(source, &url)?, token },
        (None, Some(url), None) => Receiver::Webhook { url: http_url(source, &url)?, token },
        (None, None, Some(to)) => {
            let smtp = smtp.cloned().ok_or_else(|| {
                source
                    .error(&to.span, "there is no mail server for this receiver")
                    .hint("add [alerts.smtp] with host and from")
            })?;
            if to.value.is_empty() {
                return Err(source.error(&to.span, "nobody is listed"));
            }
            let to = to.value.iter().map(|address| mailbox(source, address)).collect::<Result<_>>()?;
            Receiver::Email { to, smtp }
        }
        _ => {
            return Err(source
                .error(&raw.name.span, "a receiver has exactly one of `alertmanager`, `webhook` and `email`")
                .hint("make a receiver of each"));
        }
    };
    Ok((raw.name.value, receiver))
}

fn mailbox(source: &Source, raw: &Located<String>) -> Result<String> {
    match raw.value.parse::<lettre::message::Mailbox>() {
        Ok(_) => Ok(raw.value.clone()),
        Err(_) => Err(source
            .error(&raw.span, "this is not an address of mail")
            .hint("write for example \"erp@example.org\" or \"Lifeboat <lifeboat@example.org>\"")),
    }
}

fn smtp(source: &Source, raw: RawSmtp) -> Result<Smtp> {
    let tls = raw.tls.unwrap_or_default();
    let port = raw.port.unwrap_or(match tls {
        SmtpTls::Starttls => 587,
        SmtpTls::Tls => 465,
        SmtpTls::None => 25,
    });
    let login = match (raw.username, optional_secret(source, raw.password)?) {
        (Some(name), Some(password)) => Some((text(source, "username", &name)?, password)),
        (None, None) => None,
        (Some(name), None) => return Err(source.error(&name.span, "`username` needs a `password`")),
        (None, Some(_)) => return Err(source.error(&raw.host.span, "`password` needs a `username`")),
    };
    Ok(Smtp { host: text(source, "host", &raw.host)?, port, tls, login, from: mailbox(source, &raw.from)? })
}

fn route(
    source: &Source,
    raw: RawRoute,
    receivers: &BTreeMap<String, Receiver>,
    environments: &[&str],
) -> Result<Route> {
    let unknown = |what: &str, name: &Located<String>, known: &mut dyn Iterator<Item = &str>| {
        let known: Vec<&str> = known.collect();
        let error = source.error(&name.span, format!("there is no {what} \"{}\"", name.value));
        match nearest(&name.value, known.iter().copied()) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error.hint(format!("known here: {}", known.join(", "))),
        }
    };
    if !receivers.contains_key(&raw.receiver.value) {
        return Err(unknown("receiver", &raw.receiver, &mut receivers.keys().map(String::as_str)));
    }
    for name in raw.environments.iter().flatten() {
        if !environments.contains(&name.value.as_str()) {
            return Err(unknown("environment", name, &mut environments.iter().copied()));
        }
    }
    Ok(Route {
        receiver: raw.receiver.value,
        environments: raw.environments.map(|names| names.into_iter().map(|name| name.value).collect()),
        purposes: raw.purposes,
        owners: raw.owners,
        severity: raw.severity.unwrap_or(AlertSeverity::Info),
    })
}

fn dead_man(source: &Source, raw: RawDeadMan) -> Result<DeadMan> {
    let every = raw.every.map_or(Ok(DEFAULT_DEAD_MAN), |every| positive(source, "every", &every))?;
    Ok(DeadMan { url: http_url(source, &raw.url)?, every })
}

/// An address of the web, without credentials in it.
fn http_url(source: &Source, raw: &Located<String>) -> Result<Url> {
    plain_url(source, raw, "http://alertmanager:9093", "token = { env = \"…\" }")
}

/// The same for anything: what one looks like, and how credentials are given beside it.
pub(super) fn plain_url(source: &Source, raw: &Located<String>, example: &str, beside: &str) -> Result<Url> {
    let wrong = |what| source.error(&raw.span, what).hint(format!("write for example \"{example}\""));
    let url = Url::parse(&raw.value).map_err(|_| wrong("this is not an address"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("this is not an address of the web"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(source
            .error(&raw.span, "the address holds credentials; secrets are given by reference, never in the file")
            .hint(format!("write {beside} beside it")));
    }
    Ok(url)
}
