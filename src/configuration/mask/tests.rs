//! No secret of any notation survives masking; a changed one is seen; what is none stays readable.

use super::*;

fn masker() -> Masker {
    Masker::new(&IndexKey::from_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("a key"))
}

fn masked(name: &str, origin: &str, text: &str) -> String {
    let file = ConfigFile { name: name.into(), origin: origin.into(), mode: None, content: text.as_bytes().to_vec() };
    masker().mask(&file).text.expect("text")
}

/// Text of a file of the host.
fn file(name: &str, text: &str) -> String {
    masked(name, &format!("/{name}"), text)
}

const RANDOM: &str = "kJ8sQ2mZx7LpW4vT9nRbY3cF6hD1gA0e";

#[test]
fn odoo_conf() {
    let text = "[options]\nadmin_passwd = hunter2\ndb_password=hunter2-db\n; db_password = hunter2-old\ndb_user = odoo\n\
                smtp_password: hunter2 with spaces\nproxy_access_token = hunter2\nsmtp_ssl_private_key_filename = /etc/k.pem\n\
                db_host = postgres://odoo:hunter2@db/x\ndb_template = False\nlist_db = False\n\
                [queue_job]\nhttp_auth_password = hunter2\n\
                [fs_storage.s3]\noptions = {\"key\": \"hunter2\", 'secret': 'hunter2', \"endpoint\": \"https://s3.example.org\"}\n";
    let told = file("odoo/odoo.conf", text);
    assert!(!told.contains("hunter2") && !told.contains("with spaces"), "{told}");
    for kept in ["db_user = odoo", "/etc/k.pem", "list_db = False", "https://s3.example.org", "[queue_job]"] {
        assert!(told.contains(kept), "{kept} in {told}");
    }
    let other = file("odoo/odoo.conf", &text.replace("hunter2-db", "hunter3-db"));
    let changed: Vec<_> = told.lines().zip(other.lines()).filter(|(a, b)| a != b).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].0.starts_with("db_password=<secret "), "{changed:?}");
}

#[test]
fn postgresql() {
    let text = "primary_conninfo = 'host=10.0.0.1 user=repl password=hunter2 sslpassword=''hunter2'' application_name=x'\n\
                restore_command = 'AWS_SECRET_ACCESS_KEY=hunter2 wal-g fetch %f %p'\npassword_encryption = scram-sha-256\n\
                ssl_passphrase_command = 'echo hunter2'\nssl_key_file = '/etc/ssl/server.key'\nwork_mem = 8MB # md5hunter\n";
    let told = file("postgresql/postgresql.conf", text);
    assert!(!told.contains("hunter2"), "{told}");
    for kept in
        ["host=10.0.0.1 user=repl", "application_name=x", "scram-sha-256", "/etc/ssl/server.key", "work_mem = 8MB"]
    {
        assert!(told.contains(kept), "{kept} in {told}");
    }
    let hba = file(
        "postgresql/pg_hba.conf",
        "host all all 10.0.0.0/8 ldap ldapserver=l ldapbindpasswd=\"hunter2 x\" ldapport=1\n",
    );
    assert!(!hba.contains("hunter2") && hba.contains("ldapserver=l") && hba.contains("10.0.0.0/8"), "{hba}");
    let sql = "CREATE ROLE odoo;\nALTER ROLE odoo WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:hunter2$a:b' VALID UNTIL 'infinity';\n\
               ALTER ROLE odoo SET \"app.secret_token\" TO 'hunter2';\nALTER ROLE odoo SET work_mem TO '64MB';\n\\restrict hunter2\n";
    let sql = masked("postgresql/globals.sql", "pg_dumpall", sql);
    assert!(
        !sql.contains("hunter2") && sql.contains("WITH LOGIN PASSWORD <secret ") && sql.contains("'64MB'"),
        "{sql}"
    );
    let settings = r#"[{"name":"primary_conninfo","setting":"host=a password=hunter2 port=1"},{"name":"work_mem","setting":"8192"},
                       {"name":"anon.salt","setting":"hunter2"},{"name":"password_encryption","setting":"scram-sha-256"}]"#;
    let settings = masked("postgresql/settings.json", "pg_settings", settings);
    assert!(!settings.contains("hunter2") && settings.contains("8192") && settings.contains("port=1"), "{settings}");
    assert!(settings.contains("scram-sha-256"), "{settings}");
}

