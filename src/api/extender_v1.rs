//! The wire format of a kube-scheduler extender's `filter` verb. Arguments are borrowed from the request's body; the result is
//! written from their text.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/kube-scheduler/extender/v1/types.go and pkg/scheduler/extender.go. The types
//! have no JSON tags, so the scheduler writes Go's field names; it reads them in upper or lower case, and so does this parser.
//! The scheduler calls for every pod of the cluster: of a node only the name is decoded, and the sent text is echoed.

pub(crate) mod node_names;
pub mod preemption;
pub mod verdicts;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use k8s_openapi::api::core::v1::Taint;
use serde::de::Error;

use self::node_names::{MAX_NAME, NodeNames, check_count, name};
use super::decode_budget::{DecodeBudget, TooManyElements};
use super::json::{self, JsonError, JsonString, Scanner};
use crate::api::meta::Metadata;
use crate::api::pod::Pod;

/// The error of a body that holds no arguments: the server answers 400. No scheduler sends such a body.
#[derive(Debug, thiserror::Error)]
pub enum BadArgs {
    /// The body is not UTF-8.
    #[error("the body is no {kind}: it is not UTF-8: {source}")]
    NotText {
        /// The type that was expected.
        kind: &'static str,
        /// The error, with its position.
        source: std::str::Utf8Error,
    },
    /// The body is no JSON, or JSON of another shape.
    #[error("the body is no {kind}: {source}")]
    NotArgs {
        /// The type that was expected.
        kind: &'static str,
        /// The error, with its position.
        source: JsonError,
    },
    /// The arguments have no pod.
    #[error("the {0} have no Pod")]
    NoPod(&'static str),
    /// The pod does not have the shape of a pod.
    #[error("Pod cannot be handled as a Pod: {0}")]
    BadPod(#[source] serde_json::Error),
    /// The arguments of `filter` have no nodes.
    #[error("the ExtenderArgs have neither NodeNames nor Nodes")]
    NoNodes,
    /// The arguments would take more memory than a call may.
    #[error("the body cannot be handled as {0}: {TooManyElements}")]
    TooLarge(&'static str),
    /// The arguments of `preempt` have no candidates.
    #[error("the ExtenderPreemptionArgs have neither NodeNameToMetaVictims nor NodeNameToVictims")]
    NoCandidates,
}

/// The arguments of a `filter` call: a pod, and the nodes that the scheduler may place it on.
#[derive(Debug)]
pub struct ExtenderArgs<'a> {
    /// The pod that the scheduler is placing.
    pub pod: Pod,
    nodes: Nodes<'a>,
}

/// The nodes of a call; the extender's entry in the scheduler's configuration selects the form.
#[derive(Debug)]
enum Nodes<'a> {
    /// Names, with `nodeCacheCapable: true`.
    Names(NodeNames<'a>),
    /// A NodeList, with `nodeCacheCapable: false`.
    Whole(NodeList<'a>),
}

#[derive(Debug, Default)]
struct NodeList<'a> {
    items: Vec<SentNode<'a>>,
    /// The text of the list; `None` if the text cannot be echoed around fewer items.
    around: Option<SentList<'a>>,
}

/// The text of a NodeList: its range in the body, and its parts before and after the items.
#[derive(Debug, Clone)]
struct SentList<'a> {
    sent: Range<usize>,
    before: &'a str,
    after: &'a str,
}

/// An item of a NodeList: its text, and the fields that this program reads.
#[derive(Debug)]
struct SentNode<'a> {
    sent: &'a str,
    name: Option<JsonString<'a>>,
    node: FullNode<'a>,
}

/// The labels and taints of a Node that was sent whole. Each call of a method decodes its field anew.
#[derive(Debug, Default, Clone)]
pub struct FullNode<'a> {
    labels: Option<&'a str>,
    taints: Option<&'a str>,
}

impl<'a> FullNode<'a> {
    /// Creates a node from the JSON of its labels and taints; `None` for an absent field.
    pub fn new(labels: Option<&'a str>, taints: Option<&'a str>) -> Self {
        Self { labels, taints }
    }

    /// Decodes the labels; `None` if they are not a map of strings, or too large a one.
    pub fn labels(&self, budget: &DecodeBudget<'_>) -> Option<BTreeMap<String, String>> {
        decode(self.labels, budget)
    }

