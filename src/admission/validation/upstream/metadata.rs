//! Validation of a DaemonSet's metadata, on creation and on update.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/apimachinery/pkg/api/validation/objectmeta.go
//! (`ValidateObjectMetaAccessor`, `ValidateObjectMetaAccessorUpdate`), pkg/apis/meta/v1/validation/validation.go
//! (`ValidateManagedFields`) and pkg/apis/core/validation/validation.go (`ValidateObjectMeta`).
//!
//! Fields that the apiserver sets before validation cannot be wrong and are not checked: the generation; on update
//! creationTimestamp, and resourceVersion if the client sent none. Objects that are being deleted are not validated.

use crate::api::daemonset::{DaemonSet, ManagedFieldsEntry};
use crate::api::field::{Error, ErrorList, Path, is_printable};
use crate::api::meta::{Metadata, OwnerReference};
use crate::daemonset::daemon_pod::GENERATION_ANNOTATION;
use crate::scheduling::names;

use super::selector;

const ANNOTATIONS_MAX_LENGTH: usize = 256 * 1024;
const MANAGER_MAX_LENGTH: usize = 128;
const SUBRESOURCE_MAX_LENGTH: usize = 256;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const IMMUTABLE: &str = "field is immutable";

/// Checks the metadata of a new DaemonSet.
pub(super) fn check_create(new: &DaemonSet, faults: &mut ErrorList) {
    let metadata = &new.metadata;
    if !metadata.generate_name.is_empty() {
        let prefix = mask_trailing_dash(&metadata.generate_name);
        let name_faults = names::in_characters(names::dns_1123_subdomain_faults(&prefix));
        push_all(name_faults, "generateName", &metadata.generate_name, faults);
    }
    if !metadata.name.is_empty() {
        let name_faults = names::in_characters(names::dns_1123_subdomain_faults(&metadata.name));
        push_all(name_faults, "name", &metadata.name, faults);
    } else if metadata.generate_name.is_empty() {
        faults.push(Error::required(path("name"), "name or generateName is required"));
    }
    check_common(new, faults);
    check_standard_finalizers(metadata, faults);
}

/// Checks the metadata of a DaemonSet that replaces `old`.
///
/// Upstream checks three times: the generic registry checks the metadata alone and against the old metadata, and the DaemonSet's
/// strategy checks it against the old metadata again. A fault is reported as often as upstream reports it.
pub(super) fn check_update(old: &DaemonSet, new: &DaemonSet, faults: &mut ErrorList) {
    let metadata = &new.metadata;
    if !metadata.generate_name.is_empty() {
        push_all(
            path_segment_faults(&metadata.generate_name),
            "generateName",
            &metadata.generate_name,
            faults,
        );
    }
    if metadata.name.is_empty() {
        faults.push(Error::required(path("name"), "name or generateName is required"));
    } else if matches!(metadata.name.as_str(), "." | "..") {
        let fault = format!("may not be '{}'", metadata.name);
        faults.push(Error::invalid_text(path("name"), &metadata.name, fault));
    } else {
        push_all(path_segment_faults(&metadata.name), "name", &metadata.name, faults);
    }
    check_common(new, faults);
    check_against(&old.metadata, new, faults);
    check_against(&old.metadata, new, faults);
    check_standard_finalizers(metadata, faults);
}

/// Checks annotations at `path`: each key as a label key in lower case, and the total size.
pub(super) fn check_annotations<'a>(
    annotations: impl Iterator<Item = (&'a String, &'a String)>,
    path: impl Fn() -> Path,
    faults: &mut ErrorList,
) {
    let mut length = 0_usize;
    for (key, value) in annotations {
        if faults.is_full() {
            return;
        }
        length = length.saturating_add(key.len()).saturating_add(value.len());
        let key_faults = if key.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
            names::label_key_faults(key)
        } else {
            names::label_key_faults(&key.to_lowercase())
        };
        faults.extend(key_faults.into_iter().map(|fault| Error::invalid_text(path(), key, fault)));
    }
    if length > ANNOTATIONS_MAX_LENGTH {
        faults.push(Error::too_long(path(), ANNOTATIONS_MAX_LENGTH));
    }
}

