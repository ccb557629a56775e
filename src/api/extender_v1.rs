//! The wire format of a kube-scheduler extender's `filter` verb. Arguments are borrowed from the request's body; the result is
//! written from their text.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/kube-scheduler/extender/v1/types.go and pkg/scheduler/extender.go. The types
//! have no JSON tags, so the scheduler writes Go's field names; it reads them in upper or lower case, and so does this parser.
//! The scheduler calls for every pod of the cluster: of a node only the name is decoded, and the sent text is echoed.

pub(crate) mod node_names;
pub mod preemption;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use k8s_openapi::api::core::v1::Taint;

use self::node_names::{NodeNames, check_count, name};
use super::json::{self, JsonError, JsonString, Scanner};
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

    /// Returns the labels: an empty map if the field is absent, `None` if it is not a map of strings.
    pub fn labels(&self) -> Option<BTreeMap<String, String>> {
        decode(self.labels)
    }

    /// Returns the taints: an empty list if the field is absent, `None` if it is not a list of taints.
    pub fn taints(&self) -> Option<Vec<Taint>> {
        decode(self.taints)
    }
}

fn decode<T: Default + for<'de> serde::Deserialize<'de>>(sent: Option<&str>) -> Option<T> {
    let Some(sent) = sent else { return Some(T::default()) };
    serde_json::from_str::<Option<T>>(sent).ok().map(Option::unwrap_or_default)
}

/// A response that repeats a part of the request's body, so that the caller need not copy that part.
#[derive(Debug, Default)]
pub struct EchoedBody {
    /// The bytes before the repeated part.
    pub before: Vec<u8>,
    /// The range of the repeated part in the body that [`ExtenderArgs::parse`] read; empty if nothing is repeated.
    pub sent: Range<usize>,
    /// The bytes after the repeated part.
    pub after: Vec<u8>,
}

impl EchoedBody {
    /// Returns the whole response in one buffer. `body` is the body that [`ExtenderArgs::parse`] read.
    pub fn to_vec(&self, body: &[u8]) -> Vec<u8> {
        [&self.before, &body[self.sent.clone()], &self.after].concat()
    }
}

impl<'a> ExtenderArgs<'a> {
    const KIND: &'static str = "ExtenderArgs";

    /// Parses the body of a `filter` call. If both names and whole Nodes were sent, the names count.
    ///
    /// # Errors
    /// Fails if the body is no ExtenderArgs with a pod and nodes.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadArgs> {
        let (mut pod, mut names, mut list) = (None, None, None);
        parse_object(Self::KIND, body, |scanner, key| {
            // The last of several equal keys counts, as for Go.
            if key.is_key("Pod") {
                pod = object_text(scanner)?;
            } else if key.is_key("NodeNames") {
                names = if scanner.null() { None } else { Some(NodeNames::parse(scanner)?) };
            } else if key.is_key("Nodes") {
                list = parse_list(scanner)?;
            } else {
                scanner.value()?;
            }
            Ok(())
        })?;
        let pod = parse_pod(Self::KIND, pod)?;
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

