//! Sign-in by an identity provider: OpenID Connect, authorisation code with PKCE.
//!
//! ```text
//! /login/oidc ─▶ provider (state, nonce, challenge) ─▶ /login/oidc/callback (code, state)
//!    cookie: this browser began it                        └▶ token endpoint (code, verifier) ─▶ ID token
//! signature by a key of the provider · issuer · audience · time · nonce ─▶ name, groups ─▶ role
//! ```
//!
//! What the provider says is believed only after all of these hold. A login that began elsewhere, is late or comes
//! twice is refused: the state is known once, and belongs to the browser that began.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;
use url::Url;

use super::secrets;
use super::visitor::Visitor;
use crate::config::{OidcConfig, Role};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::evidence::approval::KnownBy;

/// How long a login may take.
const LASTS: TimeDelta = TimeDelta::minutes(10);
/// Logins under way at once; beyond, the oldest is forgotten.
const MOST: usize = 1_000;
/// How long the provider may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// No document of a provider is longer.
const LONGEST: usize = 1 << 20;
/// Keys are fetched again for a token with an unknown one, but not more often than this.
const KEYS_AGAIN: TimeDelta = TimeDelta::minutes(1);
/// Signatures of ID tokens that count: none with a shared secret, and never `none`.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// An identity provider, and the logins under way.
#[derive(Debug)]
pub(crate) struct Oidc {
    config: OidcConfig,
    redirect: String,
    client: reqwest::Client,
    provider: AsyncMutex<Option<Provider>>,
    pending: Mutex<HashMap<String, Pending>>,
}

/// What the provider says about itself.
#[derive(Debug, Clone, Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
}

#[derive(Debug, Clone)]
struct Provider {
    discovery: Discovery,
    keys: JwkSet,
    keys_at: DateTime<Utc>,
}

/// A login under way.
#[derive(Debug, Clone)]
struct Pending {
    browser: [u8; 32],
    nonce: String,
    verifier: String,
    next: String,
    began: DateTime<Utc>,
}

/// Where a browser goes to sign in, and the secret that it keeps as a cookie meanwhile.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) address: String,
    pub(crate) browser: String,
}

#[derive(Debug, Deserialize)]
struct Tokens {
    id_token: String,
}

#[derive(Debug, Deserialize)]
struct Claims {
    nonce: Option<String>,
    azp: Option<String>,
    aud: Value,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Oidc {
    /// A provider; `public_url` is where it sends people back to. It is asked for nothing yet.
    ///
    /// # Errors
    /// Internal where no client for HTTP can be made.
    pub(crate) fn new(config: &OidcConfig, public_url: &Url) -> Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .build()
            .or_err(ErrorKind::Internal, || "cannot make a client for HTTP".to_owned())?;
        let redirect = public_url
            .join("/login/oidc/callback")
            .or_err(ErrorKind::Config, || "`public_url` does not serve as the beginning of an address".to_owned())?;
        Ok(Self {
            config: config.clone(),
            redirect: redirect.into(),
            client,
            provider: AsyncMutex::new(None),
            pending: Mutex::new(HashMap::new()),
        })
    }

