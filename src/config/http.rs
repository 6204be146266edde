//! `[service.http]`: where the page and the API of the service listen, and who may see and do what.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::raw::Located;
use super::raw_secret::RawSecret;
use super::read::text;
use super::repository::{optional_secret, positive};
use super::secret::SecretRef;
use super::source::Source;
use crate::error::Result;
use crate::units::Span;

/// What somebody may do; each role may do what those before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees the state of the estate.
    Viewer,
    /// Reads and verifies ledgers and the audit log.
    Auditor,
    /// Starts and stops jobs, plans restores, asks for approvals.
    Operator,
    /// Approves restores.
    Approver,
    /// Ends the sessions of others.
    Admin,
}

impl Role {
    /// All of them, least first.
    pub const ALL: [Role; 5] = [Role::Viewer, Role::Auditor, Role::Operator, Role::Approver, Role::Admin];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Auditor => "auditor",
            Role::Operator => "operator",
            Role::Approver => "approver",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The page and the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// What users type to get there: scheme, host, port. Present where `oidc` is.
    pub public_url: Option<Url>,
    /// Certificate and key; `None`: plain HTTP, on a loopback address or behind a proxy.
    pub tls: Option<TlsFiles>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Static tokens, each with a name of its own.
    pub tokens: Vec<TokenConfig>,
    /// Sign-in by an identity provider.
    pub oidc: Option<OidcConfig>,
    /// Requests that one client may make in a second; three times as many at once.
    pub client_rate: u32,
    /// Requests that all clients together may make in a second.
    pub total_rate: u32,
    /// How long somebody stays signed in.
    pub session_lasts: Duration,
}

/// Certificate and key of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the certificate and those between it and the root.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// A static token, known by its hash only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenConfig {
    /// Whose it is.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// Environments that it may see; `None`: all.
    pub environments: Option<Vec<String>>,
}

