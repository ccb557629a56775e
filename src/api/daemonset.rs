//! A DaemonSet, trimmed to the fields that validation and placement read.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Deserializer};

use crate::api::meta::{Metadata, object, object_or_default, or_default, string_map};
use crate::api::pod::PodSpec;

/// The part of `DaemonSet` that is read, of any API group.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSet {
    /// Group and version, such as `apps/v1`; empty in the items of a list.
    #[serde(deserialize_with = "or_default")]
    pub api_version: String,
    /// `DaemonSet`; empty in the items of a list.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Standard object metadata.
    #[serde(deserialize_with = "object_or_default")]
    pub metadata: Metadata,
    /// The desired state, as its author wrote it.
    #[serde(deserialize_with = "object_or_default")]
    pub spec: DaemonSetSpec,
    /// Written by the controller.
    #[serde(deserialize_with = "or_default")]
    pub status: DaemonSetStatus,
    /// True if the template was dropped because of its size. Left false by serde.
    #[serde(skip)]
    pub is_too_large: bool,
    /// Left empty by serde.
    #[serde(skip)]
    pub validated_only: ValidatedOnly,
}

impl DaemonSet {
    /// Drops the template and the selector if they have more elements than a DaemonSet needs, so that every node costs little memory and time.
    pub fn drop_if_too_large(&mut self) {
        let selector = self.spec.selector.as_ref().map_or(0, selector_len);
        if selector + self.spec.template.metadata.labels.len() + self.spec.template.spec.len() > MAX_ELEMENTS
        {
            self.spec = DaemonSetSpec::default();
            self.is_too_large = true;
        }
    }
}

/// The most elements of a DaemonSet that is kept: a hundred containers with twenty ports, resources and the like each.
pub const MAX_ELEMENTS: usize = 4_096;

fn selector_len(selector: &LabelSelector) -> usize {
    let expressions = selector.match_expressions.iter().flatten();
    let values = expressions.map(|expression| 1 + expression.values.as_ref().map_or(0, Vec::len));
    selector.match_labels.as_ref().map_or(0, BTreeMap::len) + values.sum::<usize>()
}

/// The part of `DaemonSetStatus` that is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    /// The generation of the spec that the controller has acted on.
    #[serde(deserialize_with = "or_default")]
    pub observed_generation: i64,
}

/// The fields that only validation reads: [`crate::admission::validation::decode`] fills them, so that the cache does not pay
/// for them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValidatedOnly {
    /// One entry for each client that wrote fields.
    pub managed_fields: Vec<ManagedFieldsEntry>,
    /// The selectors in the template's affinity and anti-affinity between pods.
    pub affinity_selectors: Vec<LabelSelector>,
}

/// The part of `ManagedFieldsEntry` that is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedFieldsEntry {
    /// The name that the client gave itself.
    #[serde(deserialize_with = "or_default")]
    pub manager: String,
    /// `Apply` or `Update`.
    #[serde(deserialize_with = "or_default")]
    pub operation: String,
    /// `FieldsV1`, or empty.
    #[serde(deserialize_with = "or_default")]
    pub fields_type: String,
    /// Such as `status`.
    #[serde(deserialize_with = "or_default")]
    pub subresource: String,
}

/// The part of `DaemonSetSpec` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetSpec {
    /// Selects the pods that belong to the DaemonSet; required by apps/v1.
    #[serde(deserialize_with = "selector")]
    pub selector: Option<LabelSelector>,
    /// The template that the controller makes the daemon pods from.
    #[serde(deserialize_with = "object_or_default")]
    pub template: PodTemplateSpec,
    /// As written, because DaemonSets of other groups have strategies of their own. [`DaemonSetSpec::update_strategy`] reads it.
    #[serde(rename = "updateStrategy", deserialize_with = "or_default")]
    pub raw_update_strategy: serde_json::Value,
    /// The seconds that a pod must be Ready before it counts as available.
    #[serde(deserialize_with = "or_default")]
    pub min_ready_seconds: i32,
    /// The number of ControllerRevisions that the controller keeps; 10 when absent.
    pub revision_history_limit: Option<i32>,
}

impl DaemonSetSpec {
    /// Decodes the update strategy as apps/v1 has it.
    ///
    /// # Errors
    /// Fails if the strategy has another shape.
    pub fn update_strategy(&self) -> Result<DaemonSetUpdateStrategy, serde_json::Error> {
        object_or_default(&self.raw_update_strategy)
    }
}

/// The update strategy that replaces a pod only after a user has deleted it.
pub const ON_DELETE: &str = "OnDelete";
/// The update strategy by which the controller itself replaces pods.
pub const ROLLING_UPDATE: &str = "RollingUpdate";

/// `PodTemplateSpec`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplateSpec {
    /// Labels, annotations and finalizers of the pods.
    #[serde(deserialize_with = "object_or_default")]
    pub metadata: Metadata,
    /// The spec of the pods.
    #[serde(deserialize_with = "object_or_default")]
    pub spec: PodSpec,
}

/// `DaemonSetUpdateStrategy` of apps/v1.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetUpdateStrategy {
    /// `RollingUpdate` (also when empty) or `OnDelete`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Read with RollingUpdate only.
    #[serde(deserialize_with = "object")]
    pub rolling_update: Option<RollingUpdateDaemonSet>,
}

/// `RollingUpdateDaemonSet` of apps/v1.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdateDaemonSet {
    /// 1 when absent.
    pub max_unavailable: Option<IntOrString>,
    /// 0 when absent.
    pub max_surge: Option<IntOrString>,
}

/// Decodes a label selector; a label that is `null` is the empty string, as for Go.
fn selector<'de, D: Deserializer<'de>>(from: D) -> Result<Option<LabelSelector>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Selector {
        #[serde(deserialize_with = "string_map")]
        match_labels: BTreeMap<String, String>,
        #[serde(deserialize_with = "or_default")]
        match_expressions: Vec<LabelSelectorRequirement>,
    }
    let selector: Option<Selector> = object(from)?;
    Ok(selector.map(|Selector { match_labels, match_expressions }| LabelSelector {
        match_labels: Some(match_labels).filter(|labels| !labels.is_empty()),
        match_expressions: Some(match_expressions).filter(|expressions| !expressions.is_empty()),
    }))
}
