//! What the engine is asked to make: containers without a network, a capability, a volume or a published port,
//! whose root is read-only, with nothing of this host but the drill's own directories.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::image::Image;
use super::spec::{AgentSpec, Spec};
use super::{AGENT, GATE, LABEL};
use crate::drill::sandbox::inside::settings;
use crate::drill::sandbox::seal::Part;

/// What the gate needs to set up the network that all share; it gives all of it up before it reports.
const GATE_CAPABILITIES: [&str; 5] = ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SETUID", "SETGID"];
/// Size of directories that are there because an image declares them, and that nobody writes to.
const EMPTY: &str = "ro,nosuid,nodev,noexec,size=4k,mode=0555";
/// Size of `/run`.
const RUN: &str = "rw,nosuid,nodev,size=16m,mode=1777";

/// The gate. `start` are the words that start Lifeboat's program in any image.
pub(super) fn gate(
    spec: &Spec,
    image: &Image,
    start: &[String],
    user_namespace: Option<&str>,
    has_ipv6: bool,
) -> Value {
    let told = serde_json::to_string(&spec.gate()).expect("plain data");
    let mut body = common(spec, image, start, [GATE.to_owned(), told], user_namespace);
    body["User"] = json!("0:0");
    body["Hostname"] = json!("drill");
    let mut mounts = vec![bind(&spec.runtime(), &spec.runtime(), true), bind(&spec.short, &spec.short, false)];
    mounts.extend(spec.hidden().map(|directory| bind(directory, directory, false)));
    let host = &mut body["HostConfig"];
    host["NetworkMode"] = json!("none");
    host["CapAdd"] = json!(GATE_CAPABILITIES);
    if has_ipv6 {
        // So that it leads to the sinkhole, too, where the engine switches it off.
        host["Sysctls"] = json!({ "net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0" });
    }
    host["Mounts"] = json!(mounts);
    host["Tmpfs"] = empty(image, &[]);
    body
}

/// A container for programs, in the namespaces of the gate.
pub(super) fn part(
    spec: &Spec,
    part: Part,
    image: &Image,
    start: &[String],
    gate: &str,
    user_namespace: Option<&str>,
) -> Value {
    let told = AgentSpec { line: spec.line(), socket: spec.agent(part) };
    let told = serde_json::to_string(&told).expect("plain data");
    let mut body = common(spec, image, start, [AGENT.to_owned(), told], user_namespace);
    body["User"] = json!(format!("{}:{}", spec.uid, spec.gid));
    let mut mounts = vec![bind(&spec.root, &spec.root, false), bind(&spec.short, &spec.short, false)];
    mounts.extend(["/tmp", "/var/tmp"].map(|inside| bind(&spec.temporary, Path::new(inside), false)));
    for (name, _) in settings::files(&spec.account, spec.uid, spec.gid) {
        mounts.push(bind(&spec.settings().join(name), &Path::new("/etc").join(name), true));
    }
    mounts.extend(spec.readable.iter().map(|path| bind(path, path, true)));
    let mut tmpfs = empty(image, &mounts);
    tmpfs["/run"] = json!(RUN);
    if let Some(hidden) = spec.hidden() {
        tmpfs[hidden.display().to_string()] = json!(EMPTY);
    }
    let host = &mut body["HostConfig"];
    host["NetworkMode"] = json!(format!("container:{gate}"));
    host["PidMode"] = json!(format!("container:{gate}"));
    host["Mounts"] = json!(mounts);
    host["Tmpfs"] = tmpfs;
    body
}

