//! Sign-in by a real identity provider over HTTP: an honest login leads to a session with a role, and every way to cheat
//! is refused.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::Site;
use crate::common::{free_port, skip};

/// The provider; ended when dropped.
struct Provider {
    child: Child,
    issuer: String,
}

impl Provider {
    fn start() -> Option<Self> {
        let python = std::env::var_os("LIFEBOAT_TEST_PYTHON")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/web/oidc_provider.py");
        let mut child = Command::new(python)
            .args([script, "lifeboat", "s3cret"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut issuer = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut issuer).ok()?;
        Some(Self { child, issuer: issuer.trim().to_owned() })
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A browser that follows the redirects one by one and keeps cookies.
struct Browser<'a> {
    site: &'a Site,
    client: reqwest::Client,
    cookies: Vec<String>,
}

impl<'a> Browser<'a> {
    /// At an address of its own, because one client has few attempts to sign in.
    fn at(site: &'a Site, n: u8) -> Self {
        let client = reqwest::Client::builder()
            .local_address(std::net::IpAddr::from([127, 0, 1, n]))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Self { site, client, cookies: Vec::new() }
    }

    async fn get(&mut self, url: &str) -> (u16, Option<String>, String) {
        let request = self.client.get(url).header("accept", "text/html").header("cookie", self.cookies.join("; "));
        let answer = request.send().await.expect("an answer");
        for set in answer.headers().get_all("set-cookie") {
            let cookie = set.to_str().expect("text").split(';').next().expect("a cookie").to_owned();
            let name = cookie.split('=').next().expect("a name").to_owned() + "=";
            self.cookies.retain(|known| !known.starts_with(&name));
            self.cookies.push(cookie);
        }
        let to = answer.headers().get("location").map(|l| l.to_str().expect("text").to_owned());
        (answer.status().as_u16(), to, answer.text().await.expect("text"))
    }

    /// Goes to the provider as `who`, up to the address that leads back.
    async fn up_to_callback(&mut self, who: &str) -> String {
        let (_, provider, _) = self.get(&format!("{}/login/oidc?next=/jobs", self.site.address)).await;
        let provider = provider.expect("the provider's address");
        let (_, back, text) = self.get(&format!("{provider}&as={who}")).await;
        back.unwrap_or_else(|| panic!("the provider refuses: {text}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_sign_in_by_their_provider_and_nobody_else_does() {
    let Some(provider) = Provider::start() else { skip!("no Python with cryptography") };
    let port = free_port();
    let oidc = format!(
        "public_url = \"http://127.0.0.1:{port}\"\n[service.http.oidc]\nissuer = \"{}\"\nclient_id = \"lifeboat\"\n\
         client_secret = {{ env = \"OIDC_SECRET\" }}\nroles = {{ dba = \"operator\" }}",
        provider.issuer
    );
    let site = Site::on_port(port, &oidc, &[("OIDC_SECRET", "s3cret")]).await;
    let mut olga = Browser::at(&site, 1);
    let back = olga.up_to_callback("olga").await;
    assert!(back.starts_with(&format!("{}/login/oidc/callback?", site.address)), "{back}");
    let (status, to, text) = olga.get(&back).await;
    assert_eq!((status, to.as_deref()), (303, Some("/jobs")), "{text}");
    let (status, _, page) = olga.get(&format!("{}/", site.address)).await;
    assert!(status == 200 && page.contains("olga · operator"), "{page}");
    // A code and a state are good once.
    let (status, ..) = olga.get(&back).await;
    assert_eq!(status, 403);

    // Another browser cannot finish what this one began: that would be signing somebody in as somebody else.
    let mut victim = Browser::at(&site, 2);
    let planted = Browser::at(&site, 3).up_to_callback("olga").await;
    let (status, _, text) = victim.get(&planted).await;
    assert!(status == 403 && text.contains("another browser"), "{status} {text}");

    let cheats = [
        "wrong-nonce",
        "wrong-audience",
        "several-audiences",
        "wrong-issuer",
        "expired",
        "not-yet",
        "other-key",
        "unknown-key",
        "unsigned",
        "shared-secret",
        "no-name",
        "nobody",
    ];
    for (n, cheat) in (10..).zip(cheats) {
        let mut one = Browser::at(&site, n);
        let back = one.up_to_callback(cheat).await;
        let (status, _, text) = one.get(&back).await;
        assert_eq!(status, 403, "{cheat}: {text}");
        let (status, ..) = one.get(&format!("{}/api/v1/me", site.address)).await;
        assert_eq!(status, 401, "{cheat} is signed in");
    }
}
