//! The wire of a kube-scheduler extender's `filter` verb: arguments borrowed from the request's body, the answer written
//! from their text.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/kube-scheduler/extender/v1/types.go and pkg/scheduler/extender.go. The types
//! have no JSON tags, so the scheduler writes Go's field names; it reads them in any case, and so is it done here. Every
//! pod of the cluster passes here: nothing is decoded or copied for a node but its name, and what was sent is echoed.

pub(crate) mod node_names;
pub mod preemption;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use k8s_openapi::api::core::v1::Taint;

use self::node_names::{NodeNames, check_count, name};
use super::json::{self, JsonError, JsonString, Scanner};
use crate::api::pod::Pod;

/// Why arguments cannot be answered: a 400, because no scheduler sends such a thing.
#[derive(Debug, thiserror::Error)]
pub enum BadArgs {
    /// Not even text.
    #[error("the body is no {kind}: it is not UTF-8: {source}")]
    NotText {
        /// What was expected.
        kind: &'static str,
        /// Where.
        source: std::str::Utf8Error,
    },
    /// No JSON, or JSON of another shape.
    #[error("the body is no {kind}: {source}")]
    NotArgs {
        /// What was expected.
        kind: &'static str,
        /// What is wrong and where.
        source: JsonError,
    },
    /// Nobody to place.
    #[error("the {0} have no Pod")]
    NoPod(&'static str),
    /// The pod is not of the shape that pods have.
    #[error("Pod cannot be handled as a Pod: {0}")]
    BadPod(#[source] serde_json::Error),
    /// Nowhere to place it.
    #[error("the ExtenderArgs have neither NodeNames nor Nodes")]
    NoNodes,
    /// Nothing to choose from.
    #[error("the ExtenderPreemptionArgs have neither NodeNameToMetaVictims nor NodeNameToVictims")]
    NoCandidates,
}

/// What the scheduler asks: where may this pod go?
#[derive(Debug)]
pub struct ExtenderArgs<'a> {
    /// The pod to be placed.
    pub pod: Pod,
    nodes: Nodes<'a>,
}

/// The nodes in question, in one of the two modes.
#[derive(Debug)]
enum Nodes<'a> {
    /// By name: `nodeCacheCapable: true`.
    Names(NodeNames<'a>),
    /// As a NodeList: `nodeCacheCapable: false`.
    Whole(NodeList<'a>),
}

#[derive(Debug, Default)]
struct NodeList<'a> {
    items: Vec<SentNode<'a>>,
    /// The list's own text, if it can be echoed around fewer items.
    around: Option<SentList<'a>>,
}

/// A NodeList around its items: the list's place in the body, and its text before and after the items.
#[derive(Debug, Clone)]
struct SentList<'a> {
    sent: Range<usize>,
    before: &'a str,
    after: &'a str,
}

/// An item of a NodeList: its text, and what is read of it.
#[derive(Debug)]
struct SentNode<'a> {
    sent: &'a str,
    name: Option<JsonString<'a>>,
    node: FullNode<'a>,
}

/// What is read of a Node that was sent whole; decoded only when asked for.
#[derive(Debug, Default, Clone)]
pub struct FullNode<'a> {
    labels: Option<&'a str>,
    taints: Option<&'a str>,
}

impl<'a> FullNode<'a> {
    /// A node with the JSON of its labels and taints.
    pub fn new(labels: Option<&'a str>, taints: Option<&'a str>) -> Self {
        Self { labels, taints }
    }

    /// Its labels; `None` when they cannot be read.
    pub fn labels(&self) -> Option<BTreeMap<String, String>> {
        decode(self.labels)
    }

    /// Its taints; `None` when they cannot be read.
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
    /// The repeated part's place in the body that [`ExtenderArgs::parse`] read; empty if nothing is repeated.
    pub sent: Range<usize>,
    /// The bytes after the repeated part.
    pub after: Vec<u8>,
}

impl EchoedBody {
    /// Returns the whole response as one copy. `body` is the body that was parsed.
    pub fn to_vec(&self, body: &[u8]) -> Vec<u8> {
        [&self.before, &body[self.sent.clone()], &self.after].concat()
    }
}

impl<'a> ExtenderArgs<'a> {
    const KIND: &'static str = "ExtenderArgs";