#[test]
fn parameters_processes_and_facts() {
    let sha = "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7";
    let text = format!(
        r#"[{{"key":"shop.api_key","value":null,"masked":true,"sha256":"{sha}"}},{{"key":"shop.pwd","value":"hunter2","masked":false,"sha256":"{sha}"}},
            {{"key":"web.base.url","value":"https://shop.example","masked":false,"sha256":"00"}},{{"key":"x.blob","value":"{RANDOM}","masked":false,"sha256":"00"}},
            {{"key":"x.dsn","value":"redis://:hunter2@redis/1","masked":false,"sha256":"00"}}]"#
    );
    let told = masked("odoo/shop/parameters.json", "shop: ir_config_parameter", &text);
    assert!(!told.contains("hunter2") && !told.contains(sha) && !told.contains(RANDOM), "{told}");
    assert!(told.contains("https://shop.example"), "{told}");
    let secrets: Vec<&str> = told.lines().filter(|l| l.contains("\"value\": \"<secret ")).map(str::trim).collect();
    assert_eq!(secrets[0], secrets[1], "the same value, masked by the server or here: {told}");

    let text = r#"{"processes":[{"command":["python3","/usr/bin/odoo","--db_password=hunter2","-w","hunter2","--smtp-password","hunter2","--workers","4"],
            "environment":{"PGPASSWORD":"hunter2","PASSWORD_FILE":"/run/secrets/pg","AWS_ACCESS_KEY_ID":"AKIAIOSFODNN7EXAMPLE",
            "SERVER_ENV_CONFIG":"[x]\npassword = hunter2\nhost = h","ODOO_SESSION_REDIS_URL":"redis://:hunter2@r/0","ODOO_WORKERS":"4",
            "AZURE_STORAGE_CONNECTION_STRING":"AccountName=n;AccountKey=hunter2==;EndpointSuffix=core"}}],"volatile":{"pids":[1]}}"#;
    let told = masked("odoo/environment.json", "running processes", text);
    assert!(!told.contains("hunter2") && !told.contains("AKIAIOSFODNN7EXAMPLE") && !told.contains("pids"), "{told}");
    for kept in ["--workers", "/run/secrets/pg", "host = h", "AccountName=n", "ODOO_WORKERS"] {
        assert!(told.contains(kept), "{kept} in {told}");
    }

    let commit = "3f786850e387550fdab836ed7e6dc881de23001b";
    let facts = format!(
        r#"{{"addons":[{{"path":"/srv/addons","git":{{"commit":"{commit}","remote":"https://user:hunter2@git.example/x"}},"modules":{{"auth_password_policy":"19.0.1"}}}}]}}"#
    );
    let told = masked("addons/revisions.json", "git, or digests", &facts);
    assert!(
        told.contains(commit) && told.contains("\"auth_password_policy\": \"19.0.1\"") && !told.contains("hunter2"),
        "{told}"
    );
}

