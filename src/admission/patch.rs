//! The JSON Patch (RFC 6902) that `/mutate` answers with.
//!
//! Operations and pointers are those of [`json_patch`], which carries a value as [`serde_json::Value`]: it loses spaces, and
//! cannot hold a number that is not an `f64`. [`Patch::add_raw`] is for values with parts of the object, which must survive byte
//! for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// The operations of a patch, in the order in which the apiserver applies them. A path is given as its keys from the root, without
/// escapes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Patch(Vec<PatchEntry>);

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum PatchEntry {
    Typed(PatchOperation),
    RawAdd(RawAdd),
}

/// An [`AddOperation`] whose value is written byte for byte as given.
#[derive(Debug, Clone, Serialize)]
struct RawAdd {
    op: &'static str,
    path: PointerBuf,
    value: Box<RawValue>,
}

// `RawValue` has no `PartialEq`.
impl PartialEq for RawAdd {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.value.get() == other.value.get()
    }
}

impl Patch {
    /// Returns true if there are no operations: then the response carries no patch.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the value at `path`, whose parent must exist in the object.
    pub fn add(&mut self, path: &[&str], value: impl Into<Value>) {
        let add = AddOperation { path: pointer(path), value: value.into() };
        self.0.push(PatchEntry::Typed(PatchOperation::Add(add)));
    }

    /// Sets the value at `path` as [`Patch::add`] does; [`RawValue`]s in it are written byte for byte.
    pub fn add_raw(&mut self, path: &[&str], value: &impl Serialize) {
        self.0.push(PatchEntry::RawAdd(RawAdd { op: "add", path: pointer(path), value: raw(value) }));
    }

    /// Removes the value at `path`, which must exist in the object.
    pub fn remove(&mut self, path: &[&str]) {
        self.0.push(PatchEntry::Typed(PatchOperation::Remove(RemoveOperation { path: pointer(path) })));
    }

    /// Returns the patch as JSON: an array of operations.
    #[expect(
        clippy::expect_used,
        reason = "serialising fails for maps whose keys are not text; a patch has none"
    )]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a patch is JSON")
    }

    /// Returns the patch as `response.patch` of an AdmissionReview carries it, as a JSON string: base64 in the standard alphabet, with
    /// padding. None of its characters needs an escape.
    #[expect(clippy::expect_used, reason = "base64 between quotes is a JSON string")]
    pub fn to_base64(&self) -> Box<RawValue> {
        let patch = self.to_json();
        let mut quoted = String::with_capacity(patch.len() / 3 * 4 + 6);
        quoted.push('"');
        STANDARD.encode_string(patch, &mut quoted);
        quoted.push('"');
        RawValue::from_string(quoted).expect("base64 has no quotes")
    }
}

/// Returns a value as JSON that a patch carries byte for byte.
#[expect(
    clippy::expect_used,
    reason = "serialising fails for maps whose keys are not text; a value of a patch has none"
)]
pub(super) fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("a value of a patch is JSON")
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_written_in_order() {
        let mut patch = Patch::default();
        assert!(patch.is_empty() && patch.to_json() == "[]");
        let raw = RawValue::from_string("{ \"é\":1e400 }".to_owned()).unwrap();
        patch.add_raw(&["a", "b/c~d"], &[&*raw]);
        patch.add(&["e"], "\"\n");
        patch.remove(&["x"]);
        let expected = r#"[{"op":"add","path":"/a/b~1c~0d","value":[{ "é":1e400 }]},{"op":"add","path":"/e","value":"\"\n"},{"op":"remove","path":"/x"}]"#;
        assert_eq!(patch.to_json(), expected);
        assert!(!patch.is_empty());
    }
}
