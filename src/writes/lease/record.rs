//! The Lease as an object: its content for each write, and the record that the state machine reads.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;

use crate::reservation::judge::LeaseRecord;
use crate::reservation::spent_note::MAX_NOTE;

/// The annotation of the Lease with what the judge has spent of holds and budgets, for the next one.
const SPENT_ANNOTATION: &str = "daemonset-warden.io/spent";

/// The duration in a Lease that was given back, as client-go writes it.
const GIVEN_BACK_SECONDS: i32 = 1;

/// Returns the record of a Lease.
pub(super) fn record_of(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    let time = |time: &Option<MicroTime>| time.as_ref().map(|MicroTime(time)| time.to_string());
    LeaseRecord {
        is_given_back: spec.holder_identity.as_deref().unwrap_or_default().is_empty()
            && spec.lease_duration_seconds == Some(GIVEN_BACK_SECONDS)
            && spec.acquire_time == spec.renew_time,
        duration: Duration::from_secs(seconds),
        stamp: format!(
            "{:?} {:?} {:?}",
            time(&spec.renew_time),
            time(&spec.acquire_time),
            spec.lease_transitions
        ),
        holder: spec.holder_identity.unwrap_or_default(),
    }
}

/// Returns the note in a Lease; empty if there is none, or a longer one than this program writes.
pub(super) fn note_of(lease: &Lease) -> &str {
    let annotations = lease.metadata.annotations.as_ref();
    let note = annotations.and_then(|annotations| annotations.get(SPENT_ANNOTATION));
    note.map(String::as_str).filter(|note| note.len() <= MAX_NOTE).unwrap_or_default()
}

/// Returns the Lease to write so that `identity` holds it from now on, or still does. `known` is the Lease as it is, whose other
/// fields stay, the resource version too: the write succeeds only over that one.
pub(super) fn held(known: Option<&Lease>, name: &str, identity: &str, duration: Duration) -> Lease {
    let mut lease = known.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: None,
    });
    let now = MicroTime(Timestamp::now());
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    if spec.holder_identity.as_deref() != Some(identity) {
        spec.holder_identity = Some(identity.to_owned());
        spec.acquire_time = Some(now.clone());
        // The first holder is no transition.
        spec.lease_transitions =
            Some(spec.lease_transitions.map_or(0, |transitions| transitions.saturating_add(1)));
    }
    spec.lease_duration_seconds = Some(whole_seconds(duration));
    spec.renew_time = Some(now);
    lease
}

/// Returns the Lease to write so that nobody holds it, as client-go's `release` does.
pub(super) fn given_back(known: &Lease) -> Lease {
    let mut lease = known.clone();
    let now = MicroTime(Timestamp::now());
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    // The apiserver refuses an empty text.
    spec.holder_identity = None;
    spec.lease_duration_seconds = Some(GIVEN_BACK_SECONDS);
    spec.acquire_time = Some(now.clone());
    spec.renew_time = Some(now);
    lease
}

/// Writes the note into a Lease. A note that is too long is left out: the next judge begins with what it knows.
pub(super) fn set_note(lease: &mut Lease, note: String) {
    let annotations = lease.metadata.annotations.get_or_insert_default();
    if note.is_empty() || note.len() > MAX_NOTE {
        annotations.remove(SPENT_ANNOTATION);
    } else {
        annotations.insert(SPENT_ANNOTATION.to_owned(), note);
    }
}

/// Returns the duration in the unit of the field, rounded up: another must not take a Lease over too early.
fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1_000)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_acquired_renewed_and_given_back() {
        let first = held(None, "warden", "a_1", Duration::from_millis(4_500));
        let record = record_of(&first);
        assert_eq!((record.holder.as_str(), record.duration), ("a_1", Duration::from_secs(5)));
        let spec = first.spec.clone().unwrap();
        assert_eq!((spec.lease_transitions, &spec.acquire_time), (Some(0), &spec.renew_time));

        let mut foreign = first.clone();
        foreign.metadata.resource_version = Some("7".to_owned());
        foreign.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
        std::thread::sleep(Duration::from_millis(1));
        let renewed = held(Some(&foreign), "warden", "a_1", Duration::from_secs(5));
        assert_ne!(record_of(&renewed), record, "a renewal is a change");
        assert_eq!(renewed.metadata, foreign.metadata, "the version guards the write, and labels stay");
        assert_eq!(renewed.spec.as_ref().unwrap().acquire_time, spec.acquire_time);

        let other = held(Some(&renewed), "warden", "b_1", Duration::from_secs(5));
        assert_eq!(other.spec.as_ref().unwrap().lease_transitions, Some(1));
        let free = given_back(&other);
        assert_eq!((record_of(&free).holder.as_str(), record_of(&free).is_given_back), ("", true));
        let mut emptied = other.clone();
        emptied.spec.as_mut().unwrap().holder_identity = None;
        assert!(!record_of(&emptied).is_given_back, "by somebody else");
        assert_eq!(free.spec.as_ref().unwrap().lease_transitions, Some(1));
        let next = held(Some(&free), "warden", "a_2", Duration::from_secs(5));
        assert_eq!(next.spec.as_ref().unwrap().lease_transitions, Some(2));
    }

    #[test]
    fn a_lease_of_somebody_else_is_read_as_far_as_it_goes() {
        let empty = LeaseRecord {
            holder: String::new(),
            is_given_back: false,
            duration: Duration::ZERO,
            stamp: "None None None".into(),
        };
        assert_eq!(record_of(&Lease::default()), empty);
        let spec = LeaseSpec { lease_duration_seconds: Some(-5), ..LeaseSpec::default() };
        assert_eq!(record_of(&Lease { spec: Some(spec), ..Lease::default() }), empty);
    }

    #[test]
    fn notes_are_bounded() {
        let mut lease = Lease::default();
        assert_eq!(note_of(&lease), "");
        set_note(&mut lease, "a".repeat(MAX_NOTE));
        assert_eq!(note_of(&lease).len(), MAX_NOTE);
        set_note(&mut lease, "a".repeat(MAX_NOTE + 1));
        assert_eq!(note_of(&lease), "");
        let long = [(SPENT_ANNOTATION.to_owned(), "a".repeat(MAX_NOTE + 1))];
        lease.metadata.annotations = Some(long.into());
        assert_eq!(note_of(&lease), "", "somebody else wrote it");
        set_note(&mut lease, String::new());
        assert!(lease.metadata.annotations.unwrap().is_empty());
    }
}
