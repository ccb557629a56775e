//! The wrapper around serde's interfaces that charges a [`DecodeBudget`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

use super::{DecodeBudget, LONG_STRING};

/// Any part of serde's interface whose elements are charged.
pub(super) struct Charged<'b, 'g, Inner> {
    pub(super) inner: Inner,
    pub(super) budget: &'b DecodeBudget<'g>,
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
            let is_long = value.len() >= LONG_STRING;
            self.budget.charge_text(value.len())?;
            // The error may repeat the whole string, and is copied several times on its way to the client.
            self.inner.$method(value).map_err(|error| if is_long { E::custom("a long string is not expected") } else { error })
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