fn common(spec: &Spec, image: &Image, start: &[String], command: [String; 2], user_namespace: Option<&str>) -> Value {
    let limit = |name: &str, most: u64| json!({ "Name": name, "Soft": most, "Hard": most });
    let mut host = json!({
        "Privileged": false,
        "ReadonlyRootfs": true,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", "label=disable"],
        "IpcMode": "private",
        "PublishAllPorts": false,
        "RestartPolicy": { "Name": "no" },
        "AutoRemove": false,
        "PidsLimit": spec.programs.processes,
        "ShmSize": spec.memory_files,
        "Ulimits": [limit("core", 0), limit("nofile", spec.programs.files), limit("nproc", spec.programs.processes)],
    });
    if let Some(memory) = spec.memory {
        host["Memory"] = json!(memory);
        // Memory and swap together: none of it may be swap.
        host["MemorySwap"] = json!(memory);
    }
    if let Some(cpus) = spec.config.nano_cpus {
        host["NanoCpus"] = json!(cpus);
    }
    if let Some(mode) = user_namespace {
        host["UsernsMode"] = json!(mode);
    }
    json!({
        "Image": image.id,
        "Labels": { LABEL: spec.drill },
        "Entrypoint": start,
        "Cmd": command,
        "Env": ["LC_ALL=C", "PATH=/usr/bin:/bin", "TZ=UTC"],
        "WorkingDir": "/",
        "Healthcheck": { "Test": ["NONE"] },
        "HostConfig": host,
    })
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Value {
    json!({ "Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only })
}

/// What the image declares as volumes, as empty directories; none of what is mounted anyway.
fn empty(image: &Image, mounts: &[Value]) -> Value {
    let taken = |volume: &str| mounts.iter().any(|mount| mount["Target"].as_str() == Some(volume));
    let volumes = image.volumes.iter().map(|volume| volume.trim_end_matches('/')).filter(|volume| !taken(volume));
    let empty: BTreeMap<String, Value> = volumes.map(|volume| (volume.to_owned(), json!(EMPTY))).collect();
    Value::Object(Map::from_iter(empty))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DrillContainer;
    use crate::drill::sandbox::inside::Programs;

    fn spec() -> Spec {
        let pinned = format!("sha256:{}", "0".repeat(64)).parse().expect("a digest");
        Spec {
            drill: "d".into(),
            root: "/work/d".into(),
            short: "/tmp/d".into(),
            temporary: "/work/d/tmp".into(),
            readable: vec!["/opt/check".into()],
            account: "postgres".into(),
            uid: 101,
            gid: 104,
            doors: Vec::new(),
            egress: "/work/d/egress/egress.jsonl".into(),
            memory_files: 1 << 20,
            memory: Some(2 << 30),
            programs: Programs::default(),
            config: DrillContainer {
                socket: "/run/engine.sock".into(),
                postgres: pinned,
                odoo: None,
                bin_dir: None,
                nano_cpus: Some(1_500_000_000),
                processes: 4096,
            },
            major: Some(16),
        }
    }

    #[test]
    fn programs_get_no_capability_no_network_no_volume_and_no_notes() {
        let volumes = vec!["/var/lib/postgresql/data".to_owned(), "/tmp".to_owned()];
        let image = Image { pinned: "x".into(), id: "sha256:1".into(), volumes };
        let (spec, start) = (spec(), ["/work/d/runtime/ld.so".to_owned()]);
        let body = part(&spec, Part::Server, &image, &start, "gate-id", None);
        let host = &body["HostConfig"];
        assert_eq!((&body["Image"], &body["User"]), (&json!("sha256:1"), &json!("101:104")));
        assert_eq!((&host["CapDrop"], &host["CapAdd"]), (&json!(["ALL"]), &Value::Null));
        assert_eq!(
            (&host["NetworkMode"], &host["PidMode"]),
            (&json!("container:gate-id"), &json!("container:gate-id"))
        );
        assert_eq!((&host["ReadonlyRootfs"], &host["Memory"]), (&json!(true), &json!(2_u64 << 30)));
        let tmpfs: Vec<&String> = host["Tmpfs"].as_object().expect("a table").keys().collect();
        assert_eq!(tmpfs, ["/run", "/var/lib/postgresql/data", "/work/d/egress"]);
        let writable = |mount: &&Value| mount["ReadOnly"] == json!(false);
        let mounts = host["Mounts"].as_array().expect("a list");
        let targets: Vec<&str> = mounts.iter().filter(writable).filter_map(|m| m["Target"].as_str()).collect();
        assert_eq!(targets, ["/work/d", "/tmp/d", "/tmp", "/var/tmp"]);
    }

    #[test]
    fn the_gate_sees_nothing_of_the_copy() {
        let image = Image { pinned: "x".into(), id: "sha256:1".into(), volumes: Vec::new() };
        let body = gate(&spec(), &image, &[], Some("keep-id"), true);
        let host = &body["HostConfig"];
        assert_eq!((&host["NetworkMode"], &host["UsernsMode"]), (&json!("none"), &json!("keep-id")));
        let mounts = host["Mounts"].as_array().expect("a list");
        let targets: Vec<&str> = mounts.iter().filter_map(|mount| mount["Target"].as_str()).collect();
        assert_eq!(targets, ["/work/d/runtime", "/tmp/d", "/work/d/egress"]);
    }
}
