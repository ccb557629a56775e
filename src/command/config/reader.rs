//! Reads fields out of the tree of a YAML file, and gathers their faults.
//!
//! Each method reads one field of an object. It returns `None` if the field is absent, `null` or bad; a bad field is noted as a
//! fault. The caller goes on with the default, so that one run shows every fault. Fields that no method has read are unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde_json::{Map, Value};

use super::{ConfigFault, duration};
use crate::scheduling::names;

/// A known name is suggested only if it differs in at most one of this many letters.
const UNLIKE: usize = 3;
/// The longest name, in bytes, that gets a suggestion.
const MAX_COMPARED: usize = 100;

/// Reads one object of the tree.
pub(super) struct Reader<'a> {
    path: String,
    fields: Option<&'a Map<String, Value>>,
    known: Vec<&'static str>,
    faults: &'a mut Vec<ConfigFault>,
}

impl<'a> Reader<'a> {
    /// Reads the whole file. A file that is no object is a fault.
    pub(super) fn root(value: &'a Value, faults: &'a mut Vec<ConfigFault>) -> Self {
        Self::new(String::new(), value, faults)
    }

    fn new(path: String, value: &'a Value, faults: &'a mut Vec<ConfigFault>) -> Self {
        let fields = value.as_object();
        if fields.is_none() {
            faults.push(ConfigFault { path: path.clone(), message: wrong("an object", value) });
        }
        Self { path, fields, known: Vec::new(), faults }
    }

    /// Checks a required field that may have only one value.
    pub(super) fn constant(&mut self, name: &'static str, expected: &str) {
        let present = self.fields.is_none_or(|fields| fields.get(name).is_some_and(|value| !value.is_null()));
        if !present {
            self.fault(name, format!("is missing; it must be {expected}"));
        }
        if let Some(text) = self.text(name)
            && text != expected
        {
            self.fault(name, format!("is {text:?}; it must be {expected}"));
        }
    }

    /// Notes that a required field is missing. Does nothing if it was `found`, or if it is there with a fault, which is noted
    /// already.
    pub(super) fn required(&mut self, name: &'static str, found: bool) {
        let absent = self.fields.is_some_and(|fields| fields.get(name).is_none_or(|value| value.is_null()));
        if !found && absent {
            self.fault(name, "is missing".to_owned());
        }
    }

