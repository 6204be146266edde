//! Against real servers: HTTP by axum, SMTP by a few lines that speak it.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::any;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::config::{AlertSeverity, SecretRef, Smtp, SmtpTls};
use crate::service::alerts::{Alert, Condition};

type Heard = (Uri, HeaderMap, String);

/// A server that tells what it heard and answers with `status`.
async fn server(status: StatusCode) -> (SocketAddr, mpsc::UnboundedReceiver<Heard>) {
    let (tell, heard) = mpsc::unbounded_channel();
    let answer = move |State(tell): State<mpsc::UnboundedSender<Heard>>, uri: Uri, headers: HeaderMap, body: String| async move {
        tell.send((uri, headers, body)).expect("the test listens");
        (status, "said so")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, axum::Router::new().fallback(any(answer)).with_state(tell)).into_future());
    (address, heard)
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
}

fn firing(condition: Condition, summary: &str) -> Firing {
    let mut alert = Alert::of_service(condition, AlertSeverity::Critical, summary)
        .meaning("new work is not safe")
        .todo("lifeboat show -e production");
    alert.key.environment = Some("production".into());
    alert.owner = Some("erp".into());
    Firing { alert, since: at(0), seen: at(60), silenced_by: None }
}

fn tell(receiver: &str) -> Tell {
    Tell {
        receiver: receiver.into(),
        group: format!("{receiver}/production/critical"),
        firing: vec![firing(Condition::RpoMissed, "5 min of work would be lost now")],
        resolved: vec![firing(Condition::WalGap, "WAL is missing")],
    }
}

async fn send(receiver: Receiver) -> Result<()> {
    let channels = Channels::new("backup-1").expect("channels");
    channels.tell(&[("oncall".to_owned(), receiver)].into(), &tell("oncall"), at(60)).await
}

#[tokio::test]
async fn an_alertmanager_gets_labels_annotations_and_ends() {
    let (address, mut heard) = server(StatusCode::OK).await;
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "s3cret\n").expect("written");
    let token = Some(SecretRef::File(secret.path().to_owned()));
    let url = format!("http://{address}/alerting/").parse().expect("an address");
    send(Receiver::Alertmanager { url, token }).await.expect("told");
    let (uri, headers, body) = heard.recv().await.expect("a request");
    assert_eq!(uri.path(), "/alerting/api/v2/alerts");
    assert_eq!(headers["authorization"], "Bearer s3cret");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body[0]["labels"]["alertname"], "LifeboatRpoMissed");
    assert_eq!(body[0]["labels"]["environment"], "production");
    assert_eq!(body[0]["labels"]["severity"], "critical");
    assert!(body[0]["labels"].get("instance").is_none(), "two instances tell the same alert");
    assert_eq!(body[0]["annotations"]["description"], "new work is not safe\nlifeboat show -e production");
    let time =
        |value: &serde_json::Value| value.as_str().and_then(|t| t.parse::<DateTime<Utc>>().ok()).expect("a time");
    assert_eq!(time(&body[0]["startsAt"]), at(0));
    assert!(time(&body[0]["endsAt"]) > at(120), "lives until it is sent anew");
    assert_eq!(body[1]["labels"]["alertname"], "LifeboatWalGap");
    assert_eq!(time(&body[1]["endsAt"]), at(60), "is over");
}

#[tokio::test]
async fn a_webhook_gets_one_document() {
    let (address, mut heard) = server(StatusCode::NO_CONTENT).await;
    let url = format!("http://{address}/hook?key=1").parse().expect("an address");
    send(Receiver::Webhook { url, token: None }).await.expect("told");
    let (uri, _, body) = heard.recv().await.expect("a request");
    assert_eq!(uri.to_string(), "/hook?key=1");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["status"], "firing");
    assert_eq!(body["alerts"][0]["condition"], "rpo_missed");
    assert_eq!(body["alerts"][0]["todo"][0], "lifeboat show -e production");
    assert_eq!(body["alerts"][1]["status"], "resolved");
}

#[tokio::test]
async fn a_refusal_is_told_without_the_address() {
    let (address, _heard) = server(StatusCode::FORBIDDEN).await;
    let url = format!("http://{address}/hook/s3cret").parse().expect("an address");
    let error = send(Receiver::Webhook { url, token: None }).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Source);
    assert_eq!(error.message(), "cannot tell \"oncall\" (webhook): it answered 403 Forbidden: said so");
}

#[tokio::test]
async fn nobody_there_is_told_without_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let url = format!("http://{free}/hook/s3cret").parse().expect("an address");
    let error = send(Receiver::Webhook { url, token: None }).await.expect_err("nobody there");
    assert!(error.message().contains("cannot be reached"), "{error}");
    assert!(!error.message().contains("s3cret"), "{error}");
}

/// A mail server for one mail (RFC 5321); gives back what it was told.
async fn mail_server() -> (SocketAddr, tokio::task::JoinHandle<(Vec<String>, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let (mut commands, mut mail) = (Vec::new(), String::new());
        write.write_all(b"220 here\r\n").await.expect("written");
        while let Some(line) = lines.next_line().await.expect("read") {
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            commands.push(line);
            match verb.as_str() {
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await.expect("written");
                    while let Some(line) = lines.next_line().await.expect("read") {
                        if line == "." {
                            break;
                        }
                        mail += &format!("{line}\n");
                    }
                    write.write_all(b"250 taken\r\n").await.expect("written");
                }
                "QUIT" => {
                    write.write_all(b"221 bye\r\n").await.expect("written");
                    break;
                }
                _ => write.write_all(b"250 ok\r\n").await.expect("written"),
            }
            if !mail.is_empty() {
                break;
            }
        }
        (commands, mail)
    });
    (address, serving)
}

#[tokio::test]
async fn a_mail_says_in_its_subject_what_is_wrong() {
    let (address, serving) = mail_server().await;
    let smtp = Smtp {
        host: address.ip().to_string(),
        port: address.port(),
        tls: SmtpTls::None,
        login: None,
        from: "Lifeboat <lifeboat@example.org>".into(),
    };
    let to = vec!["erp@example.org".into(), "boss@example.org".into()];
    send(Receiver::Email { to, smtp }).await.expect("told");
    let (commands, mail) = serving.await.expect("served");
    assert!(commands.iter().any(|c| c.contains("<boss@example.org>")), "{commands:?}");
    assert!(mail.contains("Subject: [critical] production: 5 min of work would be lost now"), "{mail}");
    assert!(mail.contains("Auto-Submitted: auto-generated"), "{mail}");
    assert!(mail.contains("what to do: lifeboat show -e production"), "{mail}");
    assert!(mail.contains("Over:\n  production: WAL is missing"), "{mail}");
}