    /// Reads what a scheduler sent.
    ///
    /// # Errors
    /// When it is no ExtenderArgs that can be answered.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadArgs> {
        let (mut pod, mut names, mut list) = (None, None, None);
        parse_object(Self::KIND, body, |scanner, key| {
            // The last of several keys counts, as it does for Go.
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

    /// How many nodes were sent.
    pub fn node_count(&self) -> usize {
        match &self.nodes {
            Nodes::Names(list) => list.names.len(),
            Nodes::Whole(list) => list.items.len(),
        }
    }

    /// Returns the ExtenderFilterResult for what `refuse` says about each node: its name, and what was sent of it where nodes are
    /// sent whole. About one name it must always say the same.
    ///
    /// `message` is called once for each node that the answer refuses, with the reason, and returns a text that stands in JSON
    /// without escapes.
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
    let mut judge = |name: &JsonString<'_>| refuse(&decoded(name), None);
    let first = names.iter().enumerate().find_map(|(index, name)| Some((index, judge(name)?)));
    let before = r#"{"Nodes":null,"NodeNames":"#;
    // Most calls refuse nothing.
    let Some((passed, reason)) = first else {
        return FilterResultWriter::new(0).echo(before, sent.clone()).finish();
    };
    let mut writer = FilterResultWriter::new(sent.len() + 200);
    writer.text(before);
    writer.text("[");
    names[..passed].iter().for_each(|name| writer.item(name.quoted()));
    writer.refuse(names[passed], message(reason));
    for name in &names[passed + 1..] {
        match judge(name) {
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
    // A node that cannot be named cannot be refused either.
    let judge = |item: &SentNode<'_>| item.name.and_then(|name| refuse(&decoded(&name), Some(&item.node)));
    let mut verdicts: Vec<Option<R>> = list.items.iter().map(judge).collect();
    let begin = r#"{"Nodes":"#;
    let end = r#","NodeNames":null"#;
    if verdicts.iter().any(Option::is_some) {
        pass_what_passes_once(&list.items, &mut verdicts);
    } else if let Some(SentList { sent, .. }) = &list.around {
        let mut writer = FilterResultWriter::new(0).echo(begin, sent.clone());
        writer.text(end);
        return writer.finish();
    }
    let passing = || list.items.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_none());
    let size: usize = passing().map(|(item, _)| item.sent.len() + 1).sum();
    let mut writer = FilterResultWriter::new(size + 500);
    let (before, after) =
        list.around.as_ref().map_or((r#"{"metadata":{},"items":"#, "}"), |list| (list.before, list.after));
    writer.text(begin);
    writer.text(before);
    writer.text("[");
    passing().for_each(|(item, _)| writer.item(item.sent));
    writer.text("]");
    writer.text(after);
    writer.text(end);
    for (item, verdict) in list.items.iter().zip(&verdicts) {
        if let Some((name, reason)) = item.name.zip(*verdict) {
            writer.refuse(name, message(reason));
        }
    }
    writer.finish()
}

/// Two Nodes of one name can differ, and a name must not be both passed and refused: it then passes.
fn pass_what_passes_once<R>(items: &[SentNode<'_>], verdicts: &mut [Option<R>]) {
    let named = |item: &SentNode<'_>| item.name.map(|name| decoded(&name).into_owned());
    let passed = items.iter().zip(verdicts.iter()).filter(|(_, verdict)| verdict.is_none());
    let passed: HashSet<String> = passed.filter_map(|(item, _)| named(item)).collect();
    if passed.is_empty() {
        return;
    }
    for (item, verdict) in items.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_some()) {
        if named(item).is_some_and(|name| passed.contains(&name)) {
            *verdict = None;
        }
    }
}

/// The text of a name that [`name`] has let through.
fn decoded<'a>(name: &JsonString<'a>) -> Cow<'a, str> {
    name.decode().unwrap_or_default()
}

/// Writes an answer.
struct FilterResultWriter {
    body: EchoedBody,
    failed: Vec<u8>,
    is_first: bool,
}

impl FilterResultWriter {
    /// For so many bytes that are not echoed, and the end.
    fn new(capacity: usize) -> Self {
        let body = EchoedBody { after: Vec::with_capacity(capacity + 100), ..EchoedBody::default() };
        Self { body, failed: Vec::new(), is_first: true }
    }

    /// Begins with what is echoed.
    fn echo(mut self, before: &str, sent: Range<usize>) -> Self {
        self.body.before.extend_from_slice(before.as_bytes());
        self.body.sent = sent;
        self
    }

    fn text(&mut self, text: &str) {
        self.body.after.extend_from_slice(text.as_bytes());
    }

    /// An item of the list that passes.
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
        // The texts need no escapes; a test in filter.rs says so.
        for part in [name.quoted(), ":\"", message, "\""] {
            self.failed.extend_from_slice(part.as_bytes());
        }
    }

    /// Refusals are unresolvable: a FailedNodes entry would make the scheduler try preemption where it cannot help.
    fn finish(mut self) -> EchoedBody {
        self.text(r#","FailedNodes":{},"FailedAndUnresolvableNodes":{"#);
        self.body.after.append(&mut self.failed);
        self.text(r#"},"Error":""}"#);
        self.body
    }
}

/// Reads the object that is the whole body.
pub(crate) fn parse_object<'a>(
    kind: &'static str,
    body: &'a [u8],
    member: impl FnMut(&mut Scanner<'a>, JsonString<'a>) -> Result<(), JsonError>,
) -> Result<(), BadArgs> {
    let text = json::text(body).map_err(|source| BadArgs::NotText { kind, source })?;
    let mut scanner = Scanner::new(text);
    scanner.object(member).and_then(|()| scanner.end()).map_err(|source| BadArgs::NotArgs { kind, source })
}

/// The text of an object; `None` for `null`.
pub(crate) fn object_text<'a>(scanner: &mut Scanner<'a>) -> Result<Option<&'a str>, JsonError> {
    match scanner.peek() {
        _ if scanner.null() => Ok(None),
        Some(b'{') => scanner.value().map(Some),
        _ => Err(scanner.fault("expected an object")),
    }
}

/// Decodes the pod of the arguments.
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
        // Echoed around other items only where nobody could read it differently.
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
