//! The memory that a text may become when it is decoded, charged while it is decoded.
//!
//! `{}` in a list is three bytes of text and up to 120 in memory, a map of one entry seven bytes and 600: 8 MiB of text can become
//! gigabytes. [`DecodeBudget`] wraps the deserializer, whatever the type: it charges each element of a list and each entry of a map
//! by the size of its Rust type, and each string by its length, and ends decoding when too much is asked for.
//!
//! ```
//! use daemonset_warden::api::decode_budget::DecodeBudget;
//!
//! let budget = DecodeBudget::new(1024 * 1024);
//! let many = format!("[{}0]", "0,".repeat(500_000));
//! assert!(budget.decode::<Vec<u64>>(&many).is_err() && budget.is_exceeded());
//! ```

mod charged;

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::Error;
use serde_json::de::StrRead;

use self::charged::Charged;
use super::meta::object_or_default;

/// The length up to which a text is decoded without being charged, where some bytes are free: 32 KiB become 3 MiB at most. Nearly
/// every review and pod is shorter.
const SMALL: usize = 32 * 1024;
/// The bytes that are asked for at a time.
const STEP: usize = 128 * 1024;
/// The length from which a string is charged as a message about it, in which each character may be escaped: serde repeats a string
/// in the error about it.
const LONG_STRING: usize = 64 * 1024;
/// The length of an escape, `\u{7f}`.
const ESCAPE: usize = 6;

/// The memory that decoded texts may take together.
pub struct DecodeBudget<'g> {
    limit: usize,
    /// Asks for so many bytes in all, from memory that others share. Returns false if they are not to be had.
    grant: Option<&'g dyn Fn(usize) -> bool>,
    granted: Cell<usize>,
    used: Cell<usize>,
    is_exceeded: Cell<bool>,
    is_starved: Cell<bool>,
    /// Texts up to [`SMALL`] are not charged.
    spares_small: bool,
}

/// A text that would take more memory than its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many elements: decoded, they would take more memory than a request may")]
pub struct TooManyElements;

impl Default for DecodeBudget<'_> {
    /// Returns a budget for texts that the user gave: files and tests.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl<'g> DecodeBudget<'g> {
    /// Returns a budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            grant: None,
            granted: Cell::new(0),
            used: Cell::new(0),
            is_exceeded: Cell::new(false),
            is_starved: Cell::new(false),
            spares_small: true,
        }
    }

    /// Returns a budget of `limit` bytes, of which those beyond `free` have to be granted: `grant` gets the bytes in all.
    pub fn shared(limit: usize, free: usize, grant: &'g dyn Fn(usize) -> bool) -> Self {
        Self { grant: Some(grant), granted: Cell::new(free), spares_small: free > 0, ..Self::new(limit) }
    }

    /// Returns true if a text would have taken more than the limit, or more than was granted.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
    }

    /// Returns the bytes of a text that would have taken no more than the limit, and for which no memory was granted; 0 otherwise.
    pub fn starved(&self) -> usize {
        if self.is_starved.get() { self.used.get() } else { 0 }
    }

    /// Charges `bytes`.
    ///
    /// # Errors
    /// Fails if so many are not to be had.
    pub fn charge(&self, bytes: usize) -> Result<(), TooManyElements> {
        let used = self.used.get().saturating_add(bytes);
        self.used.set(used);
        if used <= self.granted.get() {
            return Ok(());
        }
        self.extend(used)
    }

    #[cold]
    fn extend(&self, used: usize) -> Result<(), TooManyElements> {
        let granted = used.saturating_add(STEP).min(self.limit);
        let is_granted = used <= self.limit && self.grant.is_none_or(|grant| grant(granted));
        if !is_granted {
            // The first refusal counts: what follows may be beyond the limit.
            self.is_starved.set(self.is_starved.get() || !self.is_exceeded.get() && used <= self.limit);
            self.is_exceeded.set(true);
            return Err(TooManyElements);
        }
        self.granted.set(granted);
        Ok(())
    }

    /// Decodes a JSON text.
    ///
    /// # Errors
    /// Fails as serde_json does, and if the value would take too much memory: [`Self::is_exceeded`] tells the two apart.
    pub fn decode<'de, T: Deserialize<'de>>(&self, text: &'de str) -> serde_json::Result<T> {
        if self.spares(text) {
            return serde_json::from_str(text);
        }
        let mut json = serde_json::Deserializer::new(StrRead::new(text));
        let value = T::deserialize(Charged { inner: &mut json, budget: self })?;
        json.end()?;
        Ok(value)
    }

    /// Decodes a JSON text that must be one object; `null` is the default value.
    ///
    /// # Errors
    /// As [`Self::decode`], and if the text is no object.
    pub fn decode_object<'de, T: Default + Deserialize<'de>>(&self, text: &'de str) -> serde_json::Result<T> {
        let mut json = serde_json::Deserializer::new(StrRead::new(text));
        let value = if self.spares(text) {
            object_or_default(&mut json)
        } else {
            object_or_default(Charged { inner: &mut json, budget: self })
        };
        let value = value?;
        json.end()?;
        Ok(value)
    }

    fn spares(&self, text: &str) -> bool {
        self.spares_small && text.len() <= SMALL
    }

    fn charge_as<E: Error>(&self, bytes: usize) -> Result<(), E> {
        self.charge(bytes).map_err(E::custom)
    }

    fn charge_text<E: Error>(&self, length: usize) -> Result<(), E> {
        self.charge_as(if length < LONG_STRING { length } else { length.saturating_mul(1 + ESCAPE) })
    }
}

