//! What a container that runs is, in the engine's own words: it may have understood something else than it was
//! asked for, and then nothing is started in it.

use serde_json::Value;

use super::image::Image;
use crate::error::{self, Result};

/// Holds what the engine says of a started container against what a sandbox needs.
///
/// # Errors
/// Integrity, where it runs another image; configuration, where it is less closed than asked for.
pub(super) fn hold(name: &str, container: &Value, image: &Image, network: &str) -> Result<()> {
    if !image.is_run_by(container) {
        let runs = container["Image"].as_str().unwrap_or("an unknown image");
        return Err(error::integrity(format!(
            "the container {name} runs {runs}, and not {} ({})",
            image.pinned, image.id
        )));
    }
    let host = &container["HostConfig"];
    let mut open = Vec::new();
    if host["Privileged"].as_bool() != Some(false) {
        open.push("it is privileged".to_owned());
    }
    if host["ReadonlyRootfs"].as_bool() != Some(true) {
        open.push("its root can be written".to_owned());
    }
    if host["NetworkMode"].as_str() != Some(network) {
        open.push(format!("its network is {}, and not {network}", host["NetworkMode"]));
    }
    let published = [&host["PortBindings"], &container["NetworkSettings"]["Ports"]];
    if published.iter().any(|ports| ports.as_object().is_some_and(|ports| ports.values().any(|port| !port.is_null()))) {
        open.push("it has published ports".to_owned());
    }
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    for volume in mounts.filter(|mount| mount["Type"].as_str() == Some("volume")) {
        open.push(format!("it has a volume at {}", volume["Destination"]));
    }
    match open.is_empty() {
        true => Ok(()),
        false => Err(error::config(format!(
            "the engine made the container {name} otherwise than asked: {}",
            open.join("; ")
        ))
        .meaning("nothing was restored: a copy of production is not started where something leads out")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_is_less_closed_than_asked_for_is_refused() {
        let image = Image { pinned: "x".into(), id: "sha256:1".into(), volumes: Vec::new() };
        let closed = json!({
            "Image": "sha256:1",
            "HostConfig": { "Privileged": false, "ReadonlyRootfs": true, "NetworkMode": "none", "PortBindings": {} },
            "NetworkSettings": { "Ports": { "5432/tcp": null } },
            "Mounts": [{ "Type": "bind", "Destination": "/x" }],
        });
        hold("c", &closed, &image, "none").expect("closed");
        for (pointer, value, word) in [
            ("/HostConfig/Privileged", json!(true), "privileged"),
            ("/HostConfig/ReadonlyRootfs", json!(false), "written"),
            ("/HostConfig/NetworkMode", json!("bridge"), "bridge"),
            ("/HostConfig/PortBindings", json!({ "80/tcp": [{ "HostPort": "80" }] }), "published"),
            ("/Mounts/0/Type", json!("volume"), "volume"),
        ] {
            let mut open = closed.clone();
            *open.pointer_mut(pointer).expect("there") = value;
            let failure = hold("c", &open, &image, "none").expect_err("refused");
            assert!(failure.message().contains(word), "{failure}");
        }
        let mut other = closed;
        other["Image"] = json!("sha256:2");
        assert_eq!(hold("c", &other, &image, "none").expect_err("refused").kind(), ErrorKind::Integrity);
    }
}
