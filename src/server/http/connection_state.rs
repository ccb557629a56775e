//! What a connection is doing, since when, and when that is too long.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::limits::Limits;
use crate::telemetry::metrics::Cut;

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// What a connection is doing, and since when.
#[derive(Debug)]
pub(crate) struct Activity {
    pub(crate) version: Version,
    state: Mutex<State>,
    end: Notify,
}

#[derive(Debug)]
struct State {
    /// Since when it is idle or reads a head.
    since: Instant,
    /// Whether bytes of a head have come.
    in_head: bool,
    /// Requests in work.
    requests: usize,
    /// Since when the client takes no byte.
    stalled: Option<Instant>,
    /// Whether an answer was an error, so that there may be a body that nobody reads.
    refused: bool,
    /// Whether it is about to end, and idleness is no longer waited for.
    leaving: bool,
}

/// A request in work.
pub(crate) struct InWork(Arc<Activity>);

impl InWork {
    /// It begins.
    pub(crate) fn of(activity: Arc<Activity>) -> Self {
        activity.request_begins();
        Self(activity)
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}

impl Activity {
    /// Of a connection that has just been made: it is idle.
    pub(crate) fn new(version: Version) -> Self {
        let state = State {
            since: Instant::now(),
            in_head: false,
            requests: 0,
            stalled: None,
            refused: false,
            leaving: false,
        };
        Self { version, state: Mutex::new(state), end: Notify::new() }
    }

    /// Bytes came: outside a request, of a head.
    pub(crate) fn bytes_came(&self) {
        if self.version == Version::Http2 {
            return;
        }
        let mut state = self.state.lock();
        if state.requests == 0 && !state.in_head {
            state.in_head = true;
            state.since = Instant::now();
        }
    }

    /// Whether the client speaks HTTP/1.1, and nothing that it asked is in work.
    pub(crate) fn is_idle_http1(&self) -> bool {
        self.version == Version::Http1 && self.state.lock().requests == 0
    }

    fn request_begins(&self) {
        let mut state = self.state.lock();
        state.requests += 1;
        state.in_head = false;
    }

    fn request_ends(&self) {
        let mut state = self.state.lock();
        state.requests -= 1;
        state.since = Instant::now();
    }

    /// Whether an answer was an error.
    pub(crate) fn has_refused(&self) -> bool {
        self.state.lock().refused
    }

    /// An answer is an error: there may be a body that nobody reads.
    pub(crate) fn refused(&self) {
        self.state.lock().refused = true;
    }

    /// It is about to end.
    pub(crate) fn leave(&self) {
        let mut state = self.state.lock();
        state.leaving = true;
        state.since = Instant::now();
    }

    /// Ends the connection at once: another request needs the memory of a response that the client does not take.
    pub(crate) fn end(&self) {
        self.end.notify_one();
    }

    /// Waits for [`Self::end`], which may have been called before.
    pub(crate) async fn ended(&self) {
        self.end.notified().await;
    }

    /// Bytes were written, or could not be.
    pub(crate) fn writes(&self, stalled: bool) {
        let mut state = self.state.lock();
        if !stalled {
            state.stalled = None;
        } else if state.stalled.is_none() {
            state.stalled = Some(Instant::now());
        }
    }

    /// When it is late, if nothing more happens, and for what. A request in work has the guard's timers.
    fn deadline(&self, limits: &Limits) -> (Instant, Cut) {
        let state = self.state.lock();
        let reading = match (state.requests, state.in_head, state.leaving) {
            (0, true, _) => (state.since + limits.header_time, Cut::HeaderTime),
            (0, false, false) => (state.since + limits.idle_time, Cut::Idle),
            (0, false, true) => (state.since + limits.write_time, Cut::Idle),
            // The guard answers after handler_time at the latest; then requests is 0 or the write stalls.
            _ => (Instant::now() + limits.idle_time, Cut::Idle),
        };
        let writing = state.stalled.map(|since| (since + limits.write_time, Cut::WriteTime));
        writing.filter(|writing| writing.0 < reading.0).unwrap_or(reading)
    }

    /// Ready when the deadline has passed. The timer is only touched when the deadline comes nearer than it is set, so
    /// that a request which is answered at once costs none.
    pub(crate) fn poll_late(
        &self,
        mut timer: Pin<&mut Sleep>,
        limits: &Limits,
        context: &mut Context<'_>,
    ) -> Poll<Cut> {
        loop {
            let (deadline, reason) = self.deadline(limits);
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(context));
            if deadline <= Instant::now() {
                // For who goes on nevertheless: the next look is later.
                timer.as_mut().reset(Instant::now() + limits.write_time);
                return Poll::Ready(reason);
            }
            timer.as_mut().reset(deadline);
        }
    }
}
