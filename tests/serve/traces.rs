//! Traces of jobs, as a collector gets them: who continues whom, what they say; and that nobody needs the collector.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::*;

const ERROR: i32 = 2;

/// A collector of spans.
struct Collector {
    url: String,
    received: Received,
    /// Ends the server with the test.
    _runtime: tokio::runtime::Runtime,
}

type Received = Arc<Mutex<Vec<Got>>>;

/// A span as it came.
#[derive(Debug, Clone)]
struct Got {
    span: Span,
    service: Option<String>,
    token: Option<String>,
}

impl Got {
    fn said(&self, key: &str) -> Option<String> {
        said(&self.span.attributes, key)
    }
}

fn said(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value {
        Some(AnyValue { value: Some(Any::StringValue(text)) }) => Some(text.clone()),
        Some(AnyValue { value: Some(Any::IntValue(number)) }) => Some(number.to_string()),
        _ => None,
    }
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let received = Received::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = axum::Router::new().route("/v1/traces", post(take)).with_state(received.clone());
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { url, received, _runtime: runtime }
    }

    /// The only span that is so.
    #[track_caller]
    fn one(&self, what: &str, is: impl Fn(&Got) -> bool) -> Got {
        let received = self.received.lock().expect("no panic").clone();
        let found: Vec<&Got> = received.iter().filter(|got| is(got)).collect();
        assert_eq!(found.len(), 1, "{what}: {found:#?} of {received:#?}");
        found[0].clone()
    }
}

async fn take(State(received): State<Received>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let token = headers.get("x-token").and_then(|token| token.to_str().ok()).map(str::to_owned);
    let request = ExportTraceServiceRequest::decode(body).expect("spans");
    let mut received = received.lock().expect("no panic");
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = said(&resource, "service.name");
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        received.extend(spans.map(|span| Got { span, service: service.clone(), token: token.clone() }));
    }
    Vec::new()
}

#[test]
fn a_job_is_a_trace_that_its_process_continues() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let collector = Collector::start();
    let served = Served::new(&scratch).environment("one", &cluster.dsn(), "");
    let mut host = served.host("here");
    host.lifeboat = host.lifeboat.env("COLLECTOR_TOKEN", "hunter2").env("LIFEBOAT_LOG_FORMAT", "json");
    let mut service = host.serve();
    // It follows a reload.
    let without = fs::read_to_string(&host.config).expect("a configuration");
    let telemetry = format!(
        "[service.telemetry]\notlp = \"{}/\"\nheaders = {{ x-token = {{ env = \"COLLECTOR_TOKEN\" }} }}\n[[job]]",
        collector.url
    );
    fs::write(&host.config, without.replacen("[[job]]", &telemetry, 1)).expect("written");
    host.lifeboat.run(&["service", "reload"]).ok();
    wait_until("it is followed", PATIENCE, || service.stderr().contains("traces go to"));
    let done = host.ask_in_time("base", "one");
    assert_eq!(host.ended(&done, &mut service)["outcome"], "done");
    let failed = host.ask("filestore", "one");
    assert_eq!(host.ended(&failed, &mut service)["outcome"], "failed");
    service.signal(Signal::SIGTERM);
    let service = service.wait(PATIENCE).ok();

    let job = collector.one("the job", |got| got.span.name == "job base");
    let says = |key: &str| job.said(&format!("lifeboat.{key}"));
    assert_eq!(says("environment").as_deref(), Some("one"));
    assert_eq!((says("job").as_deref(), says("run")), (Some("base"), Some(done.clone())));
    assert_eq!((says("outcome").as_deref(), says("exit_code").as_deref()), (Some("done"), Some("0")));
    assert!(job.span.parent_span_id.is_empty() && job.span.end_time_unix_nano > job.span.start_time_unix_nano);

    let below = |got: &Got, above: &Got| {
        got.span.trace_id == above.span.trace_id && got.span.parent_span_id == above.span.span_id
    };
    let command = collector.one("its process", |got| below(got, &job));
    assert_eq!(command.span.name, "lifeboat backup base");
    assert_eq!((command.said("lifeboat.run"), command.said("lifeboat.environment")), (Some(done), Some("one".into())));
    let read = collector.one("what it did", |got| below(got, &command) && got.span.name == "reading the cluster");
    assert!(read.said("lifeboat.bytes").is_some_and(|bytes| bytes.parse::<u64>().is_ok_and(|bytes| bytes > 1 << 20)));

    let refused = collector.one("the job that failed", |got| got.span.name == "job filestore");
    assert_eq!(
        (refused.said("lifeboat.outcome").as_deref(), refused.said("lifeboat.run")),
        (Some("failed"), Some(failed))
    );
    let status = refused.span.status.clone().expect("a status");
    assert!(status.code == ERROR && status.message.contains("Odoo"), "{status:?}");

    let received = collector.received.lock().expect("no panic").clone();
    for got in &received {
        assert_eq!((got.service.as_deref(), got.token.as_deref()), (Some("lifeboat"), Some("hunter2")), "{got:?}");
        assert!(!format!("{:?}", got.span).contains("hunter2"));
    }
    assert!(!service.stderr.contains("hunter2"));
    // Logs name the trace.
    let trace = hex::encode(&job.span.trace_id);
    let logged = service.stderr.lines().filter(|line| line.contains(&format!("\"trace_id\":\"{trace}\"")));
    assert!(logged.count() > 1, "{}", service.stderr);
}