    /// Begins a login that shall lead to the page `next`.
    pub(crate) async fn begin(&self, next: &str, now: DateTime<Utc>) -> Result<Begun> {
        let discovery = self.provider(now).await?.discovery;
        let mut address = Url::parse(&discovery.authorization_endpoint)
            .or_err(ErrorKind::Source, || "the identity provider's authorization_endpoint is no address".to_owned())?;
        let (state, browser) = (secrets::random()?, secrets::random()?);
        let (nonce, verifier) = (secrets::random()?, secrets::random()?);
        let mut scopes = vec!["openid".to_owned()];
        scopes.extend(self.config.scopes.iter().filter(|scope| *scope != "openid").cloned());
        address
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &secrets::challenge(&verifier))
            .append_pair("code_challenge_method", "S256");
        let mut pending = self.locked();
        pending.retain(|_, login| now - login.began < LASTS);
        if pending.len() >= MOST
            && let Some(oldest) = pending.iter().min_by_key(|(_, login)| login.began).map(|(state, _)| state.clone())
        {
            pending.remove(&oldest);
        }
        let login = Pending { browser: secrets::hash(&browser), nonce, verifier, next: next.to_owned(), began: now };
        pending.insert(state, login);
        Ok(Begun { address: address.into(), browser })
    }

    /// Ends a login: who it is, and the page that he wanted.
    ///
    /// # Errors
    /// Denied where anything about it is not as it must be; source where the provider does not answer.
    pub(crate) async fn finish(
        &self,
        state: &str,
        code: &str,
        browser: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<(Visitor, String)> {
        let login = self.locked().remove(state);
        let login = login
            .filter(|login| now - login.began < LASTS)
            .ok_or_else(|| error::denied("this sign-in is not known, or took too long").hint("sign in again"))?;
        if secrets::find(&secrets::hash(browser.unwrap_or_default()), [(&login.browser, ())]).is_none() {
            return Err(error::denied("this sign-in began in another browser").hint("sign in again"));
        }
        let token = self.exchange(code, &login.verifier, now).await?;
        let claims = self.verified(&token, &login.nonce, now).await?;
        Ok((self.visitor(&claims)?, login.next))
    }

    /// Changes the code for an ID token.
    async fn exchange(&self, code: &str, verifier: &str, now: DateTime<Utc>) -> Result<String> {
        let discovery = self.provider(now).await?.discovery;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.redirect.as_str()),
            ("code_verifier", verifier),
            ("client_id", self.config.client_id.as_str()),
        ];
        let mut request = self.client.post(&discovery.token_endpoint).form(&form);
        if let Some(reference) = &self.config.client_secret {
            // RFC 6749, section 2.3.1: both are encoded as in a form before they become a user and a password.
            let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let secret = reference.resolve()?;
            request = request.basic_auth(encoded(&self.config.client_id), Some(encoded(secret.expose_secret())));
        }
        let tokens: Tokens = document(request, "the token endpoint").await?;
        Ok(tokens.id_token)
    }

    /// The claims of an ID token that holds in every respect.
    async fn verified(&self, token: &str, nonce: &str, now: DateTime<Utc>) -> Result<Claims> {
        let refuse = |why: &str| error::denied(format!("the identity provider's token does not hold: {why}"));
        let header = decode_header(token).map_err(|_| refuse("it cannot be read"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(refuse("it is not signed in a way that counts"));
        }
        let key = self.key(header.kid.as_deref(), now).await?.ok_or_else(|| refuse("its key is not the provider's"))?;
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[&self.config.client_id]);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        let claims = decode::<Claims>(token, &key, &validation).map_err(|e| refuse(&e.to_string()))?.claims;
        if !claims.nonce.as_deref().is_some_and(|theirs| secrets::same(theirs, nonce)) {
            return Err(refuse("it was not made for this sign-in"));
        }
        let several = claims.aud.as_array().is_some_and(|audiences| audiences.len() > 1);
        let for_us = claims.azp.as_deref().map_or(!several, |azp| azp == self.config.client_id);
        if !for_us {
            return Err(refuse("it was made for another program"));
        }
        Ok(claims)
    }

    /// The provider's key with this name, or its only one.
    async fn key(&self, name: Option<&str>, now: DateTime<Utc>) -> Result<Option<DecodingKey>> {
        let find = |keys: &JwkSet| match (name, keys.keys.as_slice()) {
            (Some(name), _) => keys.find(name).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        };
        let provider = self.provider(now).await?;
        let mut found = find(&provider.keys);
        if found.is_none() && now - provider.keys_at > KEYS_AGAIN {
            let keys: JwkSet = document(self.client.get(&provider.discovery.jwks_uri), "its keys").await?;
            found = find(&keys);
            *self.provider.lock().await = Some(Provider { keys, keys_at: now, ..provider });
        }
        Ok(found.and_then(|key| DecodingKey::from_jwk(&key).ok()))
    }

    /// What the provider says about itself, asked once.
    async fn provider(&self, now: DateTime<Utc>) -> Result<Provider> {
        let mut known = self.provider.lock().await;
        if let Some(provider) = &*known {
            return Ok(provider.clone());
        }
        let address = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let discovery: Discovery = document(self.client.get(address), "its description").await?;
        if discovery.issuer != self.config.issuer {
            return Err(error::config(format!(
                "the identity provider calls itself {}, the configuration {}",
                discovery.issuer, self.config.issuer
            ))
            .hint("write `issuer` exactly as the provider does"));
        }
        let keys: JwkSet = document(self.client.get(&discovery.jwks_uri), "its keys").await?;
        Ok(known.insert(Provider { discovery, keys, keys_at: now }).clone())
    }

    /// Name and role, from the claims.
    fn visitor(&self, claims: &Claims) -> Result<Visitor> {
        let name = claims.others.get(&self.config.name_claim).and_then(Value::as_str).map(str::trim);
        let name = name.filter(|name| !name.is_empty() && name.len() <= 200 && !name.contains(char::is_control));
        let name = name.ok_or_else(|| {
            error::denied(format!("the identity provider tells no name (claim {})", self.config.name_claim)).hint(
                "set `name_claim` in [service.http.oidc] to a claim that it has, and `scopes` so that it tells it",
            )
        })?;
        let role = role(claims, &self.config.role_claim, &self.config.roles).ok_or_else(|| {
            error::denied(format!("{name} has no role here"))
                .hint(format!("an administrator maps one of your groups (claim {}) to a role", self.config.role_claim))
        })?;
        let (name, known_by) = (name.to_owned(), KnownBy::Oidc);
        Ok(Visitor { name, known_by, role, environments: None, session: None })
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The highest role that the values of a claim lead to.
fn role(claims: &Claims, path: &str, roles: &BTreeMap<String, Role>) -> Option<Role> {
    // A claim may have dots in its own name (a URL, at some providers).
    let whole = claims.others.get(path);
    let value = whole.or_else(|| {
        let mut parts = path.split('.');
        let first = claims.others.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    })?;
    let values: Vec<&str> = match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::String(one) => vec![one],
        _ => Vec::new(),
    };
    values.into_iter().filter_map(|value| roles.get(value)).copied().max()
}

