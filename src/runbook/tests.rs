//! Both forms say the same, hold no secret and no foreign markup, and know whether they still hold.

use chrono::DateTime;

use super::*;
use crate::config::Estate;

fn estate(change: impl Fn(String) -> String) -> (tempfile::TempDir, Estate) {
    let dir = tempfile::tempdir().expect("temp dir");
    let text = r#"
[repository]
url = "s3://bucket/estate"
access_key_id = { env = "BUCKET_KEY" }
secret_access_key = { file = "/etc/lifeboat/s3.secret" }
[keys]
recipients = ["age16g7ufnh7spwc936zaf48lgx6ug0g6z40ypavlt4wju9hsqeg7e3qyu5yah"]
[runbook]
contacts = { "<script>alert(1)</script> | team" = "call `me`" }
recovery_key = "the safe"
[[environment]]
name = "production"
purpose = "production"
owner = "<script>alert(1)</script> | team"
[environment.objectives]
rpo = "60s"
rto = "1h"
[environment.postgres]
dsn = "host=/run/postgresql user=lifeboat dbname=postgres"
[[environment.odoo]]
data_dir = "/var/lib/odoo"
databases = ["it's a shop"]
"#;
    let file = dir.path().join("lifeboat.toml");
    std::fs::write(&file, change(text.to_owned())).expect("written");
    let estate = Estate::load(&file).unwrap_or_else(|e| panic!("{e}"));
    (dir, estate)
}

fn written(estate: &Estate) -> Runbook {
    let facts =
        Facts { estate, environment: &estate.environments[0], held: Ok(Held::default()), now: DateTime::UNIX_EPOCH };
    runbook(&facts, &[]).expect("writes")
}

#[test]
fn a_page_needs_nothing_else_and_trusts_no_name() {
    let (_dir, estate) = estate(|text| text);
    let page = page(&written(&estate));
    for foreign in ["<script", "<link", "<img", "url(", "@import", " onload", "href="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; | team"));
    assert_eq!(page.matches("<section").count(), page.matches("</section>").count());
    for id in SCENARIOS {
        assert!(page.contains(&format!("<section class=\"scenario\" id=\"{id}\">")), "{id}");
    }
    assert!(
        page.contains("<pre class=\"run\">")
            && page.contains("<pre class=\"by-hand\">")
            && page.contains("class=\"box\"")
    );
}

#[test]
fn names_are_quoted_where_a_shell_reads_them_and_secrets_are_references() {
    let (_dir, estate) = estate(|text| text);
    let text = markdown(&written(&estate));
    assert!(text.contains("DATABASE=\"${DATABASE:-it's a shop}\""), "{text}");
    assert!(text.contains("access_key_id = { env = \"BUCKET_KEY\" }"));
    assert!(text.contains("secret key of the bucket: expected in the file"));
    assert_eq!(text.matches("```").count() % 2, 0);
}

#[test]
fn values_stand_as_what_they_are() {
    assert_eq!(words::within_quotes("a\"b$c`d}e\\f'g"), "a\\\"b\\$c\\`d\\}e\\\\f'g");
    assert_eq!(words::quoted("it's"), r"'it'\''s'");
    let pairs =
        words::keywords("postgresql://lifeboat@db1.example.org:6432,db2.example.org:6433/postgres?sslmode=require");
    assert_eq!(
        pairs,
        "host=db1.example.org,db2.example.org port=6432,6433 user=lifeboat dbname=postgres sslmode=require"
    );
    assert_eq!(words::keywords("host='/run/my sql' user=x"), "host='/run/my sql' user=x dbname=postgres");
}

#[test]
fn a_document_knows_whether_it_still_holds() {
    let (_dir, first) = estate(|text| text);
    let old = written(&first);
    for document in [markdown(&old), page(&old)] {
        let (marker, whole) = read_marker(&document).expect("has a marker");
        assert!(whole);
        assert_eq!(standing(&marker, whole, &old), Standing::Current);
        let (_dir, commented) = estate(|text| text + "# a comment\n");
        assert_eq!(standing(&marker, whole, &written(&commented)), Standing::SameCommands);
        let (_dir, moved) = estate(|text| text.replace("s3://bucket/estate", "s3://other/estate"));
        assert_eq!(standing(&marker, whole, &written(&moved)), Standing::Outdated);
        let (marker, whole) = read_marker(&document.replacen("umask 022", "umask 000", 1)).expect("has a marker");
        assert_eq!(standing(&marker, whole, &old), Standing::Edited);
    }
    assert!(read_marker("# anything").is_err());
}

#[test]
fn a_recovery_key_in_the_section_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let text = "[repository]\nurl = \"file:///x\"\n[keys]\nrecipients = [\"age16g7ufnh7spwc936zaf48lgx6ug0g6z40ypavlt4wju9hsqeg7e3qyu5yah\"]\n\
                [runbook]\nrecovery_key = \"AGE-SECRET-KEY-1ABC\"\n";
    std::fs::write(dir.path().join("lifeboat.toml"), text).expect("written");
    let refused = Estate::load(&dir.path().join("lifeboat.toml")).expect_err("a key in a file");
    assert!(
        refused.message().contains("a recovery key stands here") && !refused.message().contains("1ABC"),
        "{refused}"
    );
}
