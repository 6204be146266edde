//! Too much, and malice: a thousand requests a second and more, and bytes that are no requests. The page refuses, and the
//! workers behind it do not notice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Site, token};

/// Requests of the flood.
const FLOOD: u64 = 12_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_refused_and_the_workers_go_on() {
    let mut site = Site::new("client_rate = 50", "").await;
    let received = |state: &serde_json::Value| state["summary"]["workers"][0]["state"] == "running";
    site.until("the receiver runs", received).await;
    let (served, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let floods = (0..24).map(|_| {
        let (client, address) = (site.client.clone(), site.address.clone());
        let (served, refused) = (served.clone(), refused.clone());
        tokio::spawn(async move {
            for n in 0..FLOOD / 24 {
                let path = if n % 3 == 0 { "/" } else { "/api/v1/estate" };
                let answer = client.get(format!("{address}{path}")).bearer_auth(token("vera")).send().await;
                match answer.expect("an answer").status().as_u16() {
                    200 => served.fetch_add(1, Ordering::Relaxed),
                    429 => refused.fetch_add(1, Ordering::Relaxed),
                    other => panic!("status {other}"),
                };
            }
        })
    });
    for flood in floods.collect::<Vec<_>>() {
        flood.await.expect("no panic");
    }
    let seconds = began.elapsed().as_secs_f64();
    let (served, refused) = (served.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!(
        "{FLOOD} requests in {seconds:.1} s ({:.0}/s): {served} served, {refused} refused",
        FLOOD as f64 / seconds
    );
    assert!(refused > FLOOD / 2, "{served} served, {refused} refused");
    // WAL was received all the while, and nothing had to be started again.
    site.cluster.psql("postgres", "INSERT INTO t VALUES (2)");
    site.estate.caught_up(&site.cluster);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let state = site.until("an answer", |_| true).await;
    let workers = state["summary"]["workers"].as_array().expect("workers");
    assert!(workers.iter().all(|worker| worker["restarts"] == 0), "{workers:?}");
    assert!(site.serve.is_running());
    let pid = site.serve.pid();
    let peak = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let peak = peak.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak").trim().to_owned();
    println!("peak resident size: {peak}");
    let kib: u64 = peak.trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(kib < 256 << 10, "{peak}");
}

/// Sends bytes; what came back, up to a second.
fn sent(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
    // It may be closed before all is written.
    let _ = stream.write_all(bytes);
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_get_no_more_than_a_refusal() {
    let mut site = Site::new("client_rate = 10000\ntotal_rate = 10000", "").await;
    let address = site.address.trim_start_matches("http://").to_owned();
    let head = format!("authorization: Bearer {}\r\nhost: x\r\n", token("ada"));
    let long = "a".repeat(200_000);
    let hostile: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff".to_vec(),
        vec![0; 5000],
        format!("GET /{long} HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\n{head}x: {long}\r\n\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\n{}\r\n", (0..2000).map(|n| format!("x{n}: y\r\n")).collect::<String>()).into_bytes(),
        format!("GET /../../../../etc/passwd HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /assets/..%2f..%2f..%2fetc%2fpasswd HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /environments/%00%ff%fe HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /environments/production%0d%0aset-cookie:%20a=b HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /login?next=%0d%0aset-cookie:%20a=b HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET /api/v1/environments/'%20OR%201=1--/ledger?before=-1 HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("BREW /pot HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("POST /api/v1/environments/production/jobs HTTP/1.1\r\n{head}content-type: application/json\r\ncontent-length: 99999999\r\n\r\n{{").into_bytes(),
        format!("POST /api/v1/environments/production/jobs HTTP/1.1\r\n{head}content-type: application/json\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\nGET /sessions HTTP/1.1\r\n{head}\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nhost: x\r\ncookie: lifeboat={long}\r\n\r\n").into_bytes(),
        "GET / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \u{1f6df}\r\n\r\n".to_owned().into_bytes(),
        format!("GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 127.0.0.1, {long}\r\n\r\n").into_bytes(),
    ];
    for bytes in &hostile {
        let answer = sent(&address, bytes);
        let status = answer.split(' ').nth(1).and_then(|word| word.parse::<u16>().ok());
        let shown: String = String::from_utf8_lossy(bytes).chars().take(60).collect();
        assert!(status.is_none_or(|status| status < 500), "{shown:?}: {answer:.200}");
        assert!(!answer.contains("root:") && !answer.contains("\nset-cookie: a=b"), "{shown:?}: {answer:.200}");
    }
    // Connections that say nothing hold no more than their own places; more than those are closed at once.
    let silent: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    drop(silent);
    assert!(site.serve.is_running(), "{}", site.serve.said());
    site.ready().await;
    let (status, _) = site.get("vera", "/").await;
    assert_eq!(status, 200);
}
