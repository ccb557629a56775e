//! A limit on the log lines of one kind: requests, handshakes and objects of others must not fill the log.
//!
//! It stands before the formatter, so that it holds for every line of this program and of its libraries, and a new line needs
//! nothing. The kind of a line is its place in the code with the values of `KIND_FIELDS`, so that a flood of one kind hides no
//! other. The number of lines that were left out is logged every `REPORT_INTERVAL`, and counted in a metric.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Sanitized;
use crate::reservation::token_bucket::TokenBucket;
use crate::telemetry::metrics::{LogSource, Metrics};

/// The lines of one kind that are written at once. A line has about 350 bytes, so that is 70 KB; one with four texts of the most
/// bytes, 1.4 KB.
const BURST: u32 = 200;
/// The lines of one kind a second after a burst. The DaemonSet controller creates 20 pods a second (kube-controller-manager's
/// default), each with a line of `/mutate`; a flood writes 7 KB a second, 28 KB with
/// the longest texts, and fills the kubelet's 50 MiB for a container in half an hour at the earliest.
const PER_SECOND: u32 = 20;
/// The time between two reports of the lines that were left out.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The fields whose values are part of the kind. Each has a closed set of values; none has text from outside. `log.target` is the
/// module of a library's line.
const KIND_FIELDS: [&str; 6] = ["webhook", "verdict", "resource", "port", "place", "log.target"];
/// The kinds that are told apart. There are about a hundred; beyond, those of one place share a limit.
const MAX_KINDS: usize = 1_024;

/// The limit of all lines of this process; cheap to clone.
#[derive(Debug, Clone)]
pub struct LogLimit {
    kinds: Arc<Mutex<LineKinds>>,
    metrics: Arc<Metrics>,
}

/// The layer of the subscriber that asks the limit about each line.
#[derive(Debug)]
pub(super) struct LogLimitLayer(LogLimit);

impl LogLimit {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { kinds: Arc::default(), metrics }
    }

    pub(super) fn layer(&self) -> LogLimitLayer {
        LogLimitLayer(self.clone())
    }

    /// Logs every `REPORT_INTERVAL` how many lines were left out, until the task is dropped.
    pub async fn report_regularly(self) {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            self.report();
        }
    }

    /// Logs how many lines of each kind were left out since the last report.
    pub(super) fn report(&self) {
        // The lock is not held while the lines are logged.
        let left_out = self.kinds.lock().take_left_out();
        for (kind, lines, example) in left_out {
            tracing::warn!(
                lines,
                like = %Sanitized(&example),
                of = kind.words,
                at = kind.place,
                "left out log lines: more than {PER_SECOND} a second were of one kind"
            );
        }
    }

    /// Returns true if the line is to be written. Lines below INFO are not limited: an operator has asked for every one of them.
    fn allows(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        // The reports are limited by their number of kinds.
        if *metadata.level() > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        let mut words = KindWords(String::new());
        event.record(&mut words);
        let kind = LineKind { place: metadata.name(), words: words.0 };
        let is_allowed = self.kinds.lock().admit(kind, now, || message(event));
        if !is_allowed {
            self.metrics.record_left_out_line(LogSource::of_target(metadata.target()));
        }
        is_allowed
    }
}

impl<S: Subscriber> Layer<S> for LogLimitLayer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.allows(event, Instant::now())
    }
}

/// A kind of lines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LineKind {
    /// The place in the code, such as `event src/server/admission.rs:104`.
    place: &'static str,
    /// The values of [`KIND_FIELDS`].
    words: String,
}

/// The limit of one kind, and the lines that were left out since the last report.
#[derive(Debug)]
struct LineLimit {
    bucket: TokenBucket,
    left_out: u64,
    /// The message of the first of them.
    example: String,
}

/// The limits of all kinds.
#[derive(Debug, Default)]
struct LineKinds(HashMap<LineKind, LineLimit>);

impl LineKinds {
    /// Counts a line of `kind`. Returns false if it is to be left out; `message` is called for the first of those.
    fn admit(&mut self, mut kind: LineKind, now: Instant, message: impl FnOnce() -> String) -> bool {
        if self.0.len() >= MAX_KINDS && !self.0.contains_key(&kind) {
            kind.words.clear();
        }
        let limit = self.0.entry(kind).or_insert_with(|| LineLimit {
            bucket: TokenBucket::new(BURST, PER_SECOND),
            left_out: 0,
            example: String::new(),
        });
        if limit.bucket.take(1, now) {
            return true;
        }
        if limit.left_out == 0 {
            limit.example = message();
        }
        limit.left_out += 1;
        false
    }

