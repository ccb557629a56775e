//! KWOK's Stages, with delays that a test sets for each object.
//!
//! KWOK's own Stages make nodes and pods Ready, and remove deleted pods, at once. In a real cluster this takes time, and
//! several faults happen in that time. So an annotation of the Node or Pod sets each delay (a Go duration, such as `1500ms`).

use std::path::Path;

use serde_json::{Value, json};

use super::tools::tools;

/// Annotation of a Node or a Pod: the time until it is Ready.
pub(crate) const READY_AFTER: &str = "daemonset-warden.test/ready-after";
/// Annotation of a Pod: the time from its deletion until it is gone.
pub(crate) const GONE_AFTER: &str = "daemonset-warden.test/gone-after";
/// A delay that is longer than any test.
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