#[test]
fn the_usual_variables_lead_a_command_to_the_collector_and_into_a_trace() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let collector = Collector::start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let traced = estate.lifeboat.clone().env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let traced = traced.env("OTEL_SERVICE_NAME", "backups");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let backup = ["backup", "configuration", "-e", "production"];
    traced.clone().env("TRACEPARENT", parent).run(&backup).ok();
    let command = collector.one("the command", |got| got.span.name == "lifeboat backup configuration");
    assert_eq!(command.service.as_deref(), Some("backups"));
    assert_eq!(hex::encode(&command.span.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex::encode(&command.span.parent_span_id), "b7ad6b7169203331");
    // What PostgreSQL waits for sends nothing, and neither does what was told not to.
    let before = collector.received.lock().expect("no panic").len();
    traced.run(&["wal", "fetch", "-e", "production", "00000009.history", "nowhere"]).expect_code(1);
    traced.env("OTEL_SDK_DISABLED", "true").run(&backup).ok();
    assert_eq!(collector.received.lock().expect("no panic").len(), before);
}

#[test]
fn a_collector_that_does_not_answer_is_told_once_and_disturbs_no_job() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    // Connections to it are made, and nothing more.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let telemetry = format!("[service.telemetry]\notlp = \"http://{address}\"\n");
    let served = Served::new(&scratch).head(&telemetry).environment("one", &cluster.dsn(), "");
    let host = served.host("here");
    let mut service = host.serve();
    let warning = format!("traces do not reach http://{address}");
    for kind in ["configuration", "base"] {
        let run = host.ask_in_time(kind, "one");
        let ended = host.ended(&run, &mut service);
        assert_eq!((&ended["outcome"], &ended["exit_code"]), (&"done".into(), &0.into()), "{ended:#}");
        // The process of the job does not repeat what the service tells.
        assert!(!ended["log"].to_string().contains("traces"), "{ended:#}");
        wait_until("it is told", PATIENCE, || service.stderr().contains(&warning));
    }
    service.signal(Signal::SIGTERM);
    let service = service.wait(PATIENCE).ok();
    assert_eq!(service.stderr.matches(&warning).count(), 1, "{}", service.stderr);
    assert_eq!(host.jobs("one", "done").len(), 2);
    host.lifeboat.run(&["evidence", "verify", "-e", "one"]).ok();
    drop(silent);
}