    /// Returns the kinds of which lines were left out, with their number and an example, and begins to count anew.
    fn take_left_out(&mut self) -> Vec<(LineKind, u64, String)> {
        let with_some = self.0.iter_mut().filter(|(_, limit)| limit.left_out > 0);
        let take = |(kind, limit): (&LineKind, &mut LineLimit)| {
            (kind.clone(), std::mem::take(&mut limit.left_out), std::mem::take(&mut limit.example))
        };
        with_some.map(take).collect()
    }
}

/// Collects the values of [`KIND_FIELDS`].
struct KindWords(String);

impl Visit for KindWords {
    fn record_str(&mut self, field: &Field, value: &str) {
        if KIND_FIELDS.contains(&field.name()) {
            if !self.0.is_empty() {
                self.0.push(' ');
            }
            self.0.push_str(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Returns the message of a line, without its fields.
fn message(event: &Event<'_>) -> String {
    struct Message(String);

    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }

    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Keeps the lines that pass.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().push(message(event));
        }
    }

    #[test]
    fn a_flood_of_one_kind_is_cut_reported_and_hides_no_other() {
        let (metrics, lines) = (Arc::new(Metrics::default()), Lines::default());
        let limit = LogLimit::new(metrics.clone());
        let subscriber = tracing_subscriber::registry().with(lines.clone()).with(limit.layer());
        tracing::subscriber::with_default(subscriber, || {
            let review =
                |webhook: &str, verdict: &str| tracing::info!(webhook, verdict, name = %"n", "reviewed");
            for _ in 0..10_000 {
                review("validate", "denied");
            }
            review("mutate", "patched");
            tracing::debug!("asked for");
            for _ in 0..1_000 {
                tracing::debug!("asked for");
            }
            limit.report();
            limit.report();
        });
        let lines = lines.0.lock();
        let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        // A slow machine gives some more.
        let reviewed = count("reviewed");
        assert!((BURST as usize..BURST as usize + 1_000).contains(&reviewed), "{reviewed}");
        assert_eq!(count("asked for"), 1_001);
        assert_eq!(count("left out log lines"), 1, "{:?}", lines.last());
        let text = String::from_utf8(metrics.text()).unwrap();
        let left_out = 10_001 - reviewed;
        let expected =
            format!(r#"daemonset_warden_log_lines_left_out_total{{source="telemetry"}} {left_out}"#);
        assert!(text.contains(&expected), "{expected} in {text}");
    }

    #[test]
    fn each_kind_has_a_limit_of_its_own_and_the_kinds_are_bounded() {
        let now = Instant::now();
        let mut kinds = LineKinds::default();
        let mut admitted = |kind: &str, at: Instant| {
            let kind = LineKind { place: "p", words: kind.to_owned() };
            (0..1_000).filter(|_| kinds.admit(kind.clone(), at, || "text".to_owned())).count()
        };
        assert_eq!(admitted("a", now), BURST as usize);
        assert_eq!(admitted("b", now), BURST as usize);
        assert_eq!(admitted("a", now + Duration::from_secs(1)), PER_SECOND as usize);
        for other in 0..2 * MAX_KINDS {
            admitted(&format!("{other}"), now);
        }
        assert_eq!(kinds.0.len(), MAX_KINDS + 1);
        let left_out = kinds.take_left_out();
        assert!(left_out.iter().any(|(kind, lines, example)| {
            (kind.words.as_str(), *lines, example.as_str()) == ("a", 2_000 - 220, "text")
        }));
        assert!(kinds.take_left_out().is_empty());
    }

    #[test]
    fn the_source_is_the_folder() {
        for (target, source) in [
            ("daemonset_warden::server::admission", LogSource::Server),
            ("daemonset_warden::tls", LogSource::Tls),
            ("daemonset_warden", LogSource::Other),
            ("rustls::check", LogSource::Other),
        ] {
            assert_eq!(LogSource::of_target(target), source, "{target}");
        }
    }
}
