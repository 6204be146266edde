//! `[service.telemetry]`: where spans of OpenTelemetry go.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::alerts::plain_url;
use super::raw::Located;
use super::raw_secret::RawSecret;
use super::read::text;
use super::repository::secret;
use super::secret::SecretRef;
use super::source::Source;
use crate::error::Result;

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// A collector that speaks OTLP over HTTP; `/v1/traces` below it takes spans.
    pub otlp: Url,
    /// Headers of requests to it.
    pub headers: BTreeMap<String, SecretRef>,
    /// What this program is called there; `None`: as `OTEL_SERVICE_NAME` says, else `lifeboat`.
    pub service_name: Option<String>,
}

/// Where spans of OpenTelemetry go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Telemetry")]
pub(super) struct RawTelemetry {
    /// Address of a collector that speaks OTLP over HTTP (protobuf), such as `http://collector:4318`; `/v1/traces` is added.
    otlp: Located<String>,
    /// Headers of requests to it, such as a token.
    #[serde(default)]
    headers: BTreeMap<String, Located<RawSecret>>,
    /// What this program is called there; default `lifeboat`.
    service_name: Option<Located<String>>,
}

/// Judges `[service.telemetry]`.
pub(super) fn telemetry(source: &Source, raw: RawTelemetry) -> Result<TelemetryConfig> {
    let otlp = plain_url(source, &raw.otlp, "http://collector:4318", "headers = { Authorization = { env = \"…\" } }")?;
    if otlp.query().is_some() || otlp.fragment().is_some() {
        return Err(source.error(&raw.otlp.span, "the address of a collector has no query and no fragment"));
    }
    let mut headers = BTreeMap::new();
    for (name, value) in raw.headers {
        if !is_header(&name) {
            return Err(source
                .error(&value.span, "the name of this header is not one of HTTP")
                .hint("use letters, digits and `-`"));
        }
        headers.insert(name, secret(source, value)?);
    }
    let service_name = raw.service_name.map(|name| text(source, "service_name", &name)).transpose()?;
    Ok(TelemetryConfig { otlp, headers, service_name })
}

fn is_header(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}
