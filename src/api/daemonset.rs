//! DaemonSets, trimmed to the fields that this program's validation and placement read.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Deserializer};

use crate::api::meta::{Metadata, object, object_or_default, or_default, string_map};
use crate::api::pod::PodSpec;

/// The fields of `DaemonSet` that this program reads, for DaemonSets of any API group.
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
    /// Drops the template and the selector if they have more elements than a DaemonSet needs, so that every node costs little
    /// memory and time.
    pub fn drop_if_too_large(&mut self) {
        let selector = self.spec.selector.as_ref().map_or(0, selector_len);
        let template = &self.spec.template;
        if selector + template.metadata.labels.len() + template.spec.len() > MAX_ELEMENTS
            || template.spec.placement_len() > MAX_PLACEMENT_ELEMENTS
        {
            self.spec = DaemonSetSpec::default();
            self.is_too_large = true;
        }
    }
}

/// The most elements of a DaemonSet that is kept: fifty containers with forty ports, resources and the like each. There may be
/// thousands of DaemonSets.
pub const MAX_ELEMENTS: usize = 2_048;

/// The most elements of a DaemonSet that are compared with each node: the names of a thousand nodes, say.
pub const MAX_PLACEMENT_ELEMENTS: usize = 1_024;

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

/// The fields of `ManagedFieldsEntry` that this program reads.
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
    /// The subresource that the client wrote, such as `status`; empty for the object itself.
    #[serde(deserialize_with = "or_default")]
    pub subresource: String,
}

/// The fields of `DaemonSetSpec` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetSpec {
    /// The selector of the pods that belong to the DaemonSet; `None` if absent, although apps/v1 requires one.
    #[serde(deserialize_with = "selector")]
    pub selector: Option<LabelSelector>,
    /// The template that the controller makes the daemon pods from.
    #[serde(deserialize_with = "object_or_default")]
    pub template: PodTemplateSpec,
    /// The strategy as its author wrote it: DaemonSets of other groups have strategies of their own. Read it with
    /// [`DaemonSetSpec::update_strategy`].
    #[serde(rename = "updateStrategy", deserialize_with = "or_default")]
    pub raw_update_strategy: serde_json::Value,
    /// The seconds that a pod must be Ready before it counts as available.
    #[serde(deserialize_with = "or_default")]
    pub min_ready_seconds: i32,
    /// The number of ControllerRevisions that the controller keeps; 10 for `None`.
    pub revision_history_limit: Option<i32>,
}

impl DaemonSetSpec {
    /// Decodes the update strategy as apps/v1 has it. An absent strategy has all fields empty.
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
    /// The settings of RollingUpdate, without effect with OnDelete; `None` for the defaults.
    #[serde(deserialize_with = "object")]
    pub rolling_update: Option<RollingUpdateDaemonSet>,
}

/// `RollingUpdateDaemonSet` of apps/v1.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdateDaemonSet {
    /// The number or percentage of pods that may be unavailable; 1 for `None`.
    pub max_unavailable: Option<IntOrString>,
    /// The number or percentage of nodes that may have an old and a new pod; 0 for `None`.
    pub max_surge: Option<IntOrString>,
}

/// Decodes a label selector; `None` for `null`. A label whose value is `null` is the empty string, as for Go. Empty lists and maps
/// become `None`.
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
