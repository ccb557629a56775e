//! The verdicts on the nodes of a `filter` call, and the ExtenderFilterResult that is written from them.
//!
//! Judging and writing are apart: a lock is held for judging only.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::node_names::NodeNames;
use super::{BadArgs, ExtenderArgs, FullNode, NodeList, Nodes, SentList, SentNode, decoded};
use crate::api::decode_budget::DecodeBudget;
use crate::api::json::JsonString;

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

impl ExtenderArgs<'_> {
    /// Decides each node, in order. `refuse` gets its name, and its fields if nodes were sent whole; it returns the reason if the
    /// node is to be refused. For one name it must always return the same. Nothing is written, so that a lock need not be held for
    /// longer.
    pub fn judge<R>(&self, refuse: impl FnMut(&str, Option<&FullNode<'_>>) -> Option<R>) -> Verdicts<R> {
        match &self.nodes {
            Nodes::Names(list) => judge_names(list, refuse),
            Nodes::Whole(list) => judge_list(list, refuse),
        }
    }

    /// Returns the name of a node by its place in the call; `None` for a Node without a name, which the answer cannot refuse.
    pub fn name(&self, index: usize) -> Option<Cow<'_, str>> {
        match &self.nodes {
            Nodes::Names(list) => list.names.get(index).map(decoded),
            Nodes::Whole(list) => list.items.get(index)?.name.as_ref().map(decoded),
        }
    }

    /// Charges for the ExtenderFilterResult of these verdicts: a name of three bytes and the reason for its refusal are fifty times
    /// as much.
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
    /// Returns the verdicts from the reason of each node, in order; `None` for a node that is allowed.
    pub fn of_reasons(mut reasons: Vec<Option<R>>) -> Self {
        let first = reasons.iter().position(Option::is_some);
        Self { first, rest: first.map_or_else(Vec::new, |first| reasons.split_off(first)) }
    }

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
