//! Images, by digest: what was pinned is what the engine has, and what it runs.

use serde_json::Value;

use super::engine::Engine;
use crate::config::ImageReference;
use crate::error::{self, Result};

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// As it was pinned.
    pub(super) pinned: String,
    /// Its id in the engine: what containers are made of.
    pub(super) id: String,
    /// Directories that it declares as volumes.
    pub(super) volumes: Vec<String>,
}

impl Image {
    /// The image that is pinned. Lifeboat fetches none: a drill reaches nothing outside.
    ///
    /// # Errors
    /// Configuration, where the engine does not have it.
    pub(super) async fn find(engine: &Engine, pinned: &ImageReference) -> Result<Self> {
        let Some(found) = engine.image(pinned.as_str()).await? else {
            return Err(error::config(format!("the engine at {} has no image {pinned}", engine.socket().display()))
                .meaning("nothing was restored: Lifeboat fetches no images, it runs those that are there")
                .hint(format!("fetch it: `podman pull {pinned}` or `docker pull {pinned}`")));
        };
        let id = with_algorithm(found["Id"].as_str().unwrap_or_default());
        // The engine found it by this digest; even so it is held against what the engine says that it is.
        if !is_pinned(&found, &id, pinned) {
            return Err(error::integrity(format!("the engine gives for {pinned} an image of another digest: {id}"))
                .hint("remove that image, and fetch the pinned one again"));
        }
        let volumes = found["Config"]["Volumes"].as_object().map(|volumes| volumes.keys().cloned().collect());
        Ok(Self { pinned: pinned.to_string(), id, volumes: volumes.unwrap_or_default() })
    }

    /// Whether a container that the engine describes runs this image.
    pub(super) fn is_run_by(&self, container: &Value) -> bool {
        container["Image"].as_str().is_some_and(|id| with_algorithm(id) == self.id)
    }
}

fn is_pinned(found: &Value, id: &str, pinned: &ImageReference) -> bool {
    let digests = found["RepoDigests"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let digests = digests.filter_map(|digest| digest.split_once('@').map(|(_, digest)| digest));
    std::iter::once(id).chain(digests).any(|digest| digest == pinned.digest())
}

/// Podman leaves the name of the algorithm out in places.
fn with_algorithm(id: &str) -> String {
    if id.contains(':') { id.to_owned() } else { format!("sha256:{id}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_digest_is_another_image() {
        let (one, two, id) = ("1".repeat(64), "2".repeat(64), format!("sha256:{}", "3".repeat(64)));
        let found = json!({ "Id": id, "RepoDigests": [format!("example.org/pg@sha256:{one}")] });
        let pinned = |text: &str| text.parse::<ImageReference>().expect("pinned");
        assert!(is_pinned(&found, &id, &pinned(&format!("example.org/pg@sha256:{one}"))));
        assert!(is_pinned(&found, &id, &pinned(&id)));
        assert!(!is_pinned(&found, &id, &pinned(&format!("example.org/pg@sha256:{two}"))));
        let image = Image { pinned: String::new(), id: id.clone(), volumes: Vec::new() };
        assert!(image.is_run_by(&json!({ "Image": "3".repeat(64) })));
        assert!(!image.is_run_by(&json!({ "Image": format!("sha256:{two}") })));
        assert!(!image.is_run_by(&json!({})));
    }
}
