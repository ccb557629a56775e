//! Metadata, kinds and owners of Kubernetes objects, trimmed to the fields that this program reads, and the functions that decode
//! them.
//!
//! Objects are decoded straight into these trimmed types: of a pod of 9 KB only the fields that are read take memory. Go reads
//! `null` as the zero value of any type, and so does every field here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::de::Read;

/// The field manager of the warden's writes, under which the apiserver records the fields that they set.
pub const FIELD_MANAGER: &str = "daemonset-warden";

/// The fields of `ObjectMeta` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Empty while only `generateName` is set: at mutating admission on CREATE.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The prefix of a name that the apiserver makes.
    #[serde(deserialize_with = "or_default")]
    pub generate_name: String,
    /// Empty in a template and for kinds without namespaces.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Empty at mutating admission on CREATE: the apiserver sets it before validating admission.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    /// Empty at admission on CREATE.
    #[serde(deserialize_with = "or_default")]
    pub resource_version: String,
    /// The apiserver increases it with every change of the spec.
    #[serde(deserialize_with = "or_default")]
    pub generation: i64,
    /// The time in RFC 3339, as the apiserver writes it: such texts sort by time. Empty at mutating admission on CREATE.
    #[serde(deserialize_with = "or_default")]
    pub creation_timestamp: String,
    /// The time in RFC 3339; `None` until the object is being deleted.
    pub deletion_timestamp: Option<String>,
    /// Seconds that a deleted pod has to end in; `None` until the object is being deleted.
    pub deletion_grace_period_seconds: Option<i64>,
    /// Values by key.
    #[serde(deserialize_with = "string_map")]
    pub labels: BTreeMap<String, String>,
    /// Values by key.
    #[serde(deserialize_with = "string_map")]
    pub annotations: BTreeMap<String, String>,
    /// The owners, of which at most one is the controller.
    #[serde(deserialize_with = "or_default")]
    pub owner_references: Vec<OwnerReference>,
    /// The apiserver removes a deleted object once this list is empty.
    #[serde(deserialize_with = "or_default")]
    pub finalizers: Vec<String>,
    /// True if some field of the status has the value that the warden wrote last (`managedFields`).
    #[serde(rename = "managedFields", deserialize_with = "names_warden_for_status")]
    pub has_warden_status: bool,
}

impl Metadata {
    /// Returns true if the object is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// Returns the reference to the controller, the first with `controller: true` (`metav1.GetControllerOf` upstream). Returns
    /// `None` if there is no such reference.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|reference| reference.controller == Some(true))
    }

    /// Returns the name, for logs. Returns generateName if there is no name yet; empty if there is neither.
    pub fn display_name(&self) -> &str {
        if self.name.is_empty() { &self.generate_name } else { &self.name }
    }
}

/// An object of any kind, reduced to its metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamedObject {
    /// Empty if the object has none.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
}

/// The fields of `OwnerReference` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Group and version, such as `apps/v1`.
    #[serde(deserialize_with = "or_default")]
    pub api_version: String,
    /// The kind, such as `DaemonSet`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// The owner's name. The owner has no namespace, or is in that of the object that has the reference.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The owner's UID, which tells it from an earlier or later object of the same name.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    /// True if the owner is the object's controller. `None` means false too, but messages distinguish the two, as upstream's do.
    pub controller: Option<bool>,
    /// The field `blockOwnerDeletion`, which only validation reads; `None` if absent.
    pub block_owner_deletion: Option<bool>,
}

impl OwnerReference {
    /// Returns the API group; empty for the core group.
    pub fn group(&self) -> &str {
        group_of(&self.api_version)
    }
}

/// The kind that an object names. Both fields are empty if it names none, as in the items of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TypeMeta {
    /// Group and version, such as `apps/v1`.
    #[serde(deserialize_with = "or_default")]
    pub api_version: String,
    /// The kind, such as `Node`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
}

impl TypeMeta {
    /// Returns the API group; empty for the core group.
    pub fn group(&self) -> &str {
        group_of(&self.api_version)
    }
}

/// An API group and a kind of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupKind {
    /// The API group, such as `apps`; empty for the core group.
    pub group: String,
    /// The kind, such as `DaemonSet`.
    pub kind: String,
}

impl GroupKind {
    /// Returns true for Kubernetes' own DaemonSet. Upstream's rules are checked for that kind only.
    pub fn is_builtin(&self) -> bool {
        self.group == "apps" && self.kind == "DaemonSet"
    }
}

/// Returns the part of an `apiVersion` before the `/`; empty for the core group.
fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Reads `null` as the default value, as Go's decoder does.
///
/// # Errors
/// Fails if the value is not `null` and `T` cannot be decoded from it.
pub fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Reads any value as true, and `null` as false: the field is set.
///
/// # Errors
/// Fails if the value is no JSON.
pub fn is_set<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(from)?.is_some())
}

/// Reads a list as true if it has an element, and `null` as false. The elements are not kept.
///
/// # Errors
/// Fails if the value is no list.
pub fn is_filled<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Option::<Vec<IgnoredAny>>::deserialize(from)?.is_some_and(|list| !list.is_empty()))
}

/// Reads a string, borrowed from the input where it has no escapes; `null` is the empty string.
///
/// # Errors
/// Fails if the value is neither a string nor `null`.
pub fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Cow<'de, str>, D::Error> {
    Ok(Option::<Text<'de>>::deserialize(from)?.map_or(Cow::Borrowed(""), |text| text.0))
}

