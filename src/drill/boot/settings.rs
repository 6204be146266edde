//! What the drill's Odoo is started with. Everything that could lead it to production's files, databases, mail
//! servers or schedules is said twice, in its configuration file and after the user's own arguments, and wins.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::config::{Check, DrillOdoo};
use crate::drill::boot::web::Way;
use crate::drill::neutralise::AddonsPaths;
use crate::postgres::account::Account;
use crate::postgres::launch::Launch;

/// The role that Odoo logs in as: it owns its database and may create no other.
pub(super) const ROLE: &str = "lifeboat_odoo";
/// The port of Odoo in a sandbox, whose network is its own: none that a sinkhole listens on.
pub const PORT: u16 = 8169;

/// What Odoo finds around it.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// How it is started.
    pub launch: &'a dyn Launch,
    /// The account that it runs as; `None` stays the running one.
    pub account: Option<&'a Account>,
    /// The restored filestores: `<directory>/<database>/…`.
    pub filestore: &'a Path,
    /// A directory of its own for its configuration, log and sessions; made when absent.
    pub home: &'a Path,
    /// The port that it listens on, on 127.0.0.1.
    pub port: u16,
    /// How that port is reached from here.
    pub way: Way,
}

/// How Odoo is started on restored databases.
#[derive(Debug)]
pub struct Settings<'a> {
    /// The program.
    pub odoo: &'a DrillOdoo,
    /// Its add-on directories.
    pub addons: &'a AddonsPaths,
    /// Where it is started.
    pub around: &'a Surroundings<'a>,
    /// Checks, of which those that ask for a page are asked of it.
    pub checks: &'a [&'a Check],
}

impl Settings<'_> {
    pub(super) fn data_dir(&self) -> PathBuf {
        self.around.home.join("data")
    }

    pub(super) fn config_file(&self, database: &str) -> PathBuf {
        self.around.home.join(format!("{}.conf", file_name(database)))
    }

    pub(super) fn log(&self, database: &str) -> PathBuf {
        self.around.home.join(format!("{}.log", file_name(database)))
    }

    /// The text of the `odoo.conf` for one database.
    pub(super) fn config(&self, database: &str, series: u32, socket_dir: &Path, master_password: &str) -> String {
        let addons: Vec<String> = self.addons.as_slice().iter().map(|p| p.display().to_string()).collect();
        let mut text = "[options]\n".to_owned();
        let mut say = |key: &str, value: &str| {
            writeln!(text, "{key} = {value}").expect("a text takes everything");
        };
        say("addons_path", &addons.join(","));
        say("data_dir", &self.data_dir().display().to_string());
        say("db_host", &socket_dir.display().to_string());
        say("db_port", "5432");
        say("db_user", ROLE);
        // Nothing, not False: Odoo 19 passes over that with a warning, where it is no switch.
        say("db_password", "");
        say("db_name", database);
        say("db_maxconn", "16");
        say("dbfilter", &exactly(database));
        say("list_db", "False");
        say("admin_passwd", master_password);
        say("http_interface", "127.0.0.1");
        say("http_port", &self.around.port.to_string());
        say("proxy_mode", "False");
        say("workers", "0");
        say("max_cron_threads", "0");
        say("server_wide_modules", server_wide_modules(series));
        say("smtp_server", "127.0.0.1");
        say("smtp_port", "25");
        say("smtp_user", "");
        say("smtp_password", "");
        say("logfile", "");
        say("syslog", "False");
        say("log_level", "info");
        // It is the drill that limits time and memory: Odoo would restart itself in the middle of a check.
        for key in ["limit_memory_soft", "limit_memory_hard", "limit_time_cpu", "limit_time_real"] {
            say(key, "0");
        }
        text
    }

    /// Arguments after the program.
    pub(super) fn arguments(&self, database: &str, series: u32) -> Vec<String> {
        let ours = [
            format!("--config={}", self.config_file(database).display()),
            format!("--database={database}"),
            format!("--db-filter={}", exactly(database)),
            format!("--db_user={ROLE}"),
            "--no-database-list".to_owned(),
            format!("--data-dir={}", self.data_dir().display()),
            "--http-interface=127.0.0.1".to_owned(),
            format!("--http-port={}", self.around.port),
            "--workers=0".to_owned(),
            "--max-cron-threads=0".to_owned(),
            format!("--load={}", server_wide_modules(series)),
            "--smtp=127.0.0.1".to_owned(),
            "--smtp-port=25".to_owned(),
        ];
        self.odoo.command[1..].iter().chain(&self.odoo.arguments).cloned().chain(ours).collect()
    }
}

/// The address of a copy that listens on `port`.
pub fn base_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Never more than what Odoo itself needs: `queue_job` in this list starts a runner that polls every database.
fn server_wide_modules(series: u32) -> &'static str {
    if series >= 19 { "base,rpc,web" } else { "base,web" }
}

/// A pattern that matches this name only.
fn exactly(database: &str) -> String {
    let mut pattern = "^".to_owned();
    for letter in database.chars() {
        if !(letter.is_alphanumeric() || letter == '_' || letter == '-') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern + "$"
}

fn file_name(database: &str) -> String {
    database.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::postgres::launch::OnHost;

    #[test]
    fn what_keeps_the_copy_apart_is_said_last() {
        let odoo = DrillOdoo {
            command: vec!["/venv/bin/python".into(), "/odoo/odoo-bin".into()],
            addons_path: Vec::new(),
            arguments: vec!["--workers=4".into(), "-c".into(), "/etc/odoo/odoo.conf".into(), "--load=queue_job".into()],
            boot_timeout: Duration::from_secs(1),
            read_only_paths: Vec::new(),
        };
        let around = Surroundings {
            launch: &OnHost { account: None },
            account: None,
            filestore: Path::new("/drill/filestore"),
            home: Path::new("/drill/odoo"),
            port: PORT,
            way: Way::Loopback(PORT),
        };
        let addons = AddonsPaths::from(vec!["/usr".into(), "/tmp".into()]);
        let settings = Settings { odoo: &odoo, addons: &addons, around: &around, checks: &[] };
        let arguments = settings.arguments("shop.v1", 19);
        assert_eq!(arguments[0], "/odoo/odoo-bin");
        let last = |start: &str| arguments.iter().rposition(|a| a.starts_with(start)).expect("said");
        assert!(last("--workers=0") > last("--workers=4") && last("--config=") > last("-c"));
        assert_eq!(arguments[last("--load=")], "--load=base,rpc,web");
        assert_eq!(arguments[last("--db-filter=")], "--db-filter=^shop\\.v1$");
        let text = settings.config("shop.v1", 18, Path::new("/drill/pg"), "x");
        for line in
            ["addons_path = /usr,/tmp", "server_wide_modules = base,web", "max_cron_threads = 0", "list_db = False"]
        {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert_eq!(settings.config_file("../x"), Path::new("/drill/odoo/___x.conf"));
    }
}
