//! The columns of a database, and which of them hold personal data or secrets.
//!
//! A column is of a sensitive kind by its name, or by what Odoo's own description of the field says
//! (`ir_model_fields`): so `x_studio_char_field_7` with the label *E-mail* is found, and a selection field that is
//! called `email_state` is not. A plain `name` is a person's in tables that also hold a way to reach somebody.

use serde::Serialize;
use tokio_postgres::Client;

use crate::config::Rule;
use crate::error::Result;
use crate::postgres::sql::explain;

/// A column of an ordinary table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its schema.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its type, as SQL writes it.
    pub sql_type: String,
    /// What can be done with that type.
    pub class: Class,
    /// Longest value, where the type limits it.
    pub longest: Option<u32>,
    /// Whether it must hold something.
    pub not_null: bool,
    /// Whether PostgreSQL computes it.
    pub generated: bool,
    /// Whether its table is partitioned.
    pub partitioned: bool,
    /// Odoo's type of the field, where Odoo knows it.
    pub ttype: Option<String>,
    /// Odoo's labels of the field in all languages, where Odoo knows it.
    pub label: Option<String>,
}

/// Types that are masked alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Text of any kind.
    Text,
    /// `jsonb`, as of translated fields.
    Jsonb,
    /// Anything else.
    Other,
}

/// A sensitive kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An e-mail address, or a login.
    Email,
    /// A telephone number.
    Phone,
    /// Somebody's name.
    Name,
    /// A number under which an authority knows somebody.
    Vat,
    /// A bank account or card.
    Iban,
    /// A place where somebody lives.
    Street,
    /// A password.
    Password,
    /// A key or token.
    Token,
}

impl Kind {
    /// The rule that fits as a rule.
    pub fn suggestion(self, not_null: bool) -> Rule {
        match self {
            Kind::Email => Rule::FakeEmail,
            Kind::Name => Rule::FakeName,
            Kind::Phone | Kind::Vat | Kind::Iban => Rule::ScrambleDigits,
            Kind::Street => Rule::Hash,
            Kind::Password | Kind::Token if not_null => Rule::Hash,
            Kind::Password | Kind::Token => Rule::Null,
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Email => "e-mail",
            Kind::Phone => "phone",
            Kind::Name => "name",
            Kind::Vat => "tax or identity number",
            Kind::Iban => "bank account",
            Kind::Street => "address",
            Kind::Password => "password",
            Kind::Token => "token or key",
        }
    }
}

/// Words of names of columns and of labels. The first kind that fits is taken.
const WORDS: [(Kind, &[&str]); 7] = [
    (Kind::Password, &["password", "passwd", "passw", "passphrase", "pwd", "pass", "passwort", "kennwort"]),
    (Kind::Token, &["token", "secret", "apikey", "credential", "credentials", "totp"]),
    (Kind::Email, &["email", "emails", "mail", "login"]),
    (Kind::Phone, &["phone", "mobile", "fax", "tel", "telephone", "telefon", "handy"]),
    (Kind::Vat, &["vat", "ssn", "ssnid", "sinid", "siret", "siren", "passport", "tin", "nif", "cif", "curp"]),
    (Kind::Iban, &["iban", "bic", "pan"]),
    (Kind::Street, &["street", "street2", "street3", "strasse", "straße", "address"]),
];

/// Pairs of words that mean a kind together.
const PAIRS: [(Kind, &str, &str); 15] = [
    (Kind::Token, "api", "key"),
    (Kind::Token, "access", "key"),
    (Kind::Token, "private", "key"),
    (Kind::Token, "signup", "url"),
    (Kind::Email, "reply", "to"),
    (Kind::Email, "e", "mail"),
    (Kind::Vat, "tax", "id"),
    (Kind::Vat, "identification", "id"),
    (Kind::Iban, "acc", "number"),
    (Kind::Iban, "account", "number"),
    (Kind::Iban, "card", "number"),
    (Kind::Iban, "bank", "account"),
    (Kind::Name, "first", "name"),
    (Kind::Name, "last", "name"),
    (Kind::Name, "full", "name"),
];

/// What stands before `name` where the name is a person's or a company's.
const NAMED: [&str; 11] = [
    "contact",
    "partner",
    "customer",
    "employee",
    "holder",
    "commercial",
    "company",
    "legal",
    "sender",
    "author",
    "signer",
];

/// What a text is about: its words in order.
fn words(text: &str) -> Vec<String> {
    let split = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    split.map(str::to_lowercase).collect()
}

fn kind_of(words: &[String]) -> Option<Kind> {
    let has = |word: &str| words.iter().any(|w| w == word);
    if let Some((kind, ..)) = PAIRS.iter().find(|(_, a, b)| words.windows(2).any(|w| w[0] == *a && w[1] == *b)) {
        return Some(*kind);
    }
    if let Some((kind, _)) = WORDS.iter().find(|(_, list)| list.iter().any(|word| has(word))) {
        return Some(*kind);
    }
    let named = has("firstname") || has("lastname") || has("surname") || has("fullname");
    (named || has("name") && NAMED.iter().any(|before| has(before))).then_some(Kind::Name)
}