#[test]
fn files_from_elsewhere() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMIIhunter2\nhunter2\n-----END PRIVATE KEY-----";
    let cases = [
        ("files/etc/redis/redis.conf", "port 6379\nrequirepass hunter2\n# masterauth hunter2x\nuser odoo on >hunter2 ~* +@all\n".to_owned(), "port 6379"),
        ("files/etc/traefik/t.yml", format!("users:\n  - \"admin:$apr1$hunter2$hunter2/\"\ncertificates: x\npem: |\n  {}\n", pem.replace('\n', "\n  ")), "certificates: x"),
        ("files/srv/values.yaml", "auth:\n  password: hunter2\n  existingSecret: |\n    hunter2\n    hunter2\nreplicas: 3\nenv:\n  - name: DB_PASSWORD\n    value: hunter2\n  - name: WORKERS\n    value: four\n".to_owned(), "value: four"),
        ("files/srv/secret.yaml", "kind: Secret\nmetadata:\n  name: odoo\ndata:\n  anything: aHVudGVyMg==hunter2\nstringData:\n  other: hunter2\n".to_owned(), "name: odoo"),
        ("files/etc/systemd/system/odoo.service", "[Service]\nEnvironment=\"DB_PASSWORD=hunter2 x\" WORKERS=4\nExecStart=/usr/bin/odoo --db_password hunter2 --workers 4\n".to_owned(), "ExecStart=/usr/bin/odoo"),
        ("files/etc/nginx/x.conf", "proxy_pass http://odoo:8069;\nproxy_set_header Authorization \"Basic YWRtaW46aHVudGVyMg==\";\nproxy_set_header X-Api-Key hunter2;\nserver_name shop.example;\n".to_owned(), "proxy_pass http://odoo:8069;"),
        ("files/srv/.env", "export API_TOKEN='hunter2'\nREPLY_TO=a@b.example\nREF=${DB_PASSWORD}\n".to_owned(), "REPLY_TO=a@b.example"),
        ("files/root/.pgpass", "db:5432:*:odoo:hunter2\n".to_owned(), ""),
        ("files/etc/acme.json", format!("{{\"le\":{{\"Account\":{{\"PrivateKey\":\"hunter2\",\"Email\":\"a@b.example\"}},\"Certificates\":[{{\"domain\":{{\"main\":\"shop.example\"}},\"certificate\":\"{RANDOM}\",\"key\":\"hunter2\"}}]}}}}"), "shop.example"),
        ("files/etc/k8s.json", "{\"env\":[{\"name\":\"PG_PASSWORD\",\"value\":\"hunter2\"},{\"name\":\"A\",\"value\":\"visible\"}]}".to_owned(), "visible"),
        ("files/etc/tls/server.key", pem.to_owned(), ""),
        ("files/etc/any", format!("webhook https://hooks.example/services/{RANDOM}\nimage x@sha256:{}\nid 123e4567-e89b-12d3-a456-426614174000\n", "0123456789abcdef".repeat(4)), "123e4567-e89b-12d3-a456-426614174000"),
        ("odoo/keys/smtp-key.pem", pem.to_owned(), ""),
    ];
    for (name, text, kept) in cases {
        let told = file(name, &text);
        assert!(!told.contains("hunter2") && !told.contains(RANDOM) && !told.contains("aHVudGVyMg"), "{name}: {told}");
        assert!(told.contains(kept), "{name}: {kept} in {told}");
        assert!(told.contains("<secret ") || told.contains("<private key "), "{name}: {told}");
        let other = file(
            name,
            &text
                .replace("hunter2", "hunter3")
                .replace(RANDOM, &RANDOM.replace('8', "9"))
                .replace("aHVudGVyMg", "aHVudGVyMw"),
        );
        assert_ne!(told, other, "{name}: a changed secret is seen as changed");
    }
    let any = file("files/etc/any", &format!("image x@sha256:{}\n", "0123456789abcdef".repeat(4)));
    assert!(any.contains("sha256:0123456789abcdef"), "digests of images are names: {any}");
}

#[test]
fn what_is_no_text_is_a_digest_and_another_key_gives_another_one() {
    let file = |content: &[u8]| ConfigFile {
        name: "files/x".into(),
        origin: "/x".into(),
        mode: None,
        content: content.to_vec(),
    };
    let one = masker().mask(&file(b"\xff\x00\x01"));
    assert_eq!(one.text, None);
    assert_ne!(one.digest, masker().mask(&file(b"\xff\x00\x02")).digest);
    let other = Masker::new(&IndexKey::generate().expect("a key"));
    let text = file(b"password = hunter2\n");
    assert_ne!(other.mask(&text).text, masker().mask(&text).text);
    assert_ne!(other.mask(&text).digest, masker().mask(&text).digest);
}

#[test]
fn names_of_secrets() {
    for secret in [
        "db_password",
        "admin_passwd",
        "apiKey",
        "AWS_SECRET_ACCESS_KEY",
        "ldapbindpasswd",
        "key",
        "x.token",
        "PGPASSWORD",
        "passfile",
    ] {
        assert!(words::is_secret(secret), "{secret}");
    }
    for open in [
        "password_encryption",
        "ssl_key_file",
        "PASSWORD_FILE",
        "primary_key",
        "proxy_pass",
        "keyspace",
        "tokenize_mode",
        "workers",
    ] {
        assert!(!words::is_secret(open), "{open}");
    }
}

/// Builds for tests have what dependencies of the tests ask of `regex` beside; the program has what it asks for itself.
#[test]
fn what_patterns_need_of_their_crate_is_asked_for() {
    let manifest: toml::Table = include_str!("../../../Cargo.toml").parse().expect("a manifest");
    let features = manifest["dependencies"]["regex"]["features"].as_array().expect("a list");
    for (feature, of) in [("unicode-case", "(?i)"), ("unicode-perl", r"\s, \w, \b")] {
        assert!(features.iter().any(|asked| asked.as_str() == Some(feature)), "{feature} is needed for {of}");
    }
}