    /// Decodes the taints; `None` if they are not a list of taints, or too large a one.
    pub fn taints(&self, budget: &DecodeBudget<'_>) -> Option<Vec<Taint>> {
        decode(self.taints, budget)
    }
}

fn decode<T: Default + for<'de> serde::Deserialize<'de>>(
    sent: Option<&str>,
    budget: &DecodeBudget<'_>,
) -> Option<T> {
    let Some(sent) = sent else { return Some(T::default()) };
    budget.decode::<Option<T>>(sent).ok().map(Option::unwrap_or_default)
}

impl<'a> ExtenderArgs<'a> {
    const KIND: &'static str = "ExtenderArgs";

    /// Parses the body of a `filter` call, however large.
    ///
    /// # Errors
    /// Fails if the body is no ExtenderArgs with a pod and nodes.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadArgs> {
        Self::parse_within(body, &DecodeBudget::default())
    }

    /// Parses the body of a `filter` call.
    ///
    /// # Errors
    /// As [`Self::parse`], and if the arguments would take more memory than `budget` has.
    pub fn parse_within(body: &'a [u8], budget: &DecodeBudget<'_>) -> Result<Self, BadArgs> {
        Self::parse_parts(body, budget).map_err(|error| too_large_or(error, Self::KIND, budget))
    }

    fn parse_parts(body: &'a [u8], budget: &DecodeBudget<'_>) -> Result<Self, BadArgs> {
        let (mut pod, mut names, mut list) = (None, None, None);
        parse_object(Self::KIND, body, |scanner, key| {
            // The last of several equal keys counts, as for Go.
            if key.is_key("Pod") {
                pod = object_text(scanner)?;
            } else if key.is_key("NodeNames") {
                names = if scanner.null() { None } else { Some(NodeNames::parse(scanner, budget)?) };
            } else if key.is_key("Nodes") {
                list = parse_list(scanner, budget)?;
            } else {
                scanner.value()?;
            }
            Ok(())
        })?;
        let pod = parse_pod(Self::KIND, pod, budget)?;
        let nodes = match (names, list) {
            (Some(names), _) => Nodes::Names(names),
            (None, Some(list)) => Nodes::Whole(list),
            (None, None) => return Err(BadArgs::NoNodes),
        };
        Ok(Self { pod, nodes })
    }

    /// Returns the number of nodes that were sent.
    pub fn node_count(&self) -> usize {
        match &self.nodes {
            Nodes::Names(list) => list.names.len(),
            Nodes::Whole(list) => list.items.len(),
        }
    }

    /// Returns the nodes called `name` that were sent whole, `limit` at most.
    pub fn nodes_named(&self, name: &str, limit: usize) -> impl Iterator<Item = &FullNode<'a>> {
        let items = match &self.nodes {
            Nodes::Names(_) => &[],
            Nodes::Whole(list) => list.items.as_slice(),
        };
        let is_called = move |item: &&SentNode<'a>| item.name.is_some_and(|own| own.says(name));
        items.iter().filter(is_called).take(limit).map(|item| &item.node)
    }
}

/// Returns the text of a name that [`name`] has checked.
fn decoded<'a>(name: &JsonString<'a>) -> Cow<'a, str> {
    name.decode().unwrap_or_default()
}

/// Reads a body that is one object.
pub(crate) fn parse_object<'a>(
    kind: &'static str,
    body: &'a [u8],
    member: impl FnMut(&mut Scanner<'a>, JsonString<'a>) -> Result<(), JsonError>,
) -> Result<(), BadArgs> {
    let text = json::text(body).map_err(|source| BadArgs::NotText { kind, source })?;
    let mut scanner = Scanner::new(text);
    scanner.object(member).and_then(|()| scanner.end()).map_err(|source| BadArgs::NotArgs { kind, source })
}

/// Reads an object and returns its text; `None` for `null`. Any other value is an error.
pub(crate) fn object_text<'a>(scanner: &mut Scanner<'a>) -> Result<Option<&'a str>, JsonError> {
    match scanner.peek() {
        _ if scanner.null() => Ok(None),
        Some(b'{') => scanner.value().map(Some),
        _ => Err(scanner.fault("expected an object")),
    }
}