/// Checks the fields that creation and update share (`validateObjectMetaAccessorWithOptsCommon`).
fn check_common(new: &DaemonSet, faults: &mut ErrorList) {
    let namespace = &new.metadata.namespace;
    if namespace.is_empty() {
        faults.push(Error::required(path("namespace"), ""));
    } else {
        let name_faults = names::in_characters(names::dns_1123_label_faults(namespace));
        push_all(name_faults, "namespace", namespace, faults);
    }
    check_labels_and_annotations(&new.metadata, faults);
    check_owner_references(&new.metadata.owner_references, faults);
    check_finalizers(&new.metadata.finalizers, faults);
    check_managed_fields(&new.validated_only.managed_fields, faults);
}

/// Checks the metadata against the stored one (`ValidateObjectMetaAccessorUpdate`).
fn check_against(old: &Metadata, new: &DaemonSet, faults: &mut ErrorList) {
    let metadata = &new.metadata;
    for (field, old, new) in
        [("name", &old.name, &metadata.name), ("namespace", &old.namespace, &metadata.namespace)]
    {
        if old != new {
            faults.push(Error::invalid_text(path(field), new, IMMUTABLE));
        }
    }
    // A client that sends no uid means the stored object.
    if !metadata.uid.is_empty() && metadata.uid != old.uid {
        faults.push(Error::invalid(path("uid"), &metadata.uid, IMMUTABLE));
    }
    let seconds = metadata.deletion_grace_period_seconds;
    if seconds.is_some() && seconds != old.deletion_grace_period_seconds {
        faults.push(Error::invalid(path("deletionGracePeriodSeconds"), &seconds, IMMUTABLE));
    }
    check_labels_and_annotations(metadata, faults);
    check_owner_references(&metadata.owner_references, faults);
    check_managed_fields(&new.validated_only.managed_fields, faults);
}

fn check_labels_and_annotations(metadata: &Metadata, faults: &mut ErrorList) {
    selector::check_labels(&metadata.labels, "metadata.labels", faults);
    // Upstream's internal type has a field in place of this annotation.
    let annotations = metadata.annotations.iter().filter(|(key, _)| *key != GENERATION_ANNOTATION);
    check_annotations(annotations, || path("annotations"), faults);
}

fn check_owner_references(references: &[OwnerReference], faults: &mut ErrorList) {
    let mut first_controller = None;
    for reference in references {
        if faults.is_full() {
            return;
        }
        check_owner_reference(reference, faults);
        if reference.controller != Some(true) {
            continue;
        }
        let name = format!("{}/{}", reference.kind, reference.name);
        match &first_controller {
            None => first_controller = Some(name),
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                let all: Vec<_> = references.iter().map(printed).collect();
                faults.push(Error::invalid(path("ownerReferences"), &all, detail));
            }
        }
    }
}

fn check_owner_reference(reference: &OwnerReference, faults: &mut ErrorList) {
    let path = || path("ownerReferences");
    let (group, version) = match reference.api_version.split_once('/') {
        None => ("", reference.api_version.as_str()),
        Some((_, rest)) if rest.contains('/') => ("", ""),
        Some(parts) => parts,
    };
    if version.is_empty() {
        let path = path().child("apiVersion");
        faults.push(Error::invalid_text(path, &reference.api_version, "version must not be empty"));
    }
    for (field, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        if value.is_empty() {
            faults.push(Error::invalid_text(path().child(field), value, "must not be empty"));
        }
    }
    if reference.uid.is_empty() {
        faults.push(Error::invalid(path().child("uid"), &reference.uid, "must not be empty"));
    }
    if (group, version, reference.kind.as_str()) == ("", "v1", "Event") {
        let detail = "/v1, Kind=Event is disallowed from being an owner";
        faults.push(Error::invalid(path(), &printed(reference), detail));
    }
}

