//! The wire format of a kube-scheduler extender's `preempt` verb.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/kube-scheduler/extender/v1/types.go (`ExtenderPreemptionArgs`, `Victims`,
//! `MetaVictims`) and pkg/scheduler/extender.go (`convertToVictims`). The result names victims by UID in both modes, in
//! the order and with the numbers that were sent: the first victim must be the one of the highest priority, and any `null` would
//! crash the scheduler.

use std::borrow::Cow;

use hashbrown::HashSet;

use super::node_names::{decode_name, name};
use super::{BadArgs, charge, decoded, object_text, parse_object, parse_pod, too_large_or};
use crate::api::decode_budget::DecodeBudget;
use crate::api::json::{JsonError, JsonString, Scanner};
use crate::api::pod::Pod;

/// The most candidates and victims of a call, more than the pods of any cluster: the scheduler proposes a tenth of the nodes.
const MAX_VICTIMS: usize = 200_000;

/// The arguments of a `preempt` call: a pod, and the nodes with the victims that would make room for it.
#[derive(Debug)]
pub struct ExtenderPreemptionArgs<'a> {
    /// The pod that the scheduler makes room for.
    pub pod: Pod,
    entries: Vec<SentCandidate<'a>>,
}

/// A node where the scheduler would make room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreemptionCandidate<'a> {
    /// The name of the node.
    pub node: Cow<'a, str>,
    /// The UIDs of the pods that the scheduler would evict, in its order. Empty if no pod has to go (kubernetes#135486).
    pub victims: Vec<Cow<'a, str>>,
}

/// A candidate node as it was sent.
#[derive(Debug)]
struct SentCandidate<'a> {
    node: JsonString<'a>,
    victims: Vec<JsonString<'a>>,
    /// The number of violated PodDisruptionBudgets, as it was sent; `None` if absent or `null`.
    pdb_violations: Option<&'a str>,
}

/// The result of a `preempt` call, with a count for the metrics.
#[derive(Debug)]
pub struct PreemptionResult {
    /// The ExtenderPreemptionResult as JSON.
    pub body: Vec<u8>,
    /// The number of candidates that were sent.
    pub nodes: usize,
}

impl<'a> ExtenderPreemptionArgs<'a> {
    const KIND: &'static str = "ExtenderPreemptionArgs";

    /// Parses the body of a `preempt` call, however large. The victims come as UIDs, or without those as whole pods.
    ///
    /// # Errors
    /// Fails if the body is no ExtenderPreemptionArgs with a pod and candidates, or names a node twice.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadArgs> {
        Self::parse_within(body, &DecodeBudget::default())
    }

    /// Parses the body of a `preempt` call.
    ///
    /// # Errors
    /// As [`Self::parse`], and if the arguments would take more memory than `budget` has.
    pub fn parse_within(body: &'a [u8], budget: &DecodeBudget<'_>) -> Result<Self, BadArgs> {
        Self::parse_parts(body, budget).map_err(|error| too_large_or(error, Self::KIND, budget))
    }

    fn parse_parts(body: &'a [u8], budget: &DecodeBudget<'_>) -> Result<Self, BadArgs> {
        let (mut pod, mut by_uid, mut whole) = (None, None, None);
        parse_object(Self::KIND, body, |scanner, key| {
            if key.is_key("Pod") {
                pod = object_text(scanner)?;
            } else if key.is_key("NodeNameToMetaVictims") {
                by_uid = parse_entries(scanner, meta_uid, budget)?;
            } else if key.is_key("NodeNameToVictims") {
                whole = parse_entries(scanner, pod_uid, budget)?;
            } else {
                scanner.value()?;
            }
            Ok(())
        })?;
        let pod = parse_pod(Self::KIND, pod, budget)?;
        let entries = by_uid.or(whole).ok_or(BadArgs::NoCandidates)?;
        Ok(Self { pod, entries })
    }

    /// Returns the candidates in the order that they were sent in.
    pub fn candidates(&self) -> Vec<PreemptionCandidate<'a>> {
        let candidate = |entry: &SentCandidate<'a>| PreemptionCandidate {
            node: decoded(&entry.node),
            victims: entry.victims.iter().map(decoded).collect(),
        };
        self.entries.iter().map(candidate).collect()
    }

    /// Returns the result with the candidates to keep, as they were sent. `keeps` is called once for each index of
    /// [`Self::candidates`], in order, and returns true for those.
    pub fn to_result(&self, keeps: impl Fn(usize) -> bool) -> PreemptionResult {
        let mut body = br#"{"NodeNameToMetaVictims":{"#.to_vec();
        let mut separator = "";
        for (_, entry) in self.entries.iter().enumerate().filter(|(index, _)| keeps(*index)) {
            body.extend_from_slice(separator.as_bytes());
            write_entry(&mut body, entry);
            separator = ",";
        }
        body.extend_from_slice(b"}}");
        PreemptionResult { body, nodes: self.entries.len() }
    }
}

