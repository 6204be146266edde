//! The effective environment of running Odoo processes, from `/proc`: Odoo 19 and the Docker images
//! take options from variables and arguments that no file shows.
//!
//! Values are kept, secrets included: they are needed to rebuild, and exports are encrypted. Only
//! variables that configure Odoo or what it talks to are kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::export::{Collector, VOLATILE};

/// One running Odoo.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Process {
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    #[serde(skip)]
    pid: u32,
}

const NAME: &str = "odoo/environment.json";

/// Finds Odoo processes (by program, or by a known configuration file or data directory among their
/// arguments) below `proc`, keeps `environment.json`, and returns them.
pub(crate) fn collect(proc: &Path, known_files: &[PathBuf], into: &mut Collector) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir(proc) else {
        into.missing(NAME, proc.to_string_lossy(), "cannot be listed");
        return Vec::new();
    };
    let mut found = Vec::new();
    for pid in entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
        let dir = proc.join(pid.to_string());
        let Ok(arguments) = std::fs::read(dir.join("cmdline")) else { continue };
        let command = strings(&arguments);
        if !is_odoo(&command, known_files) {
            continue;
        }
        let environment = match std::fs::read(dir.join("environ")) {
            Ok(block) => strings(&block)
                .iter()
                .filter_map(|v| v.split_once('='))
                .filter(|(k, _)| is_kept(k))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
            // Gone meanwhile: not running, so nothing is missing.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => {
                into.missing(NAME, format!("environ of {}", command.join(" ")), e.to_string());
                BTreeMap::new()
            }
        };
        found.push(Process { command, environment, pid });
    }
    found.sort();
    let pids: Vec<u32> = found.iter().map(|p| p.pid).collect();
    found.dedup_by(|a, b| (&a.command, &a.environment) == (&b.command, &b.environment));
    let value = json!({ "processes": found, VOLATILE: { "pids": pids } });
    into.json(NAME, "running processes", &value);
    found
}

impl Process {
    /// Add-on paths from arguments and environment.
    pub(crate) fn addons_paths(&self) -> Vec<PathBuf> {
        let from_argument = argument(&self.command, &["--addons-path"]);
        let lists = from_argument.into_iter().chain(self.environment.get("ODOO_ADDONS_PATH").map(String::as_str));
        lists.flat_map(super::odoo_files::split_paths).collect()
    }
}

fn strings(block: &[u8]) -> Vec<String> {
    let parts = block.split(|b| *b == 0).filter(|p| !p.is_empty());
    parts.map(|p| String::from_utf8_lossy(p).into_owned()).collect()
}

fn is_odoo(command: &[String], known_files: &[PathBuf]) -> bool {
    let base = |arg: &String| Path::new(arg).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let is_program = |arg: &String| matches!(base(arg).as_str(), "odoo-bin" | "odoo" | "odoo.py" | "openerp-server");
    let Some(first) = command.first() else { return false };
    if is_program(first) {
        return true;
    }
    if base(first).starts_with("python") {
        let script = command.iter().skip(1).find(|a| !a.starts_with('-') || *a == "-m");
        let script =
            if script.is_some_and(|a| a == "-m") { command.iter().skip_while(|a| *a != "-m").nth(1) } else { script };
        if script.is_some_and(is_program) {
            return true;
        }
    }
    let values = [&["-c", "--config"][..], &["-D", "--data-dir"][..]].map(|names| argument(command, names));
    values.into_iter().flatten().any(|v| known_files.iter().any(|k| k == Path::new(v)))
}

/// The value of an option given as `--name value` or `--name=value`.
fn argument<'a>(command: &'a [String], names: &[&str]) -> Option<&'a str> {
    command.iter().enumerate().find_map(|(at, arg)| {
        names.iter().find_map(|name| match arg.strip_prefix(name)? {
            "" => command.get(at + 1).map(String::as_str),
            rest => rest.strip_prefix('='),
        })
    })
}

