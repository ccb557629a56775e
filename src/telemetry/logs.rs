//! Logging to stderr, as text on a terminal and as JSON elsewhere. A request never waits for the log.

pub mod line_limit;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use std::{panic, thread};

use clap::ValueEnum;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::line_limit::LogLimit;
use crate::telemetry::metrics::Metrics;

/// The number of lines that wait for a slow reader of stderr; further ones are dropped and counted. At 300 bytes a line, 1.2 MB.
const QUEUE: usize = 4_096;
/// The time for which the end of the process waits for queued lines to be written.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for programs.
    Json,
}

/// The guard of the log. Dropping it writes the queued lines, for a second at most.
#[derive(Debug)]
pub struct LogGuard {
    writer: Option<WorkerGuard>,
    limit: LogLimit,
}

/// Starts logging. Call it once, before anything is logged. Without a `format`, logs text on a terminal and JSON elsewhere.
/// RUST_LOG, if set, replaces `verbosity`. A thread of its own writes the lines: a terminal that is paused, or a log collector that
/// is stuck, must not stop an apiserver.
///
/// # Errors
/// Fails when RUST_LOG is malformed.
pub fn start(verbosity: u8, format: Option<LogFormat>, metrics: &Arc<Metrics>) -> Result<LogGuard, LogError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives)?,
        Err(_) => EnvFilter::try_new(directives(verbosity))?,
    };
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .thread_name("log")
        .finish(io::stderr());
    metrics.count_dropped_log_lines(writer.error_counter());

    let limit = LogLimit::new(metrics.clone());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // Fails only when a subscriber is set already, as when tests start twice in one process; then that one stays.
    let _ = match format {
        LogFormat::Text => {
            let ansi = terminal && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(ansi).finish().with(limit.layer()).try_init()
        }
        LogFormat::Json => {
            let json = builder.json().flatten_event(true).with_current_span(false);
            json.finish().with(limit.layer()).try_init()
        }
    };
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, message = %Sanitized(message), "a bug: please report it");
    }));
    Ok(LogGuard { writer: Some(guard), limit })
}

impl LogGuard {
    /// Returns the limit of the lines.
    pub fn limit(&self) -> LogLimit {
        self.limit.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.limit.report();
        let guard = self.writer.take();
        let (done, flushed) = sync_channel::<()>(1);
        // The appender reports a full queue on stdout, which may be as stuck as stderr: then the process ends without it.
        let flush = move || drop((guard, done));
        if thread::Builder::new().name("log-flush".to_owned()).spawn(flush).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_TIME);
        }
    }
}

/// The error for logging that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// RUST_LOG is malformed.
    #[error("failed to understand RUST_LOG")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
}

/// Returns an error and its sources in one line, separated by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Text from outside, made fit for a log: at most `MAX_SANITIZED` bytes of a line, and control characters escaped, which could
/// forge lines or drive a reader's terminal.
#[derive(Debug, Clone, Copy)]
pub struct Sanitized<'a>(pub &'a str);

/// The most bytes of a sanitized text in a line of JSON, where escapes count in full: as many as the longest name in Kubernetes
/// has.
const MAX_SANITIZED: usize = 253;

impl std::fmt::Display for Sanitized<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = self.0.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
        if plain && self.0.len() <= MAX_SANITIZED {
            return f.write_str(self.0);
        }
        let mut left = MAX_SANITIZED;
        for character in self.0.chars() {
            match left.checked_sub(length_in_json(character)) {
                Some(rest) => left = rest,
                None => return f.write_str("..."),
            }
            if character.is_control() {
                write!(f, "{}", character.escape_default())
            } else {
                write!(f, "{character}")
            }?;
        }
        Ok(())
    }
}

/// Returns the bytes of a character of a sanitized text in a line of JSON, which escapes quotes and the backslashes of our escapes.
fn length_in_json(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        _ if character.is_control() => 1 + character.escape_default().len(),
        _ => character.len_utf8(),
    }
}

/// Returns the filter for this number of `-v`. Libraries stay at warnings, or their lines would hide the warden's.
fn directives(verbosity: u8) -> &'static str {
    match verbosity {
        // Our callers of kube log its errors in one line, once. The warnings of rustls are about clients, and have text of theirs: of a
        // server name that is none, up to 64 KB.
        0..=1 => "warn,kube_client=off,kube_runtime=off,rustls=error",
        2..=3 => "warn,kube_client=off,kube_runtime=off,rustls=error,daemonset_warden=info",
        4..=5 => "info,daemonset_warden=debug",
        _ => "debug,daemonset_warden=trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of stderr that has stopped reading.
    struct StuckWriter(std::sync::mpsc::Receiver<()>);

    impl io::Write for StuckWriter {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_that_are_counted_and_no_time() {
        let metrics = Metrics::default();
        let dropped = || {
            let text = String::from_utf8(metrics.text()).unwrap();
            let line = text
                .lines()
                .find(|line| line.starts_with("daemonset_warden_log_lines_dropped_total "))
                .unwrap();
            line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
        };
        let (_stuck, reader) = std::sync::mpsc::channel();
        let (mut writer, _guard) =
            NonBlockingBuilder::default().buffered_lines_limit(2).lossy(true).finish(StuckWriter(reader));
        metrics.count_dropped_log_lines(writer.error_counter());
        assert_eq!(dropped(), 0);
        for _ in 0..10 {
            io::Write::write_all(&mut writer, b"a line\n").unwrap();
        }
        // Two wait, and the writer may hold another.
        assert!((7..=8).contains(&dropped()), "{}", dropped());
        assert_eq!(dropped(), dropped(), "a second scrape counts nothing again");
    }

    #[test]
    fn text_from_outside_is_tamed() {
        assert_eq!(Sanitized("kube-system/agent").to_string(), "kube-system/agent");
        assert_eq!(Sanitized("a\n\u{1b}[2J").to_string(), r"a\n\u{1b}[2J");
        assert_eq!(Sanitized(&"ä".repeat(300)).to_string(), format!("{}...", "ä".repeat(126)));
        for text in ["a", "\"", "\\", "\u{7f}", "\n", "\u{9f}", "ä", "\u{1f600}"] {
            let line = serde_json::to_string(&Sanitized(&text.repeat(10_000)).to_string()).unwrap();
            assert!((240..=2 + 253 + 3).contains(&line.len()), "{text:?}: {line}");
            assert_eq!(
                Sanitized(text).to_string().len() + usize::from("\"\\".contains(text)),
                match text {
                    "\n" => 2,
                    other if other.chars().all(char::is_control) => 6,
                    "\"" | "\\" => 2,
                    other => other.len(),
                }
            );
        }
        assert_eq!(Sanitized(&"a".repeat(253)).to_string(), "a".repeat(253));
        assert_eq!(Sanitized(&"\"".repeat(126)).to_string(), "\"".repeat(126));
    }
}
