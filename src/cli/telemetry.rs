//! OpenTelemetry: spans leave this process by OTLP over HTTP, where `[service.telemetry]` says so, or the environment
//! variables that OpenTelemetry itself defines.
//!
//! Promises: no work waits for a collector. A span that ends goes into a queue of bounded length, or is dropped where it
//! is full; a thread of its own sends what is in the queue, and gives up after [`PATIENCE`]; at the end of the process what
//! is left has [`LAST_WORDS`]. That a collector is not reached is told once, until it is reached again. Headers are
//! fetched when they are first needed, and again for each batch that could not be sent without them; no message holds one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::noop::NoopTracerProvider;
use opentelemetry::{Key, KeyValue, global};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use url::Url;

use super::context::host_name;
use super::trace::Trace;
use crate::config::{SecretRef, TelemetryConfig};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::runtime::{Runtime, blocking};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the process waits for what was not sent yet.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A collector that is busy or being restarted is asked again, once and soon.
const RETRIES: usize = 1;
/// Where spans go, if the configuration does not say; the first is for spans alone.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// What is seen of a command from elsewhere.
#[derive(Clone, Default)]
pub(super) struct Observation {
    /// Its own span and those below.
    pub(super) trace: Trace,
    telemetry: Arc<Mutex<Telemetry>>,
}

impl Observation {
    /// Where spans go.
    pub(super) fn telemetry(&self) -> MutexGuard<'_, Telemetry> {
        self.telemetry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the spans of this process go.
#[derive(Default)]
pub(super) struct Telemetry {
    /// As it was last asked for.
    config: Option<TelemetryConfig>,
    /// What spans were or are given to. Those before stay, because spans that began with them end with them.
    providers: Vec<SdkTracerProvider>,
}

impl Telemetry {
    /// Has spans go where `config` says, or the environment; `instance` is the service's. What is wrong is told to `runtime`; the work goes on without.
    pub(super) fn begin(&mut self, config: Option<&TelemetryConfig>, instance: Option<&str>, runtime: &Runtime) {
        let of_environment = || ENDPOINTS.iter().find_map(|name| variable(name));
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return;
        }
        let Some(endpoint) = config.map(|config| config.otlp.to_string()).or_else(of_environment) else { return };
        match provider(config, &endpoint, instance, runtime) {
            Ok(provider) => {
                global::set_tracer_provider(provider.clone());
                self.providers.push(provider);
                // A command would say it every time.
                if instance.is_some() {
                    runtime.emit(Event::Note(format!("traces go to {}", place(&endpoint))));
                }
            }
            Err(failure) => {
                let text = format!("no traces are sent: {}", failure.message());
                runtime.emit(Event::Warning(text));
            }
        }
        self.config = config.cloned();
    }

    /// Follows a configuration that was loaded again.
    pub(super) fn follow(&mut self, config: Option<&TelemetryConfig>, instance: Option<&str>, runtime: &Runtime) {
        if self.config.as_ref() != config {
            global::set_tracer_provider(NoopTracerProvider::new());
            self.config = None;
            self.begin(config, instance, runtime);
        }
    }