fn write_entry(body: &mut Vec<u8>, entry: &SentCandidate<'_>) {
    body.extend_from_slice(entry.node.quoted().as_bytes());
    body.extend_from_slice(br#":{"Pods":["#);
    for (index, uid) in entry.victims.iter().enumerate() {
        body.extend_from_slice(if index == 0 { br#"{"UID":"# } else { br#",{"UID":"# });
        body.extend_from_slice(uid.quoted().as_bytes());
        body.push(b'}');
    }
    body.extend_from_slice(br#"],"NumPDBViolations":"#);
    body.extend_from_slice(entry.pdb_violations.unwrap_or("0").as_bytes());
    body.push(b'}');
}

/// Reads the map of candidates by node name; `None` for `null`. `uid` reads the UID of a victim. Fails beyond [`MAX_VICTIMS`] nodes
/// and victims together.
fn parse_entries<'a>(
    scanner: &mut Scanner<'a>,
    uid: impl Fn(&mut Scanner<'a>) -> Result<Option<JsonString<'a>>, JsonError>,
    budget: &DecodeBudget<'_>,
) -> Result<Option<Vec<SentCandidate<'a>>>, JsonError> {
    if scanner.null() {
        return Ok(None);
    }
    let mut entries: Vec<SentCandidate<'a>> = Vec::new();
    let mut names = HashSet::new();
    let mut left = MAX_VICTIMS;
    scanner.object(|scanner, node| {
        spend_one(scanner, &mut left)?;
        charge::<(SentCandidate<'_>, PreemptionCandidate<'_>, Cow<'_, str>)>(scanner, 2, budget)?;
        if !names.insert(decode_name(scanner, &node)?) {
            return Err(scanner.fault("a node twice"));
        }
        let mut entry = SentCandidate { node, victims: Vec::new(), pdb_violations: None };
        // A null entry is a node without victims; the result has an empty list for it.
        if !scanner.null() {
            scanner.object(|scanner, key| {
                if key.is_key("Pods") {
                    entry.victims = parse_victims(scanner, &mut left, &uid, budget)?;
                } else if key.is_key("NumPDBViolations") {
                    entry.pdb_violations = parse_integer(scanner)?;
                } else {
                    scanner.value()?;
                }
                Ok(())
            })?;
        }
        entries.push(entry);
        Ok(())
    })?;
    Ok(Some(entries))
}

fn parse_victims<'a>(
    scanner: &mut Scanner<'a>,
    left: &mut usize,
    uid: impl Fn(&mut Scanner<'a>) -> Result<Option<JsonString<'a>>, JsonError>,
    budget: &DecodeBudget<'_>,
) -> Result<Vec<JsonString<'a>>, JsonError> {
    let mut victims = Vec::new();
    if scanner.null() {
        return Ok(victims);
    }
    scanner.array(|scanner| {
        spend_one(scanner, left)?;
        // As it was sent, and as a candidate's.
        charge::<(JsonString<'_>, Cow<'_, str>)>(scanner, 2, budget)?;
        // The result must name every victim, and a victim without a UID has no name.
        match uid(scanner)?.filter(|uid| uid.quoted() != r#""""#) {
            Some(uid) => victims.push(uid),
            None => return Err(scanner.fault("a victim without a UID")),
        }
        Ok(())
    })?;
    Ok(victims)
}

/// Reads the UID of a MetaPod; `None` if it has none.
fn meta_uid<'a>(scanner: &mut Scanner<'a>) -> Result<Option<JsonString<'a>>, JsonError> {
    let mut uid = None;
    scanner.object(|scanner, key| {
        if key.is_key("UID") {
            uid = Some(name(scanner)?);
        } else {
            scanner.value()?;
        }
        Ok(())
    })?;
    Ok(uid)
}

/// Reads the UID of a Pod; `None` if it has none.
fn pod_uid<'a>(scanner: &mut Scanner<'a>) -> Result<Option<JsonString<'a>>, JsonError> {
    let mut uid = None;
    scanner.object(|scanner, key| {
        if key.says("metadata") {
            uid = meta_uid_of(scanner)?;
        } else {
            scanner.value()?;
        }
        Ok(())
    })?;
    Ok(uid)
}

fn meta_uid_of<'a>(scanner: &mut Scanner<'a>) -> Result<Option<JsonString<'a>>, JsonError> {
    // The key is `uid` in a Pod and `UID` in a MetaPod; `is_key` accepts both.
    if scanner.null() { Ok(None) } else { meta_uid(scanner) }
}

/// Reads an integer of 64 bits and returns its text; `None` for `null`. Any other value is an error.
fn parse_integer<'a>(scanner: &mut Scanner<'a>) -> Result<Option<&'a str>, JsonError> {
    if scanner.null() {
        return Ok(None);
    }
    let number = scanner.value()?;
    match number.parse::<i64>() {
        Ok(_) => Ok(Some(number)),
        Err(_) => Err(scanner.fault("expected an integer")),
    }
}

