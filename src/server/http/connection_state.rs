//! The state of a connection, and its deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::limits::Limits;
use crate::telemetry::metrics::CloseReason;

/// The version of HTTP that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Http1,
    Http2,
}

/// The state of a connection. The stream, the requests and [`super::connection::serve`] share it.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    pub(crate) version: HttpVersion,
    state: Mutex<ConnectionProgress>,
    end: Notify,
}

#[derive(Debug)]
struct ConnectionProgress {
    /// The time since which the connection is idle, or reads a head.
    since: Instant,
    /// True while the first bytes of a request's head have come, and its last has not.
    in_head: bool,
    /// The number of requests in work.
    requests: usize,
    /// The time since which the client takes no byte; `None` while it does.
    stalled: Option<Instant>,
    /// True if a response was an error, so that there may be a body that the server does not read.
    refused: bool,
    /// True if the connection is about to end, so that its idle time is short.
    leaving: bool,
}

/// A request that counts as in work until this is dropped.
pub(crate) struct RequestInFlight(Arc<ConnectionState>);

impl RequestInFlight {
    /// Counts a request that begins.
    pub(crate) fn of(activity: Arc<ConnectionState>) -> Self {
        activity.request_begins();
        Self(activity)
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}

impl ConnectionState {
    /// Returns the state of a new connection, which is idle.
    pub(crate) fn new(version: HttpVersion) -> Self {
        let state = ConnectionProgress {
            since: Instant::now(),
            in_head: false,
            requests: 0,
            stalled: None,
            refused: false,
            leaving: false,
        };
        Self { version, state: Mutex::new(state), end: Notify::new() }
    }

    /// Records that bytes came. With HTTP/1.1, the first ones outside of a request begin a head.
    pub(crate) fn record_read(&self) {
        if self.version == HttpVersion::Http2 {
            return;
        }
        let mut state = self.state.lock();
        if state.requests == 0 && !state.in_head {
            state.in_head = true;
            state.since = Instant::now();
        }
    }

    /// Returns true if the connection speaks HTTP/1.1 and no request is in work.
    pub(crate) fn is_idle_http1(&self) -> bool {
        self.version == HttpVersion::Http1 && self.state.lock().requests == 0
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

    /// Returns true if a response of the connection was an error.
    pub(crate) fn has_error_sent(&self) -> bool {
        self.state.lock().refused
    }

    /// Records that a response is an error.
    pub(crate) fn mark_error_sent(&self) {
        self.state.lock().refused = true;
    }

    /// Records that the connection is about to end, so that its idle time is short.
    pub(crate) fn begin_close(&self) {
        let mut state = self.state.lock();
        state.leaving = true;
        state.since = Instant::now();
    }

    /// Ends the connection at once: another request needs the memory of a response that the client does not take.
    pub(crate) fn end(&self) {
        self.end.notify_one();
    }

    /// Waits for [`Self::end`], which may have been called already.
    pub(crate) async fn ended(&self) {
        self.end.notified().await;
    }

    /// Records a write; `stalled` is true if the client did not take a byte of it.
    pub(crate) fn record_write(&self, stalled: bool) {
        let mut state = self.state.lock();
        if !stalled {
            state.stalled = None;
        } else if state.stalled.is_none() {
            state.stalled = Some(Instant::now());
        }
    }

    /// Returns the time at which the connection is cut off if nothing more happens, and the reason.
    fn deadline(&self, limits: &Limits) -> (Instant, CloseReason) {
        let state = self.state.lock();
        let reading = match (state.requests, state.in_head, state.leaving) {
            (0, true, _) => (state.since + limits.header_time, CloseReason::HeaderTime),
            (0, false, false) => (state.since + limits.idle_time, CloseReason::Idle),
            (0, false, true) => (state.since + limits.write_time, CloseReason::Idle),
            // A request in work has the guard's timer: its response comes after handler_time at the latest.
            _ => (Instant::now() + limits.idle_time, CloseReason::Idle),
        };
        let writing = state.stalled.map(|since| (since + limits.write_time, CloseReason::WriteTime));
        writing.filter(|writing| writing.0 < reading.0).unwrap_or(reading)
    }

    /// Returns `Ready` with the reason once the deadline has passed, and moves `timer` on by [`Limits::write_time`]. `timer` is
    /// reset earlier only for a deadline before it, so that a request which is answered at once costs no timer.
    pub(crate) fn poll_late(
        &self,
        mut timer: Pin<&mut Sleep>,
        limits: &Limits,
        context: &mut Context<'_>,
    ) -> Poll<CloseReason> {
        loop {
            let (deadline, reason) = self.deadline(limits);
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(context));
            if deadline <= Instant::now() {
                // An idle connection that ends gracefully is polled again: it has a while for that.
                timer.as_mut().reset(Instant::now() + limits.write_time);
                return Poll::Ready(reason);
            }
            timer.as_mut().reset(deadline);
        }
    }
}