/// Whether a variable configures Odoo, its connections or its images' entry points.
fn is_kept(name: &str) -> bool {
    const PREFIXES: [&str; 8] = ["ODOO_", "OPENERP_", "PG", "DB_", "AWS_", "AZURE_", "SWIFT_", "SERVER_ENV_"];
    const NAMES: [&str; 9] =
        ["HOST", "PORT", "USER", "PASSWORD", "PASSWORD_FILE", "RUNNING_ENV", "TZ", "LANG", "LC_ALL"];
    PREFIXES.iter().any(|p| name.starts_with(p)) || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn odoo_processes_are_told_from_others() {
        let known = [PathBuf::from("/etc/odoo/odoo.conf"), PathBuf::from("/var/lib/odoo")];
        for (command, odoo) in [
            ("/usr/bin/python3 /usr/bin/odoo --db_host db", true),
            ("python3.11 -u /opt/odoo/odoo-bin -c /etc/x.conf", true),
            ("python3 -m odoo", true),
            ("/opt/venv/bin/odoo server", true),
            ("/srv/start-erp -c /etc/odoo/odoo.conf", true),
            ("/srv/start-erp --config=/etc/odoo/odoo.conf", true),
            ("/srv/start-erp --data-dir /var/lib/odoo", true),
            ("vi /etc/odoo/odoo.conf", false),
            ("python3 /opt/tools/check.py odoo", false),
            ("lifeboat -c lifeboat.toml", false),
            ("tail -f /var/log/odoo/odoo.log", false),
        ] {
            assert_eq!(is_odoo(&words(command), &known), odoo, "{command}");
        }
    }

    #[test]
    fn environments_are_kept_once_and_only_what_configures() {
        let proc = tempfile::tempdir().expect("temp dir");
        for pid in ["101", "102", "103"] {
            std::fs::create_dir(proc.path().join(pid)).expect("dir");
            let command = if pid == "103" { "bash\0" } else { "python3\0/usr/bin/odoo\0--addons-path=/x,/y\0" };
            std::fs::write(proc.path().join(pid).join("cmdline"), command).expect("write");
            let block = "ODOO_WORKERS=4\0PGPASSWORD=a=b\0HOME=/root\0PASSWORD=x\0SECRET_OF_ANOTHER=1\0";
            std::fs::write(proc.path().join(pid).join("environ"), block).expect("write");
        }
        std::fs::create_dir(proc.path().join("104")).expect("dir");
        std::fs::write(proc.path().join("104/cmdline"), "odoo\0").expect("write");
        std::fs::create_dir(proc.path().join("104/environ")).expect("unreadable");
        let mut into = Collector::default();
        let found = collect(proc.path(), &[], &mut into);
        let export = into.finish(chrono::DateTime::UNIX_EPOCH);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].addons_paths(), ["/x", "/y"].map(PathBuf::from));
        let kept: Vec<_> = found[1].environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(kept, ["ODOO_WORKERS=4", "PASSWORD=x", "PGPASSWORD=a=b"]);
        assert_eq!(export.unreadable.len(), 1);
        let text = String::from_utf8(export.files[0].content.clone()).expect("UTF-8");
        assert!(text.contains("101") && text.contains("102"), "{text}");
    }

    #[test]
    fn a_running_process_is_found_in_the_real_proc() {
        use std::os::unix::process::CommandExt;
        let mut child = std::process::Command::new("sleep")
            .arg0("/opt/odoo/odoo-bin")
            .arg("60")
            .env("ODOO_LIFEBOAT_TEST", "here")
            .spawn()
            .expect("sleep starts");
        // The kernel shows the arguments a moment after the program has started.
        let cmdline = format!("/proc/{}/cmdline", child.id());
        while std::fs::read(&cmdline).expect("it runs").is_empty() {
            std::thread::yield_now();
        }
        let mut into = Collector::default();
        let found = collect(Path::new("/proc"), &[], &mut into);
        child.kill().and_then(|()| child.wait()).expect("ends");
        assert!(found.iter().any(|p| p.environment.get("ODOO_LIFEBOAT_TEST").is_some_and(|v| v == "here")));
    }
}