fn spend_one(scanner: &Scanner<'_>, left: &mut usize) -> Result<(), JsonError> {
    *left = left.checked_sub(1).ok_or_else(|| scanner.fault("too many victims"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(body: &str) -> Result<String, String> {
        let args = ExtenderPreemptionArgs::parse(body.as_bytes()).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(args.to_result(|_| true).body).unwrap())
    }

    #[test]
    fn cases_79_to_81_both_forms_are_answered_in_meta_form_and_in_order() {
        let answer = r#"{"NodeNameToMetaVictims":{"n2":{"Pods":[{"UID":"b"},{"UID":"a"}],"NumPDBViolations":2},"n1":{"Pods":[{"UID":"c"}],"NumPDBViolations":0}}}"#;
        let meta = r#"{"Pod":{},"NodeNameToVictims":null,"NodeNameToMetaVictims":{"n2":{"Pods":[{"UID":"b"},{"UID":"a"}],"NumPDBViolations":2},"n1":{"Pods":[{"UID":"c"}]}}}"#;
        let whole = r#"{"Pod":{},"NodeNameToMetaVictims":null,"NodeNameToVictims":{"n2":{"Pods":[{"metadata":{"uid":"b"},"spec":{}},{"spec":null,"metadata":{"name":"x","uid":"a"}}],"NumPDBViolations":2},"n1":{"Pods":[{"metadata":{"uid":"c"}}],"NumPDBViolations":null}}}"#;
        assert_eq!(echo(meta).unwrap(), answer);
        assert_eq!(echo(whole).unwrap(), answer);
        let lower = meta.to_ascii_lowercase();
        assert_eq!(echo(&lower).unwrap(), answer);
    }

    #[test]
    fn issue_135486_nodes_without_victims_are_echoed_and_never_null() {
        let answer = r#"{"NodeNameToMetaVictims":{"a":{"Pods":[],"NumPDBViolations":0},"b":{"Pods":[],"NumPDBViolations":1},"c":{"Pods":[],"NumPDBViolations":0}}}"#;
        let sent = r#"{"Pod":{},"NodeNameToMetaVictims":{"a":null,"b":{"Pods":null,"NumPDBViolations":1},"c":{"Pods":[]}}}"#;
        assert_eq!(echo(sent).unwrap(), answer);
        let none = echo(r#"{"Pod":{},"NodeNameToMetaVictims":{}}"#).unwrap();
        assert_eq!(none, r#"{"NodeNameToMetaVictims":{}}"#);
    }

    #[test]
    fn dropped_nodes_are_left_out() {
        let body = br#"{"Pod":{},"NodeNameToMetaVictims":{"a":{"Pods":[{"UID":"\u0031"}]},"b":{"Pods":[{"UID":"2"}]}}}"#;
        let args = ExtenderPreemptionArgs::parse(body).unwrap();
        let candidates = args.candidates();
        assert_eq!((&*candidates[0].node, &candidates[0].victims[0]), ("a", &"1".into()));
        let result = args.to_result(|index| index == 1);
        assert_eq!(result.nodes, 2);
        let text = String::from_utf8(result.body).unwrap();
        assert_eq!(text, r#"{"NodeNameToMetaVictims":{"b":{"Pods":[{"UID":"2"}],"NumPDBViolations":0}}}"#);
    }

    #[test]
    fn rejects_what_is_no_arguments() {
        let entry = |value: &str| format!(r#"{{"Pod":{{}},"NodeNameToMetaVictims":{{"n":{value}}}}}"#);
        let cases = [
            ("[]".to_owned(), "expected an object"),
            (r#"{"NodeNameToMetaVictims":{}}"#.to_owned(), "have no Pod"),
            (r#"{"Pod":{},"NodeNameToVictims":null}"#.to_owned(), "have neither"),
            (entry("[]"), "expected an object"),
            (entry(r#"{"Pods":{}}"#), "expected an array"),
            (entry(r#"{"Pods":[null]}"#), "expected an object"),
            (entry(r#"{"Pods":[{}]}"#), "without a UID"),
            (entry(r#"{"Pods":[{"UID":""}]}"#), "without a UID"),
            (entry(r#"{"Pods":[{"UID":7}]}"#), "expected a string"),
            (entry(&format!(r#"{{"Pods":[{{"UID":"{}"}}]}}"#, "u".repeat(254))), "more than 253 bytes"),
            (entry("null").replace(r#""n""#, &format!(r#""{}""#, "n".repeat(254))), "more than 253 bytes"),
            (entry(r#"{"NumPDBViolations":"1"}"#), "expected an integer"),
            (entry(r#"{"NumPDBViolations":1.5}"#), "expected an integer"),
            (r#"{"Pod":{},"NodeNameToMetaVictims":{"n":null,"\u006e":null}}"#.to_owned(), "a node twice"),
        ];
        for (body, expected) in cases {
            let error = echo(&body).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }
}
