//! KWOK's Stages, with delays that a test asks for object by object.
//!
//! KWOK's own Stages make nodes and pods Ready, and deleted pods gone, at once. Real ones take time, and several faults
//! live in that time, so each delay can be set by an annotation (a Go duration, such as `1500ms`) of the Node or Pod.

use std::path::Path;

use serde_json::{Value, json};

use super::tools::tools;

/// On a Node or a Pod: how long until it is Ready.
pub(crate) const READY_AFTER: &str = "daemonset-warden.test/ready-after";
/// On a Pod: how long from its deletion until it is gone.
pub(crate) const GONE_AFTER: &str = "daemonset-warden.test/gone-after";
/// Longer than any test: never.
pub(crate) const NEVER: &str = "10h";

/// Writes the file for KWOK's `--config`.
pub(crate) fn write(file: &Path) {
    let mut text = String::new();
    for stage in tools().stages() {
        let mut stage: Value = serde_saphyr::from_str(&stage).expect("KWOK's Stage files are YAML");
        let annotation = match stage["metadata"]["name"].as_str().unwrap_or_default() {
            "node-initialize" | "pod-ready" => Some(READY_AFTER),
            "pod-delete" => Some(GONE_AFTER),
            _ => None,
        };
        if let Some(annotation) = annotation {
            stage["spec"]["delay"] = json!({
                "durationMilliseconds": 0, // without the annotation
                "durationFrom": { "jq": { "expression": format!(".metadata.annotations[\"{annotation}\"]") } },
            });
        }
        // JSON is YAML.
        text += &format!("---\n{stage}\n");
    }
    std::fs::write(file, text).expect("KWOK's configuration can be written");
}
