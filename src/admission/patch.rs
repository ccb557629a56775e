//! A JSON Patch (RFC 6902), written operation by operation.
//!
//! Values are JSON text: what is carried over from an object is carried over to the byte, so that numbers of any length and
//! fields that nobody here knows survive.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::json::plain_text::plain_length;

/// Operations in the order that they apply in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// The operations, each followed by a comma.
    operations: String,
}

impl Patch {
    /// Whether there is nothing to do: then there is no patch to answer with.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Sets what is at `path`, whose parent must exist; `value` is JSON.
    pub fn add(&mut self, path: &[&str], value: &str) {
        self.begin("add", path);
        self.operations.push_str(r#","value":"#);
        self.operations.push_str(value);
        self.operations.push_str("},");
    }

    /// Removes what is at `path`, which must exist.
    pub fn remove(&mut self, path: &[&str]) {
        self.begin("remove", path);
        self.operations.push_str("},");
    }

    /// The array of operations.
    pub fn to_json(&self) -> String {
        format!("[{}]", self.operations.strip_suffix(',').unwrap_or_default())
    }

    /// Returns it as `response.patch` of an AdmissionReview carries it: the standard alphabet, with padding.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.to_json())
    }

    fn begin(&mut self, operation: &str, path: &[&str]) {
        self.operations.push_str(r#"{"op":""#);
        self.operations.push_str(operation);
        self.operations.push_str(r#"","path":""#);
        for token in path {
            self.operations.push('/');
            push_token(&mut self.operations, token);
        }
        self.operations.push('"');
    }
}

/// Writes a token of a JSON pointer into a JSON string.
fn push_token(into: &mut String, token: &str) {
    for letter in token.chars() {
        match letter {
            '~' => into.push_str("~0"),
            '/' => into.push_str("~1"),
            _ => push_letter(into, letter),
        }
    }
}

fn push_letter(into: &mut String, letter: char) {
    match letter {
        '"' => into.push_str("\\\""),
        '\\' => into.push_str("\\\\"),
        '\0'..='\u{1f}' => into.push_str(&format!("\\u{:04x}", u32::from(letter))),
        _ => into.push(letter),
    }
}

/// Writes `text` as a JSON string.
pub fn push_string(into: &mut String, text: &str) {
    into.push('"');
    let (plain, rest) = text.split_at(plain_length(text.as_bytes()));
    into.push_str(plain);
    rest.chars().for_each(|letter| push_letter(into, letter));
    into.push('"');
}

#[cfg(test)]
mod tests {
    use json_patch::PatchOperation;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn operations_are_written_in_order() {
        let mut patch = Patch::default();
        assert!(patch.is_empty() && patch.to_json() == "[]");
        patch.add(&["a", "b/c~d"], "[1e400]");
        patch.remove(&["x"]);
        let expected = r#"[{"op":"add","path":"/a/b~1c~0d","value":[1e400]},{"op":"remove","path":"/x"}]"#;
        assert_eq!(patch.to_json(), expected);
        assert!(!patch.is_empty());
    }

    proptest! {
        #[test]
        fn pointers_name_what_they_were_made_of(tokens in prop::collection::vec(any::<String>(), 1..4), value in any::<String>()) {
            let mut patch = Patch::default();
            let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
            let mut text = String::new();
            push_string(&mut text, &value);
            patch.add(&tokens, &text);
            let bytes = STANDARD.decode(patch.to_base64()).unwrap();
            let parsed: Vec<PatchOperation> = serde_json::from_slice(&bytes).unwrap();
            let [PatchOperation::Add(add)] = parsed.as_slice() else { panic!("{parsed:?}") };
            let read: Vec<String> = add.path.tokens().map(|token| token.decoded().into_owned()).collect();
            prop_assert_eq!(read, tokens);
            prop_assert_eq!(&add.value, &serde_json::Value::String(value));
        }
    }
}