/// Decodes the pod of the arguments. Of its owners only the controller is kept, which is looked for several times.
pub(crate) fn parse_pod(
    kind: &'static str,
    pod: Option<&str>,
    budget: &DecodeBudget<'_>,
) -> Result<Pod, BadArgs> {
    let mut pod: Pod = budget.decode(pod.ok_or(BadArgs::NoPod(kind))?).map_err(BadArgs::BadPod)?;
    let controller = pod.metadata.owner_references.iter().position(|owner| owner.controller == Some(true));
    let controller = controller.map(|at| pod.metadata.owner_references.swap_remove(at));
    pod.metadata.owner_references = controller.into_iter().collect();
    // They are looked up while the cache is locked, and the UID is kept.
    let Metadata { name, namespace, uid, owner_references, .. } = &pod.metadata;
    let owner_uids = owner_references.iter().map(|owner| &owner.uid);
    if [name, namespace, uid].into_iter().chain(owner_uids).any(|name| name.len() > MAX_NAME) {
        return Err(BadArgs::BadPod(serde_json::Error::custom("a name or UID of more than 253 bytes")));
    }
    Ok(pod)
}

/// Returns the error for arguments that could not be parsed, or that there was no memory for.
pub(crate) fn too_large_or(error: BadArgs, kind: &'static str, budget: &DecodeBudget<'_>) -> BadArgs {
    if budget.is_exceeded() { BadArgs::TooLarge(kind) } else { error }
}

/// Charges for `count` elements of a list that grows to them.
pub(crate) fn charge<T>(
    scanner: &Scanner<'_>,
    count: usize,
    budget: &DecodeBudget<'_>,
) -> Result<(), JsonError> {
    budget.charge(count.saturating_mul(size_of::<T>())).map_err(|_| scanner.fault("too many elements"))
}

/// The bytes for a node that was sent whole, besides itself: its name among the allowed ones, see [`verdicts`].
const NAME_IN_SET: usize = 128;

fn parse_list<'a>(
    scanner: &mut Scanner<'a>,
    budget: &DecodeBudget<'_>,
) -> Result<Option<NodeList<'a>>, JsonError> {
    if scanner.null() {
        return Ok(None);
    }
    let mut list = NodeList::default();
    let mut place = None;
    let mut is_plain = true;
    scanner.peek();
    let start = scanner.position();
    scanner.object(|scanner, key| {
        if !key.is_key("items") {
            scanner.value()?;
            return Ok(());
        }
        // The list is echoed around fewer items only if every JSON reader finds the same items in it.
        is_plain &= place.is_none() && key.quoted() == r#""items""#;
        scanner.peek();
        let from = scanner.position();
        list.items.clear();
        if scanner.null() {
            is_plain = false;
        } else {
            scanner.array(|scanner| {
                check_count(scanner, list.items.len())?;
                charge::<SentNode<'_>>(scanner, 2, budget)?;
                charge::<u8>(scanner, NAME_IN_SET, budget)?;
                list.items.push(parse_item(scanner)?);
                Ok(())
            })?;
        }
        place = Some((from, scanner.position()));
        Ok(())
    })?;
    if let Some((from, to)) = place.filter(|_| is_plain) {
        let text = scanner.text_since(start);
        list.around = Some(SentList {
            sent: start..scanner.position(),
            before: &text[..from - start],
            after: &text[to - start..],
        });
    }
    Ok(Some(list))
}

fn parse_item<'a>(scanner: &mut Scanner<'a>) -> Result<SentNode<'a>, JsonError> {
    scanner.peek();
    let start = scanner.position();
    let mut found = None;
    let mut node = FullNode::default();
    scanner.optional_object(|scanner, key| {
        if key.says("metadata") {
            scanner.optional_object(|scanner, key| {
                if key.says("name") {
                    found = if scanner.null() { None } else { Some(name(scanner)?) };
                } else if key.says("labels") {
                    node.labels = Some(scanner.value()?);
                } else {
                    scanner.value()?;
                }
                Ok(())
            })?;
        } else if key.says("spec") {
            scanner.optional_object(|scanner, key| {
                let value = scanner.value()?;
                if key.says("taints") {
                    node.taints = Some(value);
                }
                Ok(())
            })?;
        } else {
            scanner.value()?;
        }
        Ok(())
    })?;
    let name = found.filter(|name| name.quoted() != r#""""#);
    Ok(SentNode { sent: scanner.text_since(start), name, node })
}