/// A JSON document of the provider, of bounded length.
async fn document<T: DeserializeOwned>(request: reqwest::RequestBuilder, what: &str) -> Result<T> {
    let away = || format!("the identity provider does not answer ({what})");
    let mut response = request.send().await.map_err(reqwest::Error::without_url).or_err(ErrorKind::Source, away)?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(reqwest::Error::without_url).or_err(ErrorKind::Source, away)?
    {
        if bytes.len() + chunk.len() > LONGEST {
            return Err(error::source(format!("the identity provider's answer is too long ({what})")));
        }
        bytes.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        // `error` of RFC 6749 is a word from a list; anything else stays out of messages.
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let word = said["error"].as_str().filter(|word| word.len() < 60 && word.chars().all(|c| c.is_ascii_graphic()));
        let word = word.map(|word| format!(": {word}")).unwrap_or_default();
        return Err(error::source(format!("the identity provider says {status}{word} ({what})")));
    }
    serde_json::from_slice(&bytes)
        .or_err(ErrorKind::Source, || format!("the identity provider's answer is no JSON ({what})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_role_counts_and_claims_may_be_deep_or_have_dots() {
        let claims: Claims = serde_json::from_value(serde_json::json!({
            "aud": "lifeboat",
            "groups": ["staff", "sre", "dba"],
            "realm_access": { "roles": ["admin"] },
            "https://shop.example/role": "sre",
            "single": "dba",
            "number": 5,
        }))
        .expect("claims");
        let roles = BTreeMap::from([("sre".to_owned(), Role::Operator), ("dba".to_owned(), Role::Approver)]);
        let of = |path: &str| role(&claims, path, &roles);
        assert_eq!(of("groups"), Some(Role::Approver));
        assert_eq!(of("single"), Some(Role::Approver));
        assert_eq!(of("https://shop.example/role"), Some(Role::Operator));
        assert_eq!(of("realm_access.roles"), None, "admin is not mapped");
        for nothing in ["absent", "number", "groups.x", "realm_access", ""] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }
}
