//! How receivers are told. One attempt each, within a time; trying again is the engine's.

mod alertmanager;
mod email;
mod webhook;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::engine::{Firing, Tell};
use crate::config::Receiver;
use crate::error::{self, ErrorKind, Result, ResultExt};

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a receiver is told.
#[derive(Debug, Clone)]
pub struct Notification<'a> {
    /// The receiver's name.
    pub receiver: &'a str,
    /// What is wrong.
    pub firing: &'a [Firing],
    /// What is over.
    pub resolved: &'a [Firing],
    /// The instance of the service that tells.
    pub instance: &'a str,
    /// When.
    pub now: DateTime<Utc>,
}

/// The ways to tell somebody.
#[derive(Debug, Clone)]
pub struct Channels {
    http: reqwest::Client,
    instance: String,
}

impl Channels {
    /// Channels of the service's instance `instance`.
    ///
    /// # Errors
    /// Internal where TLS cannot be set up.
    pub fn new(instance: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .build()
            .or_err(ErrorKind::Internal, || "cannot set up HTTP".to_owned())?;
        Ok(Self { http, instance: instance.to_owned() })
    }

    /// The client that is used, for other questions over HTTP.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Tells a receiver.
    ///
    /// # Errors
    /// Source where it cannot be reached or refuses; configuration where its secret cannot be had.
    pub async fn tell(&self, receivers: &BTreeMap<String, Receiver>, tell: &Tell, now: DateTime<Utc>) -> Result<()> {
        let receiver = receivers
            .get(&tell.receiver)
            .ok_or_else(|| error::internal(format!("there is no receiver \"{}\"", tell.receiver)))?;
        let notification = Notification {
            receiver: &tell.receiver,
            firing: &tell.firing,
            resolved: &tell.resolved,
            instance: &self.instance,
            now,
        };
        let told = async {
            match receiver {
                Receiver::Alertmanager { url, token } => {
                    alertmanager::tell(&self.http, url, token.as_ref(), &notification).await
                }
                Receiver::Webhook { url, token } => webhook::tell(&self.http, url, token.as_ref(), &notification).await,
                Receiver::Email { to, smtp } => email::tell(to, smtp, &notification).await,
            }
        };
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(told) => told,
            Err(_) => Err(error::source(format!("the receiver did not answer within {} s", PATIENCE.as_secs()))),
        }
        .map_err(|e| e.context(format!("cannot tell \"{}\" ({})", tell.receiver, receiver.kind())))
    }

    /// Gives a sign of life.
    ///
    /// # Errors
    /// Source where nobody takes it.
    pub async fn sign_of_life(&self, url: &url::Url) -> Result<()> {
        let what = || "the sign of life reached nobody".to_owned();
        let answer =
            self.http.get(url.clone()).send().await.map_err(without_address).or_err(ErrorKind::Source, what)?;
        accepted(answer).await
    }
}

/// The address of a webhook may be as good as a password: it is not repeated.
fn without_address(e: reqwest::Error) -> reqwest::Error {
    e.without_url()
}

/// Success, or what the receiver said.
async fn accepted(answer: reqwest::Response) -> Result<()> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let said = answer.text().await.unwrap_or_default();
    let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(error::source(format!("it answered {status}: {said}")))
}

/// Posts a JSON document.
async fn post(
    http: &reqwest::Client,
    url: url::Url,
    token: Option<&crate::config::SecretRef>,
    document: &serde_json::Value,
) -> Result<()> {
    use secrecy::ExposeSecret;
    let mut request = http.post(url).json(document);
    if let Some(token) = token {
        request = request.bearer_auth(token.resolve()?.expose_secret());
    }
    let answer = request
        .send()
        .await
        .map_err(without_address)
        .or_err(ErrorKind::Source, || "it cannot be reached".to_owned())?;
    accepted(answer).await
}

#[cfg(test)]
mod tests;