/// Which kind a column is of, given whether people can be reached by what else is in its table.
pub(super) fn sensitive(column: &Column, reaches_people: bool) -> Option<Kind> {
    if column.class == Class::Other || column.generated {
        return None;
    }
    // Odoo knows better than a name: these hold one of a list, a reference, or computed text about the system.
    if matches!(
        column.ttype.as_deref(),
        Some("selection" | "reference" | "many2one_reference" | "boolean" | "properties")
    ) {
        return None;
    }
    let name = words(&column.name);
    let by_name = kind_of(&name);
    let by_label = column.label.as_deref().and_then(|label| kind_of(&words(label)));
    let plain = matches!(column.name.as_str(), "name" | "display_name" | "complete_name");
    by_name.or_else(|| (plain && reaches_people).then_some(Kind::Name)).or(by_label)
}

/// Whether somebody can be reached by this column.
pub(super) fn reaches_people(column: &Column) -> bool {
    matches!(sensitive(column, false), Some(Kind::Email | Kind::Phone | Kind::Street))
        && column.schema == "public"
        && !column.table.starts_with("ir_")
}

/// Every column of every ordinary table.
pub(super) async fn read(client: &Client) -> Result<Vec<Column>> {
    let cannot = |e| explain(e, "cannot read the columns of the database");
    let odoo: bool =
        client.query_one("SELECT to_regclass('public.ir_model_fields') IS NOT NULL", &[]).await.map_err(cannot)?.get(0);
    let fields = match odoo {
        true => {
            "SELECT replace(f.model, '.', '_') AS tab, f.name::text AS col, min(f.ttype)::text AS ttype,
                    string_agg(f.field_description::text, ' ') AS label
               FROM public.ir_model_fields f GROUP BY 1, 2"
        }
        false => "SELECT NULL::text AS tab, NULL::text AS col, NULL::text AS ttype, NULL::text AS label WHERE false",
    };
    let query = format!(
        "SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
                b.typname::text, CASE WHEN b.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
                a.attnotnull, a.attgenerated <> '', c.relkind = 'p', f.ttype, f.label
           FROM pg_attribute a
           JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
           JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
           JOIN pg_type t ON t.oid = a.atttypid
           JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
           LEFT JOIN ({fields}) f ON n.nspname = 'public' AND f.tab = c.relname AND f.col = a.attname
          WHERE a.attnum > 0 AND NOT a.attisdropped
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
          ORDER BY 1, 2, a.attnum"
    );
    let rows = client.query(&query, &[]).await.map_err(cannot)?;
    let column = |row: &tokio_postgres::Row| Column {
        schema: row.get(0),
        table: row.get(1),
        name: row.get(2),
        sql_type: row.get(3),
        class: match row.get::<_, &str>(4) {
            "text" | "varchar" | "bpchar" | "citext" => Class::Text,
            "jsonb" => Class::Jsonb,
            _ => Class::Other,
        },
        longest: row.get::<_, Option<i32>>(5).and_then(|n| u32::try_from(n).ok()),
        not_null: row.get(6),
        generated: row.get(7),
        partitioned: row.get(8),
        ttype: row.get(9),
        label: row.get(10),
    };
    Ok(rows.iter().map(column).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(table: &str, name: &str) -> Column {
        Column {
            schema: "public".into(),
            table: table.into(),
            name: name.into(),
            sql_type: "character varying".into(),
            class: Class::Text,
            longest: None,
            not_null: false,
            generated: false,
            partitioned: false,
            ttype: None,
            label: None,
        }
    }

    #[test]
    fn names_of_columns_tell_the_kind() {
        for (name, kind) in [
            ("email_normalized", Some(Kind::Email)),
            ("reply_to", Some(Kind::Email)),
            ("phone_sanitized", Some(Kind::Phone)),
            ("smtp_pass", Some(Kind::Password)),
            ("new_password", Some(Kind::Password)),
            ("access_token", Some(Kind::Token)),
            ("stripe_secret_key", Some(Kind::Token)),
            ("sanitized_acc_number", Some(Kind::Iban)),
            ("acc_holder_name", Some(Kind::Name)),
            ("commercial_company_name", Some(Kind::Name)),
            ("street2", Some(Kind::Street)),
            ("l10n_xx_vat", Some(Kind::Vat)),
            ("state", None),
            ("bypass", None),
            ("name", None),
            ("telegram", None),
        ] {
            assert_eq!(sensitive(&column("t", name), false), kind, "{name}");
        }
        assert_eq!(sensitive(&column("res_partner", "name"), true), Some(Kind::Name));
    }

    #[test]
    fn odoos_own_description_is_believed() {
        let mut studio = column("res_partner", "x_studio_char_field_7");
        assert_eq!(sensitive(&studio, true), None);
        studio.label = Some("{\"de_DE\": \"Handy privat\", \"en_US\": \"Mobile (private)\"}".into());
        assert_eq!(sensitive(&studio, true), Some(Kind::Phone));
        let mut state = column("mail_mail", "email_state");
        state.ttype = Some("selection".into());
        assert_eq!(sensitive(&state, true), None);
        let mut number = column("res_partner", "phone");
        number.class = Class::Other;
        assert_eq!(sensitive(&number, true), None);
    }
}
