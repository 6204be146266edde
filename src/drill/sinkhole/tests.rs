//! The sinkhole on loopback ports, talked to by real clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};

use super::dns::tests::query;
use super::{Ports, Sinkhole};
use crate::evidence::egress_record::{Attempt, Egress};
use crate::runtime::Runtime;

struct Running {
    _dir: tempfile::TempDir,
    log: PathBuf,
    dns: SocketAddr,
    smtp: SocketAddr,
    other: SocketAddr,
    udp: [SocketAddr; 2],
    server: tokio::task::JoinHandle<crate::error::Result<()>>,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let log = dir.path().join("egress.jsonl");
        let ports = Ports { dns: vec![0], smtp: vec![0], other: vec![0], udp: vec![0] };
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let sinkhole = Sinkhole::bind_at(&loopback, &ports, &log, Runtime::silent()).expect("bound");
        let ([dns, smtp, other], [dns_udp, udp]) =
            (sinkhole.tcp()[..].try_into().expect("3"), sinkhole.udp()[..].try_into().expect("2"));
        Self { _dir: dir, log, dns, smtp, other, udp: [dns_udp, udp], server: tokio::spawn(sinkhole.serve()) }
    }

    /// Waits for `count` lines and gives them.
    async fn attempts(&self, count: usize) -> Vec<Attempt> {
        let until = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let text = std::fs::read_to_string(&self.log).expect("a log");
            if text.lines().count() >= count {
                return text.lines().map(|line| serde_json::from_str(line).expect("an attempt")).collect();
            }
            assert!(std::time::Instant::now() < until && !self.server.is_finished(), "only {text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn say(lines: &mut BufReader<TcpStream>, text: &str) -> String {
    lines.get_mut().write_all(text.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).await.expect("an answer");
        answer += &line;
        if line.as_bytes().get(3) != Some(&b'-') {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_whole_mail_is_taken_and_told() {
    let running = Running::start();
    let mut lines = BufReader::new(TcpStream::connect(running.smtp).await.expect("connected"));
    for (command, code) in [
        ("", "220"),
        ("EHLO odoo\r\n", "250"),
        ("AUTH LOGIN\r\n", "334"),
        ("dXNlcg==\r\n", "334"),
        ("cGFzcw==\r\n", "235"),
        ("MAIL FROM:<shop@example.com> SIZE=10\r\n", "250"),
        ("RCPT TO:<a@example.org>\r\n", "250"),
        ("RCPT TO:<b@example.org>\r\n", "250"),
        ("DATA\r\n", "354"),
        ("From: x\r\nSubject: Your order\r\n S00042\r\nTo: y\r\n\r\nSubject: not this\r\n.\r\n", "250"),
        ("MAIL FROM:<second@example.com>\r\n", "250"),
        ("RCPT TO:<c@example.org>\r\n", "250"),
        ("DATA\r\n", "354"),
        ("\r\nno header\r\n.\r\n", "250"),
        ("QUIT\r\n", "221"),
    ] {
        let answer = say(&mut lines, command).await;
        assert!(answer.starts_with(code), "{command}: {answer}");
    }
    let attempts = running.attempts(2).await;
    let asked: Vec<&str> = attempts.iter().filter_map(|a| a.asked.as_deref()).collect();
    assert_eq!(
        asked,
        [
            "mail from shop@example.com to a@example.org, b@example.org: Your order S00042",
            "mail from second@example.com to c@example.org: "
        ]
    );
    assert_eq!((attempts[0].protocol.as_str(), attempts[0].port), ("smtp", running.smtp.port()));
    assert_eq!(attempts[0].process.as_ref().map(|p| p.pid), Some(std::process::id()));
    let log = std::fs::read_to_string(&running.log).expect("a log");
    assert!(!log.contains("cGFzcw"), "a password is no evidence");
}

#[tokio::test]
async fn a_session_without_a_mail_is_an_attempt_too() {
    let running = Running::start();
    let mut lines = BufReader::new(TcpStream::connect(running.smtp).await.expect("connected"));
    say(&mut lines, "").await;
    assert!(say(&mut lines, "EHLO odoo\r\n").await.contains("8BITMIME"));
    assert!(say(&mut lines, "STARTTLS\r\n").await.starts_with("502"));
    drop(lines);
    assert_eq!(running.attempts(1).await[0].asked.as_deref(), Some("no mail: EHLO odoo, STARTTLS"));
}

#[tokio::test]
async fn a_webhook_is_refused_politely_and_told() {
    let running = Running::start();
    let mut stream = TcpStream::connect(running.other).await.expect("connected");
    let body = "x".repeat(100_000);
    let request = format!(
        "POST /hook HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("restore drill"), "{answer}");
    let attempts = running.attempts(1).await;
    assert_eq!(attempts[0].asked.as_deref(), Some("POST http://hooks.example.com/hook"));
    assert_eq!((attempts[0].protocol.as_str(), attempts[0].name.as_deref()), ("http", Some("hooks.example.com")));
}

#[tokio::test]
async fn names_are_answered_over_udp_and_tcp_and_found_again() {
    let running = Running::start();
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    // A connected socket takes answers from the address only that it asked.
    socket.connect(running.udp[0]).await.expect("connected");
    let mut buffer = [0; 512];
    let mut ask = async |packet: Vec<u8>| {
        socket.send(&packet).await.expect("sent");
        let length = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer))
            .await
            .expect("in time")
            .expect("an answer");
        buffer[..length].to_vec()
    };
    let first = ask(query("hooks.example.com", 1)).await;
    let other = ask(query("mail.example.com", 1)).await;
    assert_eq!(ask(query("hooks.example.com", 28)).await[7], 0, "no IPv6 address");
    let address = |answer: &[u8]| <[u8; 4]>::try_from(&answer[answer.len() - 4..]).expect("an address");
    assert_ne!(address(&first), address(&other));

    let mut stream = TcpStream::connect(running.dns).await.expect("connected");
    let packet = query("hooks.example.com", 1);
    stream.write_u16(u16::try_from(packet.len()).expect("short")).await.expect("sent");
    stream.write_all(&packet).await.expect("sent");
    let mut answer = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(address(&answer), address(&first), "the same name has the same address");

    let attempts = running.attempts(4).await;
    let asked: Vec<&str> = attempts.iter().filter_map(|a| a.asked.as_deref()).collect();
    assert_eq!(asked, ["A hooks.example.com", "A mail.example.com", "AAAA hooks.example.com", "A hooks.example.com"]);
    assert_eq!(attempts[0].address, IpAddr::V4(Ipv4Addr::LOCALHOST), "the address that was asked, not 0.0.0.0");
}

#[tokio::test]
async fn anything_else_is_told_by_its_first_bytes() {
    let running = Running::start();
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.send_to(b"<13>noise\n", running.udp[1]).await.expect("sent");
    let mut stream = TcpStream::connect(running.other).await.expect("connected");
    stream.write_all(b"noise\n").await.expect("sent");
    let attempts = running.attempts(2).await;
    let mut told: Vec<(&str, &str)> =
        attempts.iter().map(|a| (a.protocol.as_str(), a.asked.as_deref().expect("asked"))).collect();
    told.sort_unstable();
    assert_eq!(told, [("tcp", "noise\\n"), ("udp", "<13>noise\\n")]);
    let egress = Egress::of(&std::fs::read_to_string(&running.log).expect("a log"), &[]);
    assert_eq!((egress.attempts, egress.unreadable), (2, 0));
}

#[tokio::test]
async fn both_families_are_listened_on_and_a_taken_port_is_an_error() {
    let dir = tempfile::tempdir().expect("dir");
    let log = dir.path().join("egress.jsonl");
    let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let ports = Ports { dns: vec![0], smtp: vec![0], other: vec![], udp: vec![] };
    let sinkhole = Sinkhole::bind_at(&loopbacks, &ports, &log, Runtime::silent()).expect("bound");
    assert!(sinkhole.tcp().len() >= 2);
    let taken = Ports { smtp: vec![sinkhole.tcp()[0].port()], dns: vec![], other: vec![], udp: vec![] };
    let error = Sinkhole::bind_at(&loopbacks, &taken, &log, Runtime::silent()).expect_err("taken");
    assert!(error.message().contains("cannot listen on TCP port"), "{error}");
}

#[tokio::test]
async fn a_port_without_a_listener_is_seen_being_tried() {
    let dir = tempfile::tempdir().expect("dir");
    let log = dir.path().join("egress.jsonl");
    // Every port free: only the watching is tried here.
    let ports = Ports { dns: vec![], smtp: vec![0], other: vec![], udp: vec![] };
    let Ok(sinkhole) = Sinkhole::bind(&ports, &log, Runtime::silent()) else {
        crate::drill::testing::common::skip!("this account may not watch packets")
    };
    let heard = sinkhole.tcp()[0].port();
    let server = tokio::spawn(sinkhole.serve());
    let inside = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    // An address of the loopback network that nothing else on this host uses.
    let refused: SocketAddr = "127.87.65.43:9".parse().expect("an address");
    let until = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        assert!(TcpStream::connect(refused).await.is_err());
        let _ = TcpStream::connect(inside.local_addr().expect("bound")).await.expect("connected");
        let _ = TcpStream::connect(("127.0.0.1", heard)).await.expect("connected");
        let text = std::fs::read_to_string(&log).expect("a log");
        let seen: Vec<Attempt> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert!(!seen.iter().any(|a| a.port == inside.local_addr().expect("bound").port()), "it stayed inside: {text}");
        assert!(!seen.iter().any(|a| a.protocol == "tcp" && a.port == heard), "told twice: {text}");
        if seen.iter().any(|a| a.address == refused.ip() && a.port == 9 && a.protocol == "tcp") {
            break;
        }
        assert!(std::time::Instant::now() < until && !server.is_finished(), "not seen: {text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
