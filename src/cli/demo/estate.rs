//! The demo's configuration: real files, loaded like anybody's, so that with `--keep` every command works on.

use std::fs;
use std::path::Path;

use url::Url;

use super::cluster::Cluster;
use super::place::Place;
use crate::cli::context::Context;
use crate::cli::{init, keygen};
use crate::drill::sandbox::trial;
use crate::error::{ErrorKind, Result, ResultExt, internal};
use crate::event::Event;
use crate::runtime::Runtime;

/// Name of the demo's environment.
pub(super) const ENVIRONMENT: &str = "demo";

/// Name of the demo's database.
pub(super) const DATABASE: &str = "retail";

/// The checks of a drill, as the project's own `restore-tests/` has them.
const CHECKS: [(&str, &str); 2] = [
    ("odoo-hard.toml", include_str!("../../../restore-tests/odoo-hard.toml")),
    ("odoo-facts.toml", include_str!("../../../restore-tests/odoo-facts.toml")),
];

/// Makes keys, writes the configuration, makes the repository.
pub(super) async fn make(place: &Place, bin_dir: &Path, runtime: &Runtime) -> Result<Context> {
    let recipient = keygen::make(&place.join("recovery.key"))?;
    for (name, text) in CHECKS {
        write(&place.join("restore-tests").join(name), text)?;
    }
    let file = place.join("lifeboat.toml");
    let sandbox = sandbox(place, runtime).await?;
    write(&file, &configuration(place, bin_dir, &recipient, sandbox)?)?;
    let context = Context::load(Some(&file), runtime.clone())?;
    init::run(&context).await?;
    Ok(context)
}

/// Odoo's own configuration file, which the configuration export takes along.
pub(super) fn write_odoo_conf(place: &Place) -> Result<()> {
    let text = format!(
        "[options]\n; the demo's shop; no Odoo runs here\ndata_dir = {}\ndb_host = {}\ndb_port = 5432\ndb_user = postgres\n\
         db_name = {DATABASE}\nlist_db = False\nproxy_mode = True\nworkers = 4\n",
        place.join("production/odoo").display(),
        place.sockets().display()
    );
    write(&place.join("production/odoo.conf"), &text)
}

/// What the demo's drill runs in. There is nothing in the shop that could get out; so where the host allows no
/// sandbox the demo goes on without, and says so.
async fn sandbox(place: &Place, runtime: &Runtime) -> Result<&'static str> {
    let program =
        std::env::current_exe().or_err(ErrorKind::Internal, || "cannot find this program's file".to_owned())?;
    match trial(&program, place.root(), place.account(), None, runtime.now()).await {
        Ok(_) => Ok("local"),
        Err(e) => {
            runtime.emit(Event::Warning(format!("the drill of this demo will not be sealed: {e}")));
            Ok("none")
        }
    }
}

fn configuration(place: &Place, bin_dir: &Path, recipient: &str, sandbox: &str) -> Result<String> {
    let repository = Url::from_file_path(place.join("repository"))
        .map_err(|()| internal(format!("{} has no URL", place.root().display())))?;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |path: &Path| quoted(&path.display().to_string());
    Ok(format!(
        "# The estate of Lifeboat's demo: a shop that was destroyed and restored.\n\
         include = [\"restore-tests/*.toml\"]\n\n\
         [repository]\nurl = {url}\n\n\
         [keys]\nrecipients = [{recipient}]\n\
         # A host that only backs up would not have this key.\n\
         identity = {{ file = \"recovery.key\" }}\nstate_dir = \"state\"\n\n\
         [[environment]]\nname = \"{ENVIRONMENT}\"\npurpose = \"production\"\nowner = \"you\"\n\n\
         [environment.objectives]\nrpo = \"60s\"\nrto = \"10m\"\n\n\
         [environment.postgres]\ndsn = {dsn}\nbin_dir = {bin_dir}\n\n\
         [[environment.odoo]]\ndata_dir = \"production/odoo\"\nconfig_file = \"production/odoo.conf\"\n\
         databases = [\"{DATABASE}\"]\n\n\
         [environment.configuration]\n\
         # Another Odoo may run on this host; it is none of the demo's business.\n\
         process_environment = false\n\n\
         [environment.drill]\nwork_dir = \"drills\"\nreport_dir = {report}\nsandbox = \"{sandbox}\"\n",
        url = quoted(repository.as_str()),
        recipient = quoted(recipient),
        dsn = quoted(&Cluster::dsn(place.sockets())),
        bin_dir = path(bin_dir),
        report = path(place.report()),
    ))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).or_err(ErrorKind::Internal, || format!("cannot write {}", path.display()))
}