    /// Reads a text that is not empty; `None` if it is absent or bad.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let value = self.take(name)?;
        let text = text_of(value, &self.at(name), self.faults)?;
        if text.is_empty() {
            self.fault(name, "must not be empty".to_owned());
            return None;
        }
        Some(text)
    }

    /// Reads the name of a Kubernetes object; `None` if it is absent or bad.
    pub(super) fn name(&mut self, name: &'static str) -> Option<String> {
        self.text(name).filter(|text| self.is_name(name, text))
    }

    /// Reads the name of a Kubernetes object or an empty text; `None` if it is absent or bad.
    pub(super) fn name_or_empty(&mut self, name: &'static str) -> Option<String> {
        let value = self.take(name)?;
        let text = text_of(value, &self.at(name), self.faults)?;
        (text.is_empty() || self.is_name(name, &text)).then_some(text)
    }

    fn is_name(&mut self, name: &'static str, text: &str) -> bool {
        let found = names::dns_1123_subdomain_faults(text);
        for fault in &found {
            self.fault(name, format!("{text:?}: {fault}"));
        }
        found.is_empty()
    }

    /// Reads one of a few words and returns the value of that word; `None` if it is absent or another word.
    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.take(name)?;
        // Go's YAML reader, and so Helm, takes a bare `Off` for false.
        let text = if *value == Value::Bool(false) { "Off" } else { value.as_str().unwrap_or_default() };
        let found = choices.iter().find(|choice| choice.0 == text);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
            self.fault(name, wrong(&format!("one of {}", words.join(", ")), value));
        }
        found.map(|choice| choice.1)
    }

    /// Reads `true` or `false`; `None` if it is absent or neither.
    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        if !value.is_boolean() {
            self.fault(name, wrong("true or false", value));
        }
        value.as_bool()
    }

    /// Reads a duration in Go's syntax that is not 0; `None` if it is absent or bad.
    pub(super) fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let value = self.take(name)?;
        let Some(text) = value.as_str() else {
            self.fault(name, wrong("a duration like 90s, 10m or 1h30m", value));
            return None;
        };
        match duration::parse(text) {
            Ok(Duration::ZERO) => self.fault(name, "must be longer than 0".to_owned()),
            Ok(duration) => return Some(duration),
            Err(message) => self.fault(name, message),
        }
        None
    }

    /// Reads a list of texts, which must not be empty; `None` if it is absent or no list. Bad items are noted and left out.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let texts = self.values(name)?;
        if texts.is_empty() {
            self.fault(name, "must not be empty; leave it out for the default".to_owned());
        }
        let path = self.at(name);
        let mut found = Vec::new();
        for (index, value) in texts.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match text_of(value, &path, self.faults) {
                Some(text) if text.is_empty() => {
                    self.faults.push(ConfigFault { path, message: "must not be empty".to_owned() });
                }
                Some(text) => found.push(text),
                None => {}
            }
        }
        Some(found)
    }

    /// Reads a list of label keys, which may be empty; `None` if it is absent or no list. Taint keys have the same syntax.
    pub(super) fn label_keys(&mut self, name: &'static str) -> Option<Vec<String>> {
        let values = self.values(name)?;
        let path = self.at(name);
        let mut found = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(text) = text_of(value, &path, self.faults) {
                note(self.faults, &path, &text, names::label_key_faults(&text));
                found.push(text);
            }
        }
        Some(found)
    }

    /// Reads a list of objects, which must not be empty, with `read` for each; `None` if it is absent or no list.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(Reader<'_>) -> T,
    ) -> Option<Vec<T>> {
        let values = self.values(name)?;
        if values.is_empty() {
            self.fault(name, "must not be empty; leave it out for the default".to_owned());
        }
        let path = self.at(name);
        let items = values.iter().enumerate();
        Some(
            items
                .map(|(index, value)| read(Reader::new(format!("{path}[{index}]"), value, self.faults)))
                .collect(),
        )
    }

    /// Reads an object: `read` gets a reader of its fields. Returns `None` if the object is absent.
    pub(super) fn object<T>(&mut self, name: &'static str, read: impl FnOnce(Reader<'_>) -> T) -> Option<T> {
        let value = self.take(name)?;
        Some(read(Reader::new(self.at(name), value, self.faults)))
    }

    /// Reads a label selector; `None` if it is absent.
    pub(super) fn label_selector(&mut self, name: &'static str) -> Option<LabelSelector> {
        self.object(name, |selector| selector.into_label_selector())
    }

    /// Reads a list of label selectors, which may be empty; `None` if it is absent or no list. An empty selector is a fault.
    pub(super) fn label_selectors(&mut self, name: &'static str) -> Option<Vec<LabelSelector>> {
        let values = self.values(name)?;
        let path = self.at(name);
        let mut found = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if value.as_object().is_some_and(Map::is_empty) {
                let message = "must not be empty: it would match everything".to_owned();
                self.faults.push(ConfigFault { path, message });
                continue;
            }
            found.push(Reader::new(path, value, self.faults).into_label_selector());
        }
        Some(found)
    }

    fn into_label_selector(mut self) -> LabelSelector {
        let match_labels = self.object("matchLabels", |labels| labels.into_labels());
        let match_expressions = self.values("matchExpressions").map(|values| {
            let path = self.at("matchExpressions");
            let items = values.iter().enumerate();
            items
                .filter_map(|(index, value)| {
                    Reader::new(format!("{path}[{index}]"), value, self.faults).into_requirement()
                })
                .collect()
        });
        self.end();
        LabelSelector { match_labels, match_expressions }
    }

    fn into_labels(self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (key, value) in self.fields.into_iter().flatten() {
            let path = format!("{}[{key}]", self.path);
            note(self.faults, &path, key, names::label_key_faults(key));
            if let Some(text) = text_of(value, &path, self.faults) {
                note(self.faults, &path, &text, names::label_value_faults(&text));
                labels.insert(key.clone(), text);
            }
        }
        labels
    }

    fn into_requirement(mut self) -> Option<LabelSelectorRequirement> {
        let key = self.text("key");
        self.required("key", key.is_some());
        if let Some(key) = &key {
            let path = self.at("key");
            note(self.faults, &path, key, names::label_key_faults(key));
        }
        let operators = ["In", "NotIn", "Exists", "DoesNotExist"].map(|operator| (operator, operator));
        let operator = self.choice("operator", &operators);
        self.required("operator", operator.is_some());
        let mut texts = Vec::new();
        if let Some(values) = self.values("values") {
            let path = self.at("values");
            for (index, value) in values.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if let Some(text) = text_of(value, &path, self.faults) {
                    note(self.faults, &path, &text, names::label_value_faults(&text));
                    texts.push(text);
                }
            }
        }
        match operator {
            Some(operator @ ("In" | "NotIn")) if texts.is_empty() => {
                self.fault("values", format!("must not be empty with operator {operator}"));
            }
            Some(operator @ ("Exists" | "DoesNotExist")) if !texts.is_empty() => {
                self.fault("values", format!("must be empty with operator {operator}"));
            }
            _ => {}
        }
        self.end();
        Some(LabelSelectorRequirement { key: key?, operator: operator?.to_owned(), values: Some(texts) })
    }

    /// Notes the fields that no method has read as unknown. Call this last.
    pub(super) fn end(self) {
        self.end_of("field");
    }

    /// Does what [`Self::end`] does; `what` is the word for a field in the messages.
    pub(super) fn end_of(self, what: &str) {
        for name in self.fields.into_iter().flat_map(Map::keys) {
            if !self.known.contains(&name.as_str()) {
                let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
                let hint = match nearest(name, &self.known) {
                    Some(known) => format!("; did you mean {known}?"),
                    None => format!("; known are {}", self.known.join(", ")),
                };
                self.faults.push(ConfigFault { path, message: format!("is no known {what}{hint}") });
            }
        }
    }

    fn values(&mut self, name: &'static str) -> Option<&'a Vec<Value>> {
        let value = self.take(name)?;
        if value.as_array().is_none() {
            self.fault(name, wrong("a list", value));
        }
        value.as_array()
    }

    fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.fields?.get(name).filter(|value| !value.is_null())
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn fault(&mut self, name: &str, message: String) {
        let path = self.at(name);
        self.faults.push(ConfigFault { path, message });
    }
}