/// A string, borrowed from the input if it has no escapes. Use it inside of other types: serde borrows a `Cow` only for a field
/// with `#[serde(borrow)]`.
#[derive(Debug, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Reads an object; `None` for `null`. Refuses a list, from which serde's derived structs would take their fields in order.
///
/// # Errors
/// Fails if the value is neither an object nor `null`, or if `T` cannot be decoded from it.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = Option<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        // serde would repeat the string, however long.
        fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
            Err(E::invalid_type(Unexpected::Other("string"), &self))
        }
        fn visit_map<A: MapAccess<'de>>(self, from: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(from)).map(Some)
        }
    }
    from.deserialize_any(Object(PhantomData))
}

/// Reads an object as [`object`] does; `null` is the default value.
///
/// # Errors
/// Fails if [`object`] fails.
pub fn object_or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(object(from)?.unwrap_or_default())
}

/// Reads a whole JSON text, which must be one object, or `null` for the default value.
///
/// # Errors
/// Fails if the text is neither, if other text follows, or if `T` cannot be decoded from the object.
pub fn parse_object<'de, R: Read<'de>, T: Default + Deserialize<'de>>(from: R) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::new(from);
    let value = object_or_default(&mut json)?;
    json.end()?;
    Ok(value)
}

/// Calls `item` for each item of a list, so that the caller keeps only what it needs. `null` is an empty list.
///
/// # Errors
/// Fails if the value is neither a list nor `null`, if `T` cannot be decoded from an item, or if `item` fails.
pub fn visit_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
    item: impl FnMut(T) -> Result<(), &'static str>,
) -> Result<(), D::Error> {
    struct Items<T, F>(F, PhantomData<T>);
    impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), &'static str>> Visitor<'de> for Items<T, F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
            while let Some(value) = from.next_element()? {
                (self.0)(value).map_err(A::Error::custom)?;
            }
            Ok(())
        }
    }
    from.deserialize_any(Items(item, PhantomData))
}

/// An entry of `managedFields`, without its fields.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FieldsManager<'a> {
    #[serde(borrow)]
    manager: Option<Cow<'a, str>>,
    #[serde(borrow)]
    subresource: Option<Cow<'a, str>>,
}

/// Reads `managedFields`. Returns true if an entry is of the warden and of the status: the apiserver removes the entry when others
/// have overwritten all of its fields.
fn names_warden_for_status<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let mut is_named = false;
    visit_list(from, |entry: FieldsManager<'_>| {
        is_named |=
            entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.as_deref() == Some("status");
        Ok(())
    })?;
    Ok(is_named)
}

/// Reads a map of strings in which `null` is the empty string, as in YAML's `app:` with nothing behind it.
///
/// # Errors
/// Fails if the value is neither a map nor `null`, or if a value in it is neither a string nor `null`.
pub fn string_map<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let mut map = BTreeMap::new();
    visit_map(from, |key, value: Option<String>| {
        map.insert(key, value.unwrap_or_default());
    })?;
    Ok(map)
}

/// Calls `entry` for each entry of a map, so that the caller keeps only what it needs. `null` is an empty map.
///
/// # Errors
/// Fails if the value is neither a map nor `null`, or if a key or value cannot be decoded.
pub fn visit_map<'de, D: Deserializer<'de>, K: Deserialize<'de>, V: Deserialize<'de>>(
    from: D,
    entry: impl FnMut(K, V),
) -> Result<(), D::Error> {
    struct Entries<K, V, F>(F, PhantomData<(K, V)>);
    impl<'de, K: Deserialize<'de>, V: Deserialize<'de>, F: FnMut(K, V)> Visitor<'de> for Entries<K, V, F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of strings")
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
        fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
            while let Some((key, value)) = from.next_entry()? {
                (self.0)(key, value);
            }
            Ok(())
        }
    }
    from.deserialize_any(Entries(entry, PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent() {
        let text = r#"{"name":null,"labels":null,"ownerReferences":null,"generation":null,"deletionTimestamp":null}"#;
        assert_eq!(serde_json::from_str::<Metadata>(text).unwrap(), Metadata::default());
        let metadata: Metadata = serde_json::from_str(r#"{"labels":{"app":null}}"#).unwrap();
        assert_eq!(metadata.labels["app"], "");
    }

    #[test]
    fn the_warden_is_the_manager_of_a_status_that_it_wrote() {
        let of = |manager: &str, subresource: &str| {
            let text = format!(
                r#"{{"managedFields":[{{"manager":"kubelet","subresource":"status"}},{{"manager":"{manager}","operation":"Update","subresource":"{subresource}","fieldsV1":{{"f:status":{{}}}}}}]}}"#
            );
            serde_json::from_str::<Metadata>(&text).unwrap().has_warden_status
        };
        assert!(of(FIELD_MANAGER, "status"));
        assert!(!of(FIELD_MANAGER, "") && !of("kube-scheduler", "status"));
    }

    #[test]
    fn the_controller_is_the_first_reference_that_says_so() {
        let text = r#"{"ownerReferences":[{"name":"a"},{"name":"b","controller":true,"apiVersion":"apps/v1"},{"name":"c","controller":true}]}"#;
        let metadata: Metadata = serde_json::from_str(text).unwrap();
        let controller = metadata.controller().unwrap();
        assert_eq!((controller.name.as_str(), controller.group()), ("b", "apps"));
    }
}