/// An identity provider that speaks OpenID Connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// Its address; `/.well-known/openid-configuration` below it describes it.
    pub issuer: String,
    /// The name by which it knows this service.
    pub client_id: String,
    /// The secret that goes with it; `None` for a public client.
    pub client_secret: Option<SecretRef>,
    /// The claim that names the person.
    pub name_claim: String,
    /// The claim that holds groups or roles; dots go down into objects.
    pub role_claim: String,
    /// Scopes beside `openid`.
    pub scopes: Vec<String>,
    /// From values of `role_claim` to roles; who has none of them may not sign in.
    pub roles: BTreeMap<String, Role>,
}

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?),
            None => {
                let address: IpAddr = text.parse().ok()?;
                (address, if address.is_ipv4() { 32 } else { 128 })
            }
        };
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, bits })
    }

    /// Whether `other` begins like it.
    pub fn contains(&self, other: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, width: u8| {
            let shift = u32::from(width - self.bits);
            ours.checked_shr(shift).unwrap_or(0) == theirs.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, other.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => same(ours.to_bits().into(), theirs.to_bits().into(), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

/// The page and the API of the service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ServiceHttp")]
pub(super) struct RawHttpService {
    /// Address and port; default `127.0.0.1:8420`.
    listen: Option<Located<String>>,
    /// What users type to get there, such as `https://lifeboat.example.org`; needed for `oidc`.
    public_url: Option<Located<String>>,
    /// Certificate and key; absent: plain HTTP, for loopback or behind a proxy.
    tls: Option<RawTls>,
    /// Addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    #[serde(default)]
    trusted_proxies: Vec<Located<String>>,
    /// Static tokens.
    #[serde(default)]
    token: Vec<RawToken>,
    /// Sign-in by an identity provider.
    oidc: Option<RawOidc>,
    /// Requests that one client may make in a second, three times as many at once; default 20.
    client_rate: Option<Located<u32>>,
    /// Requests that all clients together may make in a second; default 200.
    total_rate: Option<Located<u32>>,
    /// How long somebody stays signed in; default `8h`.
    session_lasts: Option<Located<Span>>,
}

/// Certificate and key of the server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ServiceTls")]
struct RawTls {
    /// PEM file with the certificate and those between it and the root.
    certificate: Located<String>,
    /// PEM file with its private key.
    key: Located<String>,
}

/// A static token, known by its hash only.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ServiceToken")]
struct RawToken {
    /// Whose it is; appears in ledgers and in the audit log.
    name: Located<String>,
    /// What it allows: `viewer`, `auditor`, `operator`, `approver` or `admin`.
    role: Role,
    /// SHA-256 of the token in hex; `lifeboat service token` makes both.
    sha256: Located<String>,
    /// Environments that it may see; absent: all.
    environments: Option<Located<Vec<Located<String>>>>,
}

/// An identity provider that speaks OpenID Connect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ServiceOidc")]
struct RawOidc {
    /// Its address, `https://…`, as it stands in its tokens.
    issuer: Located<String>,
    /// The name by which it knows this service.
    client_id: Located<String>,
    /// The secret that goes with it; absent for a public client.
    client_secret: Option<Located<RawSecret>>,
    /// The claim that names the person; default `preferred_username`.
    name_claim: Option<Located<String>>,
    /// The claim that holds groups or roles, dots go down into objects; default `groups`.
    role_claim: Option<Located<String>>,
    /// Scopes beside `openid`; default `["profile"]`.
    scopes: Option<Vec<String>>,
    /// From values of `role_claim` to roles; who has none of them may not sign in.
    roles: Located<BTreeMap<String, Role>>,
}

const DEFAULT_LISTEN: &str = "127.0.0.1:8420";
const DEFAULT_SESSION: Duration = Duration::from_secs(8 * 3600);
const DEFAULT_CLIENT_RATE: u32 = 20;
const DEFAULT_TOTAL_RATE: u32 = 200;

/// Judges `[service.http]`.
pub(super) fn http(source: &Source, raw: RawHttpService) -> Result<HttpConfig> {
    let listen = listen(source, raw.listen.as_ref())?;
    let trusted_proxies = raw.trusted_proxies.iter().map(|proxy| network(source, proxy)).collect::<Result<Vec<_>>>()?;
    let tls = raw.tls.map(|tls| TlsFiles {
        certificate: source.resolve(&tls.certificate.value),
        key: source.resolve(&tls.key.value),
    });
    if let (Some(raw), None, true, false) = (&raw.listen, &tls, trusted_proxies.is_empty(), listen.ip().is_loopback()) {
        return Err(source
            .error(&raw.span, format!("{listen} can be reached from elsewhere, and there is no [service.http.tls]"))
            .meaning("tokens and sessions would cross the network in clear text")
            .hint("give certificate and key, or listen on 127.0.0.1, or name the proxy that does TLS in `trusted_proxies`"));
    }
    let public_url = raw.public_url.as_ref().map(|url| public_url(source, url)).transpose()?;
    if let (Some(oidc), None) = (&raw.oidc, &public_url) {
        return Err(source
            .error(&oidc.issuer.span, "`oidc` needs `public_url`: the identity provider sends people back to it")
            .hint("write public_url = \"https://…\" in [service.http]"));
    }
    let rate = |key: &str, raw: Option<Located<u32>>, default| match raw {
        Some(rate) if !(1..=1_000_000).contains(&rate.value) => {
            Err(source.error(&rate.span, format!("`{key}` is not between 1 and 1000000")))
        }
        rate => Ok(rate.map_or(default, |l| l.value)),
    };
    Ok(HttpConfig {
        listen,
        public_url,
        tls,
        trusted_proxies,
        tokens: tokens(source, raw.token)?,
        oidc: raw.oidc.map(|raw| oidc(source, raw)).transpose()?,
        client_rate: rate("client_rate", raw.client_rate, DEFAULT_CLIENT_RATE)?,
        total_rate: rate("total_rate", raw.total_rate, DEFAULT_TOTAL_RATE)?,
        session_lasts: raw
            .session_lasts
            .map(|l| positive(source, "session_lasts", &l))
            .transpose()?
            .unwrap_or(DEFAULT_SESSION),
    })
}

fn listen(source: &Source, raw: Option<&Located<String>>) -> Result<SocketAddr> {
    let text = raw.map_or(DEFAULT_LISTEN, |l| &l.value);
    text.parse().map_err(|_| {
        let span = raw.map_or(0..0, |l| l.span.clone());
        source
            .error(&span, "`listen` is not an address with a port")
            .hint("write for example 127.0.0.1:8420 or [::1]:8420; names are not looked up")
    })
}

fn network(source: &Source, raw: &Located<String>) -> Result<Network> {
    Network::parse(raw.value.trim()).ok_or_else(|| {
        source.error(&raw.span, "this is not an address or a network").hint("write for example 10.1.2.3 or 10.0.0.0/8")
    })
}

fn public_url(source: &Source, raw: &Located<String>) -> Result<Url> {
    let ok = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
    };
    Url::parse(&raw.value).ok().filter(ok).ok_or_else(|| {
        source
            .error(&raw.span, "`public_url` is not of the form https://host or https://host:port")
            .hint("the page is served at the root of its host, not below a path")
    })
}

fn tokens(source: &Source, raw: Vec<RawToken>) -> Result<Vec<TokenConfig>> {
    let mut tokens: Vec<TokenConfig> = Vec::new();
    for token in raw {
        let name = text(source, "name", &token.name)?;
        if tokens.iter().any(|known| known.name == name) {
            return Err(source.error(&token.name.span, format!("the token \"{name}\" is defined twice")));
        }
        let mut sha256 = [0; 32];
        hex::decode_to_slice(token.sha256.value.trim(), &mut sha256).map_err(|_| {
            // Never repeated: it may be the token itself, put here by mistake.
            source
                .error(&token.sha256.span, "this is not a SHA-256 in hex, 64 digits")
                .hint("`lifeboat service token --role ROLE --name NAME` prints a token once, and these lines")
                .hint("if the token itself stood here, make another one")
        })?;
        if tokens.iter().any(|known| known.sha256 == sha256) {
            return Err(source.error(&token.sha256.span, "this token is defined twice, under two names"));
        }
        let environments = match token.environments {
            Some(list) if list.value.is_empty() => {
                return Err(source.error(&list.span, "no environment is listed, so the token could see none"));
            }
            list => list.map(|l| l.value.into_iter().map(|name| name.value).collect()),
        };
        tokens.push(TokenConfig { name, role: token.role, sha256, environments });
    }
    Ok(tokens)
}

fn oidc(source: &Source, raw: RawOidc) -> Result<OidcConfig> {
    let issuer = text(source, "issuer", &raw.issuer)?;
    let loopback = |url: &Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let sound = |url: &Url| url.scheme() == "https" || url.scheme() == "http" && loopback(url);
    if !Url::parse(&issuer).is_ok_and(|url| sound(&url) && url.query().is_none() && url.fragment().is_none()) {
        return Err(source
            .error(&raw.issuer.span, "`issuer` is not an https:// address")
            .hint("write it exactly as the provider does in its tokens, with or without a slash at its end"));
    }
    if raw.roles.value.is_empty() {
        return Err(source
            .error(&raw.roles.span, "no value of the role claim leads to a role, so nobody could sign in")
            .hint("write for example roles = { \"lifeboat-operators\" = \"operator\" }"));
    }
    let or = |key, raw: Option<&Located<String>>, default: &str| match raw {
        Some(raw) => text(source, key, raw),
        None => Ok(default.to_owned()),
    };
    Ok(OidcConfig {
        issuer,
        client_id: text(source, "client_id", &raw.client_id)?,
        client_secret: optional_secret(source, raw.client_secret)?,
        name_claim: or("name_claim", raw.name_claim.as_ref(), "preferred_username")?,
        role_claim: or("role_claim", raw.role_claim.as_ref(), "groups")?,
        scopes: raw.scopes.unwrap_or_else(|| vec!["profile".to_owned()]),
        roles: raw.roles.value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_begins_like_it() {
        let holds = |network: &str, address: &str| {
            Network::parse(network).expect("a network").contains(address.parse().expect("an address"))
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.1.2.3", "10.1.2.3") && !holds("10.1.2.3", "10.1.2.4"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::5") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db9::1") && holds("10.0.0.0/8", "::ffff:10.1.1.1"));
        for wrong in ["10.0.0.0/33", "::/129", "host", "10.0.0/8", ""] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_role_may_do_more_than_the_one_before() {
        assert!(Role::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