    /// Sends what was not sent yet; within bounds.
    pub(super) fn end(&mut self) {
        for provider in self.providers.drain(..) {
            // That it failed was told by whoever sends.
            let _ = provider.shutdown_with_timeout(LAST_WORDS);
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn provider(
    config: Option<&TelemetryConfig>,
    endpoint: &str,
    instance: Option<&str>,
    runtime: &Runtime,
) -> Result<SdkTracerProvider> {
    let headers = config.map(|config| config.headers.clone()).unwrap_or_default();
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(PATIENCE)
        .with_retry_policy(RetryPolicy::recommended().with_max_retries(RETRIES))
        .with_headers(HashMap::new())
        .with_http_client(Client::new(endpoint, headers, runtime)?);
    if let Some(config) = config {
        exporter = exporter.with_endpoint(format!("{}/v1/traces", config.otlp.as_str().trim_end_matches('/')));
    }
    let exporter = exporter.build().or_err(ErrorKind::Config, || format!("traces cannot go to {}", place(endpoint)))?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(config, instance)).build())
}

/// What this process says of itself.
fn resource(config: Option<&TelemetryConfig>, instance: Option<&str>) -> Resource {
    let mut said = vec![
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("host.name", host_name()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    said.extend(instance.map(|name| KeyValue::new("service.instance.id", name.to_owned())));
    let found = Resource::builder().build().get(&Key::new("service.name")).map(|name| name.to_string());
    // Where neither says it, OpenTelemetry makes one up.
    let found = found.filter(|name| !name.starts_with("unknown_service"));
    let name = config.and_then(|config| config.service_name.clone()).or(found);
    Resource::builder().with_attributes(said).with_service_name(name.unwrap_or_else(|| "lifeboat".to_owned())).build()
}

/// A collector as messages name it: without credentials that an environment variable may hold.
fn place(endpoint: &str) -> String {
    match Url::parse(endpoint) {
        Ok(url) if url.has_host() => url.origin().ascii_serialization(),
        _ => "the collector".to_owned(),
    }
}

/// Sends requests on the runtime of the program, because the exporter's own thread has none.
#[derive(Clone)]
struct Client(Arc<Sending>);

struct Sending {
    http: reqwest::Client,
    on: Handle,
    secrets: BTreeMap<String, SecretRef>,
    headers: OnceCell<HeaderMap>,
    place: String,
    failing: Mutex<bool>,
    runtime: Runtime,
}

impl Client {
    fn new(endpoint: &str, secrets: BTreeMap<String, SecretRef>, runtime: &Runtime) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .build()
            .or_err(ErrorKind::Internal, || "cannot make a client for HTTP".to_owned())?;
        Ok(Self(Arc::new(Sending {
            http,
            on: Handle::current(),
            secrets,
            headers: OnceCell::new(),
            place: place(endpoint),
            failing: Mutex::new(false),
            runtime: runtime.clone(),
        })))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("place", &self.0.place).finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> std::result::Result<Response<Bytes>, HttpError> {
        let sending = self.0.clone();
        self.0.on.spawn(async move { sending.send(request).await }).await?
    }
}

impl Sending {
    async fn send(&self, mut request: Request<Bytes>) -> std::result::Result<Response<Bytes>, HttpError> {
        let answer = match self.headers.get_or_try_init(|| headers(&self.secrets)).await {
            Ok(headers) => {
                request.headers_mut().extend(headers.clone());
                self.http.send_bytes(request).await
            }
            Err(failure) => Err(failure.message().into()),
        };
        self.note(match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(failure) => Some(innermost(failure.as_ref())),
        });
        answer
    }

    /// Tells what changed.
    fn note(&self, trouble: Option<String>) {
        let before = {
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *failing, trouble.is_some())
        };
        let place = &self.place;
        match (before, trouble) {
            (false, Some(why)) => self.runtime.emit(Event::Warning(format!(
                "traces do not reach {place}: {why}; nothing else depends on them, and this is told once"
            ))),
            (true, None) => self.runtime.emit(Event::Note(format!("traces reach {place} again"))),
            _ => {}
        }
    }
}

/// The first cause; what is around it may repeat the address, with all that it holds.
fn innermost(failure: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = failure;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Fetches the secrets, which may take a program's time.
async fn headers(secrets: &BTreeMap<String, SecretRef>) -> Result<HeaderMap> {
    let secrets = secrets.clone();
    blocking(move || {
        let mut headers = HeaderMap::new();
        for (name, secret) in secrets {
            let cannot = || format!("{secret} is no value for the header {name}");
            let value = secret.resolve()?;
            let mut value = HeaderValue::from_str(value.expose_secret()).or_err(ErrorKind::Config, cannot)?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes()).or_err(ErrorKind::Config, cannot)?, value);
        }
        Ok(headers)
    })
    .await
}