/// Returns the reference as upstream prints it: with its order of fields, without absent ones.
fn printed(reference: &OwnerReference) -> impl serde::Serialize + use<'_> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct PrintedOwnerReference<'a> {
        api_version: &'a str,
        kind: &'a str,
        name: &'a str,
        uid: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        controller: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        block_owner_deletion: Option<bool>,
    }
    PrintedOwnerReference {
        api_version: &reference.api_version,
        kind: &reference.kind,
        name: &reference.name,
        uid: &reference.uid,
        controller: reference.controller,
        block_owner_deletion: reference.block_owner_deletion,
    }
}

fn check_finalizers(finalizers: &[String], faults: &mut ErrorList) {
    for finalizer in finalizers {
        if faults.is_full() {
            return;
        }
        push_all(names::label_key_faults(finalizer), "finalizers", finalizer, faults);
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        faults.push(Error::invalid(path("finalizers"), &finalizers, detail));
    }
}

/// Checks that finalizers without a domain are standard ones (`validateKubeFinalizerName`).
fn check_standard_finalizers(metadata: &Metadata, faults: &mut ErrorList) {
    for (index, finalizer) in metadata.finalizers.iter().enumerate() {
        if faults.is_full() {
            return;
        }
        if !finalizer.contains('/') && !matches!(finalizer.as_str(), "kubernetes" | ORPHAN | FOREGROUND) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            faults.push(Error::invalid_text(path("finalizers").index(index), finalizer, detail));
        }
    }
}

fn check_managed_fields(entries: &[ManagedFieldsEntry], faults: &mut ErrorList) {
    for (index, entry) in entries.iter().enumerate() {
        if faults.is_full() {
            return;
        }
        let path = |field: &str| path("managedFields").index(index).child(field);
        if !matches!(entry.operation.as_str(), "Apply" | "Update") {
            let detail = "must be `Apply` or `Update`";
            faults.push(Error::invalid(path("operation"), &entry.operation, detail));
        }
        if !matches!(entry.fields_type.as_str(), "" | "FieldsV1") {
            faults.push(Error::invalid_text(path("fieldsType"), &entry.fields_type, "must be `FieldsV1`"));
        }
        if entry.manager.len() > MANAGER_MAX_LENGTH {
            faults.push(Error::too_long(path("manager"), MANAGER_MAX_LENGTH));
        }
        let invalid = entry.manager.char_indices().filter(|(_, char)| !is_printable(*char));
        faults.extend(invalid.map(|(position, char)| {
            let detail = format!("invalid character U+{:04X} (at position {position})", u32::from(char));
            Error::invalid_text(path("manager"), &entry.manager, detail)
        }));
        if entry.subresource.len() > SUBRESOURCE_MAX_LENGTH {
            faults.push(Error::too_long(path("subresource"), SUBRESOURCE_MAX_LENGTH));
        }
    }
}

/// Returns the faults of a name in a URL path (`IsPathSegmentPrefix`).
fn path_segment_faults(name: &str) -> Vec<String> {
    let contained = ["/", "%"].into_iter().filter(|text| name.contains(text));
    contained.map(|text| format!("may not contain '{text}'")).collect()
}

/// Returns a generateName as it is checked: with `a` in place of a dash at its end and the character before (`maskTrailingDash`).
fn mask_trailing_dash(name: &str) -> std::borrow::Cow<'_, str> {
    match name.len().checked_sub(2).and_then(|end| name.get(..end)) {
        Some(start) if name.ends_with('-') => format!("{start}a").into(),
        _ => name.into(),
    }
}

fn push_all(name_faults: Vec<String>, field: &str, value: &str, faults: &mut ErrorList) {
    faults.extend(name_faults.into_iter().map(|fault| Error::invalid_text(path(field), value, fault)));
}

fn path(field: &str) -> Path {
    Path::new("metadata").child(field)
}
