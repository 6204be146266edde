//! Masks on a real server.

use secrecy::SecretString;
use tokio_postgres::Client;

use super::{Masked, Masking, apply};
use crate::config::{MaskingRule, Rule};
use crate::configuration::test_server::TestServer;
use crate::error::{ErrorKind, Result};

fn rules(list: &[(&str, &str, Rule)]) -> Vec<MaskingRule> {
    let rule = |(table, column, rule): &(&str, &str, Rule)| MaskingRule {
        schema: "public".into(),
        table: (*table).to_owned(),
        column: (!column.is_empty()).then(|| (*column).to_owned()),
        rule: rule.clone(),
        place: "masking.toml:1".into(),
    };
    list.iter().map(rule).collect()
}

async fn mask(client: &Client, list: &[(&str, &str, Rule)], secret: &str) -> Result<Masked> {
    let secret = SecretString::from(secret);
    apply(client, &Masking { rules: &rules(list), secret: &secret }, Some("uuid")).await
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.expect("query").get::<_, Option<String>>(0).unwrap_or_default()
}

const PEOPLE: &str = "
    DROP TABLE IF EXISTS log, people, history, ir_model_fields;
    CREATE TABLE people (id serial PRIMARY KEY, name varchar(60), email text UNIQUE, phone varchar(8), note jsonb,
        passport text NOT NULL DEFAULT '', born date, x_studio_7 text, email_state text,
        shout text GENERATED ALWAYS AS (upper(email)) STORED);
    CREATE TABLE log (id serial, email text, person int REFERENCES people);
    CREATE TABLE history (was text);
    CREATE OR REPLACE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO history VALUES (OLD::text); RETURN NEW; END';
    CREATE TRIGGER remember BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION remember();
    CREATE TABLE ir_model_fields (model text, name text, ttype text, field_description jsonb);
    INSERT INTO ir_model_fields VALUES ('people', 'x_studio_7', 'char', '{\"en_US\": \"Mobile (private)\"}'),
                                       ('people', 'email_state', 'selection', '{\"en_US\": \"State\"}');
    INSERT INTO people (name, email, phone, note, born, x_studio_7, email_state) VALUES
        ('Ann', 'ann@a.example', '555-0101', '{\"en_US\": \"a\", \"deep\": {\"x\": \"secret\"}, \"n\": 7}', '2000-01-01', '0171', 'ok'),
        ('', NULL, NULL, NULL, NULL, NULL, NULL),
        ('Ann', 'bob@a.example', '555-0102', NULL, NULL, '', 'ok');
    INSERT INTO log (email, person) VALUES ('ANN@a.example ', 1), ('bob@a.example', 3)";

#[tokio::test]
async fn equal_values_stay_equal_and_nothing_else_stays() {
    let Some(server) = TestServer::start() else { return };
    let client = server.client("postgres").await;
    client.batch_execute(PEOPLE).await.expect("tables");
    let all = [
        ("people", "name", Rule::FakeName),
        ("people", "email", Rule::FakeEmail),
        ("people", "phone", Rule::ScrambleDigits),
        ("people", "note", Rule::Hash),
        ("people", "passport", Rule::Keep),
        ("people", "born", Rule::Constant("1970-01-01".into())),
        ("people", "x_studio_7", Rule::Null),
        ("people", "nmae", Rule::Null),
        ("people", "shout", Rule::Keep),
        ("log", "email", Rule::FakeEmail),
        ("elsewhere", "email", Rule::FakeEmail),
    ];
    let done = mask(&client, &all, "k").await.expect("masked");
    assert_eq!(done.notes, ["masking.toml:1: the table people has no column nmae; did you mean name?"]);
    // Masking leaves its session with a search path of its own.
    let client = server.client("postgres").await;
    let is =
        async |condition: &str| text(&client, &format!("SELECT ({condition})::text FROM people WHERE id = 1")).await;
    for condition in [
        "name ~ '^[A-Z][a-z]+ [A-Z][a-z]+ [0-9a-f]{8}$' AND name = (SELECT name FROM people WHERE id = 3)",
        "email ~ '@example.invalid$' AND email <> (SELECT email FROM people WHERE id = 3) AND shout = upper(email)",
        "phone ~ '^[0-9]{3}-[0-9]{4}$' AND phone !~ '^5' AND length(phone) = 8",
        "note ->> 'en_US' ~ '^[0-9a-f]{32}$' AND note -> 'deep' = 'null' AND note -> 'n' = 'null'",
        "born = '1970-01-01' AND x_studio_7 IS NULL AND email_state = 'ok'",
        "(SELECT name = '' AND email IS NULL AND phone IS NULL AND note IS NULL AND born IS NULL FROM people WHERE id = 2)",
        // The same person in another table, written otherwise.
        "email = (SELECT email FROM log WHERE person = 1)",
        "(SELECT count(*) FROM history) = 0",
    ] {
        assert_eq!(is(condition).await, "true", "{condition}");
    }

    let first = text(&client, "SELECT string_agg(p::text, '|' ORDER BY id) FROM people p").await;
    for (secret, same) in [("k", true), ("another", false)] {
        let client = server.client("postgres").await;
        client.batch_execute(PEOPLE).await.expect("tables");
        mask(&client, &all, secret).await.expect("masked");
        let client = server.client("postgres").await;
        let again = text(&client, "SELECT string_agg(p::text, '|' ORDER BY id) FROM people p").await;
        assert_eq!(again == first, same, "{again}");
    }
}

