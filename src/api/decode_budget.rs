//! The memory that a text may become when it is decoded, charged while it is decoded.
//!
//! `{}` in a list is three bytes of text and up to 120 in memory, a map of one entry seven bytes and 600: 8 MiB of text can become
//! gigabytes. [`DecodeBudget`] wraps the deserializer, whatever the type: it charges each element of a list and each entry of a map by
//! the size of its Rust type, and each string by its length, and ends decoding when too much is asked for.
//!
//! ```
//! use daemonset_warden::api::decode_budget::DecodeBudget;
//!
//! let budget = DecodeBudget::new(1024 * 1024);
//! let many = format!("[{}0]", "0,".repeat(500_000));
//! assert!(budget.decode::<Vec<u64>>(&many).is_err() && budget.is_exceeded());
//! ```

use std::cell::Cell;
use std::fmt;
use std::mem::size_of;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};
use serde_json::de::StrRead;

use super::meta::object_or_default;

/// The length up to which a text is decoded without being charged: 32 KiB become 3 MiB at most, on one thread at a time. Nearly every
/// review and pod is shorter.
const SMALL: usize = 32 * 1024;
/// The bytes that are asked for at a time.
const STEP: usize = 256 * 1024;
/// The length from which a string is charged as a message about it, in which each character may be escaped: serde repeats a string in
/// the error about it.
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
        let zero = || Cell::new(0);
        Self { limit, grant: None, granted: zero(), used: zero(), is_exceeded: Cell::new(false) }
    }

    /// Returns a budget of `limit` bytes, of which those beyond `free` have to be granted: `grant` gets the bytes in all.
    pub fn shared(limit: usize, free: usize, grant: &'g dyn Fn(usize) -> bool) -> Self {
        Self { grant: Some(grant), granted: Cell::new(free), ..Self::new(limit) }
    }

    /// Returns true if a text would have taken more than the limit, or more than was granted.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
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
        if text.len() <= SMALL {
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
        let value = if text.len() <= SMALL {
            object_or_default(&mut json)
        } else {
            object_or_default(Charged { inner: &mut json, budget: self })
        };
        let value = value?;
        json.end()?;
        Ok(value)
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

/// Any part of serde's interface whose elements are charged.
struct Charged<'b, 'g, Inner> {
    inner: Inner,
    budget: &'b DecodeBudget<'g>,
}

/// The elements or entries of a list or map.
struct ChargedItems<'b, 'g, Inner> {
    inner: Inner,
    budget: &'b DecodeBudget<'g>,
    /// The size of the current entry's key; 0 for a field of a struct, whose parent has been charged with it.
    key: usize,
    is_first: bool,
}

impl<'b, 'g, Inner> ChargedItems<'b, 'g, Inner> {
    fn new(inner: Inner, budget: &'b DecodeBudget<'g>) -> Self {
        Self { inner, budget, key: 0, is_first: true }
    }
}

macro_rules! forward_deserialize {
    ($($method:ident($($argument:ident: $type:ty),*);)+) => { $(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let Self { inner, budget } = self;
            inner.$method($($argument,)* Charged { inner: visitor, budget })
        }
    )+ };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Charged<'_, '_, D> {
    type Error = D::Error;

    forward_deserialize! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }

    // The name of a field, and a value that is skipped, take no memory.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! forward_visit {
    ($($method:ident: $type:ty,)+) => { $(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )+ };
}

macro_rules! charge_visit {
    ($($method:ident: $type:ty,)+) => { $(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.budget.charge_text(value.len())?;
            self.inner.$method(value)
        }
    )+ };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Charged<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    forward_visit! {
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
    }

    charge_visit! {
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        let Self { inner, budget } = self;
        inner.visit_some(Charged { inner: from, budget })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        let Self { inner, budget } = self;
        inner.visit_newtype_struct(Charged { inner: from, budget })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        let Self { inner, budget } = self;
        inner.visit_seq(ChargedItems::new(items, budget))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        let Self { inner, budget } = self;
        inner.visit_map(ChargedItems::new(entries, budget))
    }

    // No type here has an enum with lists or maps in its variants.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(data)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Charged<'_, '_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<S::Value, D::Error> {
        let Self { inner, budget } = self;
        inner.deserialize(Charged { inner: from, budget })
    }
}

/// The number of elements that a `Vec` has room for once it has one.
const FIRST_ELEMENTS: usize = 4;
/// The number of entries that a node of a `BTreeMap` has room for.
const NODE_ENTRIES: usize = 11;
/// The links and lengths of a node of a `BTreeMap`.
const NODE_LINKS: usize = 16;

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for ChargedItems<'_, '_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let element = self.inner.next_element_seed(Charged { inner: seed, budget: self.budget })?;
        if element.is_some() {
            // A `Vec` grows to twice its length.
            let room = if std::mem::take(&mut self.is_first) { FIRST_ELEMENTS } else { 2 };
            self.budget.charge_as(room * size_of::<S::Value>())?;
        }
        Ok(element)
    }

    // No hint: a `Vec` must not reserve what has not been charged.
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ChargedItems<'_, '_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        // The keys of a struct are numbers of its fields, those of a map are strings.
        let size = size_of::<S::Value>();
        self.key = if size < size_of::<&str>() { 0 } else { size };
        self.inner.next_key_seed(Charged { inner: seed, budget: self.budget })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        if self.key > 0 {
            let entry = self.key + size_of::<S::Value>();
            // The nodes of a `BTreeMap` are half full at worst.
            let bytes = if std::mem::take(&mut self.is_first) {
                NODE_ENTRIES * entry + NODE_LINKS
            } else {
                2 * entry + NODE_LINKS
            };
            self.budget.charge_as(bytes)?;
        }
        self.inner.next_value_seed(Charged { inner: seed, budget: self.budget })
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
        assert!(budget.is_exceeded());
        assert_eq!(DecodeBudget::new(10).charge(11), Err(TooManyElements));
    }
}