fn text_of(value: &Value, path: &str, faults: &mut Vec<ConfigFault>) -> Option<String> {
    let text = value.as_str().map(ToOwned::to_owned);
    if text.is_none() {
        let quotes = if value.is_number() || value.is_boolean() { " (put it in quotes)" } else { "" };
        faults.push(ConfigFault {
            path: path.to_owned(),
            message: format!("{}{quotes}", wrong("text", value)),
        });
    }
    text
}

fn note(faults: &mut Vec<ConfigFault>, path: &str, text: &str, found: Vec<String>) {
    let path = path.to_owned();
    faults.extend(
        found
            .into_iter()
            .map(|fault| ConfigFault { path: path.clone(), message: format!("{text:?}: {fault}") }),
    );
}

/// Returns the message that `expected` should be there in place of `value`.
fn wrong(expected: &str, value: &Value) -> String {
    let found = match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        scalar => scalar.to_string().chars().take(60).collect(),
    };
    format!("must be {expected}, not {found}")
}

/// Returns the known name that the user probably meant, by Levenshtein's distance and without regard to case. Returns `None` if no
/// known name is near.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    // No known name is nearly as long, and the work grows with the square.
    if name.len() > MAX_COMPARED {
        return None;
    }
    let name = name.to_lowercase();
    let likely =
        known.iter().map(|known| (strsim::levenshtein(&name, &known.to_lowercase()), *known)).min()?;
    (likely.0 * UNLIKE <= name.len().max(UNLIKE)).then_some(likely.1)
}
