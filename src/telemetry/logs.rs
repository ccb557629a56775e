//! Logging: to stderr, as text on a terminal and as JSON elsewhere, without ever making a request wait.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::telemetry::metrics::Metrics;

/// Lines that wait for a slow reader of stderr; more are dropped and counted. At 300 bytes a line, 1.2 MB.
const QUEUE: usize = 4_096;
/// How long the end of the process waits for lines to be written.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for programs.
    Json,
}

/// Writes what is still queued when dropped.
#[derive(Debug)]
pub struct Flush(SyncSender<Message>);

/// Starts logging. Lines are written by a thread of their own: a terminal that is paused, or a collector that is stuck,
/// must not stop an apiserver. Without a `format`, text on a terminal and JSON elsewhere.
///
/// # Errors
/// When RUST_LOG cannot be understood.
pub fn start(verbosity: u8, format: Option<LogFormat>, metrics: Arc<Metrics>) -> Result<Flush, LogError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives)?,
        Err(_) => EnvFilter::try_new(directives(verbosity))?,
    };
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let (sender, receiver) = sync_channel(QUEUE);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_all(&receiver))
        .map_err(LogError::Thread)?;

    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Queue { sender: sender.clone(), metrics });
    // Fails only when a subscriber is set already, as when tests start twice in one process; then that one stays.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, message = %Sanitized(message), "a bug: please report it");
    }));
    Ok(Flush(sender))
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// RUST_LOG is malformed.
    #[error("failed to understand RUST_LOG")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The system has no thread left.
    #[error("failed to start the log's thread")]
    Thread(#[source] io::Error),
}

/// An error with everything that led to it, in one line.
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

/// Text from outside, as it may stand in a log: short, and without control characters, which could forge lines or drive
/// the reader's terminal.
#[derive(Debug, Clone, Copy)]
pub struct Sanitized<'a>(pub &'a str);

/// No name in Kubernetes is longer.
const SHOWN: usize = 253;

impl std::fmt::Display for Sanitized<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = self.0.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if plain && self.0.len() <= SHOWN {
            return f.write_str(self.0);
        }
        for character in self.0.chars().take(SHOWN) {
            if character.is_control() {
                write!(f, "{}", character.escape_default())
            } else {
                write!(f, "{character}")
            }?;
        }
        if self.0.chars().nth(SHOWN).is_some() { f.write_str("...") } else { Ok(()) }
    }
}

/// `-v` as a filter. Libraries stay at warnings, or their own doings would hide ours.
fn directives(verbosity: u8) -> &'static str {
    match verbosity {
        // What kube says of errors, whoever gets them says in one line, once.
        0..=1 => "warn,kube_client=off,kube_runtime=off",
        2..=3 => "warn,kube_client=off,kube_runtime=off,daemonset_warden=info",
        4..=5 => "info,daemonset_warden=debug",
        _ => "debug,daemonset_warden=trace",
    }
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

fn write_all(receiver: &Receiver<Message>) {
    for message in receiver {
        match message {
            // Nobody is left who could be told that stderr is gone.
            Message::Line(line) => drop(io::stderr().write_all(&line)),
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        if self.0.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIME);
        }
    }
}

struct Queue {
    sender: SyncSender<Message>,
    metrics: Arc<Metrics>,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Queue {
    /// Is called once a line: the subscriber formats a line before it writes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Line(line.to_vec())) {
            self.metrics.log_lines_dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_tamed() {
        assert_eq!(Sanitized("kube-system/agent").to_string(), "kube-system/agent");
        assert_eq!(Sanitized("a\n\u{1b}[2J").to_string(), r"a\n\u{1b}[2J");
        assert_eq!(Sanitized(&"ä".repeat(300)).to_string(), format!("{}...", "ä".repeat(253)));
    }
}