    /// Returns the ExtenderFilterResult as JSON. `refuse` is called once for each node, in the order that was sent, with the node's
    /// name, and with its fields if the scheduler sent whole Nodes. It returns the reason to refuse the node, or `None` to allow
    /// it; for equal arguments it must return the same. A Node without a name is allowed without a call.
    ///
    /// `message` is called once for each refused node, with the reason. It returns a text that needs no escapes in JSON.
    pub fn filter<R: Copy>(
        &self,
        refuse: impl FnMut(&str, Option<&FullNode<'_>>) -> Option<R>,
        message: impl FnMut(R) -> &'static str,
    ) -> EchoedBody {
        match &self.nodes {
            Nodes::Names(list) => filter_names(list, refuse, message),
            Nodes::Whole(list) => filter_list(list, refuse, message),
        }
    }
}

fn filter_names<R>(
    NodeNames { sent, names }: &NodeNames<'_>,
    mut refuse: impl FnMut(&str, Option<&FullNode<'_>>) -> Option<R>,
    mut message: impl FnMut(R) -> &'static str,
) -> EchoedBody {
    let mut check = |name: &JsonString<'_>| refuse(&decoded(name), None);
    let first = names.iter().enumerate().find_map(|(index, name)| Some((index, check(name)?)));
    let before = r#"{"Nodes":null,"NodeNames":"#;
    // Most calls refuse no node.
    let Some((refused, reason)) = first else {
        return FilterResultWriter::new(0).echo(before, sent.clone()).finish();
    };
    let mut writer = FilterResultWriter::new(sent.len() + 200);
    writer.text(before);
    writer.text("[");
    names[..refused].iter().for_each(|name| writer.item(name.quoted()));
    writer.refuse(names[refused], message(reason));
    for name in &names[refused + 1..] {
        match check(name) {
            None => writer.item(name.quoted()),
            Some(reason) => writer.refuse(*name, message(reason)),
        }
    }
    writer.text("]");
    writer.finish()
}

fn filter_list<R: Copy>(
    list: &NodeList<'_>,
    mut refuse: impl FnMut(&str, Option<&FullNode<'_>>) -> Option<R>,
    mut message: impl FnMut(R) -> &'static str,
) -> EchoedBody {
    // The result cannot refuse a node without a name.
    let check = |item: &SentNode<'_>| item.name.and_then(|name| refuse(&decoded(&name), Some(&item.node)));
    let mut refusals: Vec<Option<R>> = list.items.iter().map(check).collect();
    let begin = r#"{"Nodes":"#;
    let end = r#","NodeNames":null"#;
    if refusals.iter().any(Option::is_some) {
        allow_names_allowed_once(&list.items, &mut refusals);
    } else if let Some(SentList { sent, .. }) = &list.around {
        let mut writer = FilterResultWriter::new(0).echo(begin, sent.clone());
        writer.text(end);
        return writer.finish();
    }
    let allowed = || list.items.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
    let size: usize = allowed().map(|(item, _)| item.sent.len() + 1).sum();
    let mut writer = FilterResultWriter::new(size + 500);
    let (before, after) =
        list.around.as_ref().map_or((r#"{"metadata":{},"items":"#, "}"), |list| (list.before, list.after));
    writer.text(begin);
    writer.text(before);
    writer.text("[");
    allowed().for_each(|(item, _)| writer.item(item.sent));
    writer.text("]");
    writer.text(after);
    writer.text(end);
    for (item, refusal) in list.items.iter().zip(&refusals) {
        if let Some((name, reason)) = item.name.zip(*refusal) {
            writer.refuse(name, message(reason));
        }
    }
    writer.finish()
}

/// Removes the refusals of names that are also allowed: two Nodes of one name can differ, and the result must not have a name
/// both as allowed and as refused.
fn allow_names_allowed_once<R>(items: &[SentNode<'_>], refusals: &mut [Option<R>]) {
    let named = |item: &SentNode<'_>| item.name.map(|name| decoded(&name).into_owned());
    let allowed = items.iter().zip(refusals.iter()).filter(|(_, refusal)| refusal.is_none());
    let allowed: HashSet<String> = allowed.filter_map(|(item, _)| named(item)).collect();
    if allowed.is_empty() {
        return;
    }
    for (item, refusal) in items.iter().zip(refusals).filter(|(_, refusal)| refusal.is_some()) {
        if named(item).is_some_and(|name| allowed.contains(&name)) {
            *refusal = None;
        }
    }
}

/// Returns the text of a name that [`name`] has checked.
fn decoded<'a>(name: &JsonString<'a>) -> Cow<'a, str> {
    name.decode().unwrap_or_default()
}

/// Writes an ExtenderFilterResult.
struct FilterResultWriter {
    body: EchoedBody,
    failed: Vec<u8>,
    is_first: bool,
}

impl FilterResultWriter {
    /// Creates a writer with room for `capacity` bytes besides the echoed text and the end.
    fn new(capacity: usize) -> Self {
        let body = EchoedBody { after: Vec::with_capacity(capacity + 100), ..EchoedBody::default() };
        Self { body, failed: Vec::new(), is_first: true }
    }

    /// Writes `before` and the echoed range of the body; call this first.
    fn echo(mut self, before: &str, sent: Range<usize>) -> Self {
        self.body.before.extend_from_slice(before.as_bytes());
        self.body.sent = sent;
        self
    }

    fn text(&mut self, text: &str) {
        self.body.after.extend_from_slice(text.as_bytes());
    }

    /// Writes an allowed item of the list.
    fn item(&mut self, text: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.text(",");
        }
        self.text(text);
    }

    fn refuse(&mut self, name: JsonString<'_>, message: &str) {
        if !self.failed.is_empty() {
            self.failed.push(b',');
        }
        // The texts need no escapes: the test of `FilterReason` checks that.
        for part in [name.quoted(), ":\"", message, "\""] {
            self.failed.extend_from_slice(part.as_bytes());
        }
    }

    /// Writes the refusals and the end. Refusals are unresolvable: for an entry of FailedNodes the scheduler would try preemption,
    /// which cannot help.
    fn finish(mut self) -> EchoedBody {
        self.text(r#","FailedNodes":{},"FailedAndUnresolvableNodes":{"#);
        self.body.after.append(&mut self.failed);
        self.text(r#"},"Error":""}"#);
        self.body
    }
}

/// Reads a body that is one JSON object; `member` gets each key and must read or skip the value. `kind` is the type that errors
/// name.
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

/// Decodes the pod of the arguments. Fails if there is none, or it does not have the shape of a Pod.
pub(crate) fn parse_pod(kind: &'static str, pod: Option<&str>) -> Result<Pod, BadArgs> {
    serde_json::from_str(pod.ok_or(BadArgs::NoPod(kind))?).map_err(BadArgs::BadPod)
}

fn parse_list<'a>(scanner: &mut Scanner<'a>) -> Result<Option<NodeList<'a>>, JsonError> {
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