#[tokio::test]
async fn a_sensitive_column_without_a_rule_stops_it_before_anything_is_changed() {
    let Some(server) = TestServer::start() else { return };
    let client = server.client("postgres").await;
    client.batch_execute(PEOPLE).await.expect("tables");
    let before = text(&client, "SELECT string_agg(p::text, '|' ORDER BY id) FROM people p").await;
    let error = mask(&client, &[("people", "name", Rule::Null)], "k").await.expect_err("stopped");
    assert_eq!(error.kind(), ErrorKind::Denied);
    let said = error.hints().join("\n");
    for line in [
        "\"people.email\" = \"fake-email\"   # e-mail",
        "\"people.phone\" = \"scramble-digits\"   # phone",
        "\"people.x_studio_7\" = \"scramble-digits\"   # phone",
        "\"log.email\" = \"fake-email\"   # e-mail",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    // Empty, one of a list, computed.
    for word in ["passport", "email_state", "shout"] {
        assert!(!said.contains(word), "{word} in {said}");
    }
    assert_eq!(text(&client, "SELECT string_agg(p::text, '|' ORDER BY id) FROM people p").await, before);
    // The lines can be pasted: rows of `log` may go instead.
    let rest = [
        ("people", "name", Rule::Null),
        ("people", "email", Rule::FakeEmail),
        ("people", "phone", Rule::ScrambleDigits),
        ("people", "x_studio_7", Rule::ScrambleDigits),
        ("log", "", Rule::DeleteRows),
    ];
    let done = mask(&client, &rest, "k").await.expect("masked");
    assert_eq!(done.deleted.get("log"), Some(&2));
}

#[tokio::test]
async fn a_rule_that_does_not_fit_stops_it_before_anything_is_changed() {
    let Some(server) = TestServer::start() else { return };
    let client = server.client("postgres").await;
    client.batch_execute(PEOPLE).await.expect("tables");
    let good = [
        ("people", "email", Rule::FakeEmail),
        ("people", "phone", Rule::Keep),
        ("people", "x_studio_7", Rule::Keep),
        ("people", "name", Rule::Keep),
        ("log", "email", Rule::Null),
    ];
    for (column, rule, why) in [
        ("born", Rule::Hash, "holds no text"),
        ("passport", Rule::Null, "must hold a value"),
        ("shout", Rule::Null, "computes it"),
    ] {
        let list = [&good[..], &[("people", column, rule)]].concat();
        let error = mask(&client, &list, "k").await.expect_err("does not fit");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(why), "{error}");
        assert_eq!(text(&client, "SELECT email FROM people WHERE id = 1").await, "ann@a.example");
    }
}

/// The rules that come with Lifeboat decide about every sensitive column of a real Odoo.
#[tokio::test]
async fn the_rules_for_odoo_cover_the_fixture() {
    let Some(server) = TestServer::start() else { return };
    if !server.load_fixture() {
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("lifeboat.toml");
    let estate = format!(
        "include = [\"{}/masking/odoo.toml\"]\n[repository]\nurl = \"file:///nowhere\"\n[keys]\n\
         recipients = [\"age16g7ufnh7spwc936zaf48lgx6ug0g6z40ypavlt4wju9hsqeg7e3qyu5yah\"]\n",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::write(&file, estate).expect("written");
    let estate = crate::config::Estate::load(&file).expect("valid");
    let secret = SecretString::from("k");
    let client = server.client("retail").await;
    let partners = text(&client, "SELECT string_agg(email, '|') FROM res_partner WHERE email <> ''").await;
    let done = apply(&client, &Masking { rules: &estate.masking, secret: &secret }, Some("uuid")).await;
    let done = done.unwrap_or_else(|e| panic!("{e}\n{}", e.hints().join("\n")));
    assert!(done.columns.len() > 15 && done.rows > 50, "{done:?}");
    let after = text(&client, "SELECT string_agg(email, '|') FROM public.res_partner WHERE email <> ''").await;
    assert!(partners.split('|').all(|email| !after.contains(email)), "{after}");
}