impl fmt::Debug for DecodeBudget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, used, .. } = self;
        f.debug_struct("DecodeBudget").field("limit", limit).field("used", used).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;
    use crate::api::pod::Pod;

    const MIB: usize = 1024 * 1024;

    fn padded(text: &str) -> String {
        format!("{text}{}", " ".repeat(SMALL))
    }

    #[test]
    fn values_are_those_of_serde_json() {
        let texts = [
            r#"{"metadata":{"name":"p","labels":{"a":"b","c":null},"ownerReferences":[{"controller":true}]},"spec":{"tolerations":[{"key":"k"}],"priority":7,"nodeSelector":null}}"#,
            r#"{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"100m","memory":1}}}],"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}]}}}}}"#,
            "{}",
        ];
        let budget = DecodeBudget::new(MIB);
        for text in texts {
            let text = padded(text);
            let expected: Pod = serde_json::from_str(&text).unwrap();
            assert_eq!(budget.decode::<Pod>(&text).unwrap(), expected);
            assert_eq!(budget.decode_object::<Pod>(&text).unwrap(), expected);
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(budget.decode::<Value>(&text).unwrap(), value);
            assert_eq!(budget.decode::<&RawValue>(&text).unwrap().get(), text.trim());
        }
        for bad in ["[1", r#"{"spec":7}"#, "{} {}"] {
            let bad = padded(bad);
            let expected = serde_json::from_str::<Pod>(&bad).unwrap_err().to_string();
            assert_eq!(budget.decode::<Pod>(&bad).unwrap_err().to_string(), expected);
        }
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn lists_maps_and_strings_are_charged() {
        let list = |item: &str| format!("[{}{item}]", format!("{item},").repeat(200_000));
        let texts = [
            format!(r#"{{"spec":{{"tolerations":{}}}}}"#, list("{}")),
            format!(r#"{{"spec":{{"containers":{}}}}}"#, list("{}")),
            format!(
                r#"{{"spec":{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":{}}}}}}}}}}}"#,
                list("{}")
            ),
            format!(r#"{{"metadata":{{"finalizers":{}}}}}"#, list(r#""""#)),
            format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "a".repeat(2 * MIB)),
        ];
        for text in texts {
            let budget = DecodeBudget::new(8 * MIB);
            let error = budget.decode::<Pod>(&text).unwrap_err();
            assert!(budget.is_exceeded() && error.to_string().contains("too many elements"), "{error}");
        }
        let map: String = (0..50_000).map(|number| format!(r#""{number}":"","#)).collect();
        let map = format!(r#"{{{map}"a":""}}"#);
        assert!(DecodeBudget::new(4 * MIB).decode::<BTreeMap<String, String>>(&map).is_err());
        assert!(DecodeBudget::new(4 * MIB).decode::<Value>(&list(r#"{"":0}"#)).is_err());
    }

    #[test]
    fn small_texts_are_charged_where_nothing_is_free() {
        let text = format!("[{}0]", "0,".repeat(10_000));
        let nothing = |_| false;
        assert!(DecodeBudget::shared(MIB, 1, &nothing).decode::<Vec<u64>>(&text).is_ok());
        assert!(DecodeBudget::shared(MIB, 0, &nothing).decode::<Vec<u64>>(&text).is_err());
    }

    #[test]
    fn memory_beyond_the_free_is_granted_in_steps() {
        let asked = RefCell::new(Vec::new());
        let grant = |bytes| {
            asked.borrow_mut().push(bytes);
            bytes < 2 * MIB
        };
        let budget = DecodeBudget::shared(4 * MIB, MIB, &grant);
        assert_eq!(budget.charge(MIB), Ok(()));
        assert_eq!(budget.charge(1), Ok(()));
        assert_eq!(budget.charge(STEP), Ok(()));
        assert_eq!(*asked.borrow(), [MIB + 1 + STEP]);
        assert_eq!(budget.charge(MIB), Err(TooManyElements));
        assert!(budget.is_exceeded() && budget.starved() > 2 * MIB);
        let budget = DecodeBudget::new(10);
        assert_eq!((budget.charge(11), budget.starved()), (Err(TooManyElements), 0));
        assert_eq!(DecodeBudget::new(10).charge(11), Err(TooManyElements));
    }
}
