//! TLS: what a browser would demand, and a certificate that is replaced while the service runs.

use std::path::Path;
use std::process::Command;

use super::{PEOPLE, Site};
use crate::common::{Scratch, skip, wait_until_async};

/// What openssl makes by itself is an authority, which serves nobody.
const CONFIG: &str = "[req]\ndistinguished_name = dn\nx509_extensions = ext\nprompt = no\n[dn]\nCN = lifeboat\n\
[ext]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = critical,CA:FALSE\n";

/// A self-signed certificate for 127.0.0.1; `false` where this machine has no openssl.
fn certificate(directory: &Path, serial: u32) -> bool {
    let config = directory.join("openssl.conf");
    std::fs::write(&config, CONFIG).expect("written");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-set_serial", &serial.to_string(), "-config"])
        .arg(config)
        .arg("-keyout")
        .arg(directory.join("new.key"))
        .arg("-out")
        .arg(directory.join("new.crt"))
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        return false;
    }
    for name in ["key", "crt"] {
        std::fs::rename(directory.join(format!("new.{name}")), directory.join(format!("tls.{name}"))).expect("moved");
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_served_and_a_newer_one_after_it_without_a_restart() {
    let files = Scratch::new();
    let directory = files.join("tls");
    std::fs::create_dir(&directory).expect("a directory");
    if !certificate(&directory, 1001) {
        skip!("no openssl");
    }
    let more = format!("[service.http.tls]\ncertificate = \"{0}/tls.crt\"\nkey = \"{0}/tls.key\"", directory.display());
    let site = Site::with_scheme("https", &more, "").await;
    let trusting = |directory: &Path| {
        let pem = std::fs::read(directory.join("tls.crt")).expect("a certificate");
        let root = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        reqwest::Client::builder()
            .tls_certs_only([root])
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client")
    };
    let first = trusting(&directory);
    let answer = first.get(format!("{}/login", site.address)).send().await.expect("by TLS");
    assert!(answer.headers().contains_key("strict-transport-security"));
    // Cookies are for TLS and this host alone.
    let form = format!("token={}", PEOPLE[0].2);
    let signed =
        first.post(format!("{}/login", site.address)).header("content-type", "application/x-www-form-urlencoded");
    let signed = signed.body(form).send().await.expect("signed in");
    let cookie = signed.headers()["set-cookie"].to_str().expect("text");
    assert!(cookie.starts_with("__Host-lifeboat=") && cookie.contains("; Secure"), "{cookie}");

    // A key that does not belong to the certificate changes nothing.
    let key = std::fs::read(directory.join("tls.key")).expect("a key");
    std::fs::write(directory.join("tls.key"), "nonsense").expect("written");
    wait_until_async("the bad key is noticed", super::PATIENCE, || async {
        site.serve.said().contains("stays in force")
    })
    .await;
    assert!(trusting(&directory).get(format!("{}/healthz", site.address)).send().await.is_ok());
    std::fs::write(directory.join("tls.key"), key).expect("written");

    assert!(certificate(&directory, 1002));
    let second = trusting(&directory);
    let mut served = false;
    for _ in 0..600 {
        if second.get(format!("{}/healthz", site.address)).send().await.is_ok() {
            served = true;
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(served, "the new certificate is not served: {}", site.serve.said());
}
