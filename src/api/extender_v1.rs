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
use super::decode_budget::{DecodeBudget, TooManyElements};
use super::json::{self, JsonError, JsonString, Scanner};
use crate::api::pod::Pod;

/// An error of arguments: the server answers 400, because no scheduler sends such a body.
#[derive(Debug, thiserror::Error)]
pub enum BadArgs {
    /// The body is not UTF-8.
    #[error("the body is no {kind}: it is not UTF-8: {source}")]
    NotText {
        /// The type that was expected.
        kind: &'static str,
        /// Has the position.
        source: std::str::Utf8Error,
    },
    /// The body is no JSON, or JSON of another shape.
    #[error("the body is no {kind}: {source}")]
    NotArgs {
        /// The type that was expected.
        kind: &'static str,
        /// Has the fault and the position.
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

/// The nodes of a call, in one of the two modes.
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
    /// The text of the list, if it can be echoed around fewer items.
    around: Option<SentList<'a>>,
}

/// The text of a NodeList: its range in the body, and its parts before and after the items.
#[derive(Debug, Clone)]
struct SentList<'a> {
    sent: Range<usize>,
    before: &'a str,
    after: &'a str,
}

/// An item of a NodeList: its text, and the fields that are read.
#[derive(Debug)]
struct SentNode<'a> {
    sent: &'a str,
    name: Option<JsonString<'a>>,
    node: FullNode<'a>,
}

/// The fields of a Node that was sent whole; each is decoded when it is asked for.
#[derive(Debug, Default, Clone)]
pub struct FullNode<'a> {
    labels: Option<&'a str>,
    taints: Option<&'a str>,
}

impl<'a> FullNode<'a> {
    /// Creates a node from the JSON of its labels and taints.
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

    /// Decides each node, in order. `refuse` gets its name, and its fields if nodes were sent whole; it returns the reason if the node is
    /// to be refused. For one name it must always return the same. Nothing is written, so that a lock need not be held for longer.
    pub fn judge<R>(&self, refuse: impl FnMut(&str, Option<&FullNode<'_>>) -> Option<R>) -> Verdicts<R> {
        match &self.nodes {
            Nodes::Names(list) => judge_names(list, refuse),
            Nodes::Whole(list) => judge_list(list, refuse),
        }
    }

    /// Charges for the ExtenderFilterResult of these verdicts: a name of three bytes and the reason for its refusal are fifty times as much.
    ///
    /// # Errors
    /// Fails if there is too little memory.
    pub fn charge_answer<R>(&self, verdicts: &Verdicts<R>, budget: &DecodeBudget<'_>) -> Result<(), BadArgs> {
        let refused = verdicts.rest.iter().filter(|refusal| refusal.is_some()).count();
        let copied: usize = match &self.nodes {
            _ if refused == 0 => 0,
            Nodes::Names(list) => 2 * list.sent.len(),
            Nodes::Whole(list) => list.items.iter().map(|item| item.sent.len()).sum(),
        };
        let bytes = copied.saturating_add(refused.saturating_mul(REFUSAL));
        budget.charge(bytes).map_err(|_| BadArgs::TooLarge(Self::KIND))
    }

    /// Returns the ExtenderFilterResult for the verdicts of [`Self::judge`].
    ///
    /// `message` is called once for each refused node, with the reason. It returns a text that needs no escapes in JSON.
    pub fn answer<R: Copy>(
        &self,
        verdicts: Verdicts<R>,
        message: impl FnMut(R) -> &'static str,
    ) -> EchoedBody {
        match &self.nodes {
            Nodes::Names(list) => answer_names(list, &verdicts, message),
            Nodes::Whole(list) => answer_list(list, verdicts, message),
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

/// The bytes of a refusal besides the name, while the list of them grows.
const REFUSAL: usize = 256;

/// The refused nodes of a call.
#[derive(Debug)]
pub struct Verdicts<R> {
    /// The index of the first refused node. Most calls refuse none.
    first: Option<usize>,
    /// The verdicts from the first refused node on.
    rest: Vec<Option<R>>,
}

impl<R> Verdicts<R> {
    fn of<'t, T: 't>(items: &'t [T], mut refuse: impl FnMut(&'t T) -> Option<R>) -> Self {
        let refusal = items.iter().enumerate().find_map(|(index, item)| Some((index, refuse(item)?)));
        let Some((first, reason)) = refusal else { return Self { first: None, rest: Vec::new() } };
        let mut rest = Vec::with_capacity(items.len() - first);
        rest.push(Some(reason));
        rest.extend(items[first + 1..].iter().map(refuse));
        Self { first: Some(first), rest }
    }
}

fn judge_names<R>(
    NodeNames { names, .. }: &NodeNames<'_>,
    mut refuse: impl FnMut(&str, Option<&FullNode<'_>>) -> Option<R>,
) -> Verdicts<R> {
    Verdicts::of(names, |name| refuse(&decoded(name), None))
}

fn judge_list<R>(
    list: &NodeList<'_>,
    mut refuse: impl FnMut(&str, Option<&FullNode<'_>>) -> Option<R>,
) -> Verdicts<R> {
    // The result cannot refuse a node without a name.
    Verdicts::of(&list.items, |item| item.name.and_then(|name| refuse(&decoded(&name), Some(&item.node))))
}

fn answer_names<R: Copy>(
    NodeNames { sent, names }: &NodeNames<'_>,
    Verdicts { first, rest }: &Verdicts<R>,
    mut message: impl FnMut(R) -> &'static str,
) -> EchoedBody {
    let before = r#"{"Nodes":null,"NodeNames":"#;
    let Some(first) = *first else {
        return FilterResultWriter::new(0).echo(before, sent.clone()).finish();
    };
    let mut writer = FilterResultWriter::new(sent.len() + 200);
    writer.text(before);
    writer.text("[");
    names[..first].iter().for_each(|name| writer.item(name.quoted()));
    for (name, refusal) in names[first..].iter().zip(rest) {
        match refusal {
            None => writer.item(name.quoted()),
            Some(reason) => writer.refuse(*name, message(*reason)),
        }
    }
    writer.text("]");
    writer.finish()
}

fn answer_list<R: Copy>(
    list: &NodeList<'_>,
    Verdicts { first, rest }: Verdicts<R>,
    mut message: impl FnMut(R) -> &'static str,
) -> EchoedBody {
    let mut refusals: Vec<Option<R>> = vec![None; first.unwrap_or(list.items.len())];
    refusals.extend(rest);
    let begin = r#"{"Nodes":"#;
    let end = r#","NodeNames":null"#;
    if first.is_some() {
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

/// Decodes a name that [`name`] has checked.
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

/// Returns the text of an object; `None` for `null`.
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

/// The bytes for a node that was sent whole, besides itself: its name among the allowed ones, see [`allow_names_allowed_once`].
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
