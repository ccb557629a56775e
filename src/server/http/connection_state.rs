//! The state of a connection, and its deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::limits::Limits;
use super::places::ConnectionPlace;
use crate::telemetry::metrics::CloseReason;

/// The version of HTTP that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Http1,
    Http2,
}

/// The state of a connection. The stream, the requests and [`super::connection::serve`] share it.
pub(crate) struct ConnectionState {
    pub(crate) version: HttpVersion,
    state: Mutex<ConnectionProgress>,
    place: ConnectionPlace,
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
    /// The reason for which [`ConnectionState::end`] was called.
    end: Option<CloseReason>,
}

/// A request that counts as in work until this is dropped.
pub(crate) struct RequestInFlight(Arc<ConnectionState>);

impl RequestInFlight {
    /// Counts a request that begins.
    pub(crate) fn of(activity: Arc<ConnectionState>) -> Self {
        activity.request_begins();
        Self(activity)
    }

    /// Returns the connection of the request.
    pub(crate) fn connection(&self) -> &Arc<ConnectionState> {
        &self.0
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}

impl ConnectionState {
    /// Returns the state of a new connection, which is idle.
    pub(crate) fn new(version: HttpVersion, place: ConnectionPlace) -> Self {
        let state = ConnectionProgress {
            since: Instant::now(),
            in_head: false,
            requests: 0,
            stalled: None,
            refused: false,
            leaving: false,
            end: None,
        };
        Self { version, state: Mutex::new(state), place }
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
        if state.requests == 1 {
            self.place.busy();
        }
    }

    fn request_ends(&self) {
        let mut state = self.state.lock();
        state.requests -= 1;
        state.since = Instant::now();
        if state.requests == 0 {
            // A response that the client does not take is no request in flight: the connection waits, and may give way.
            self.place.idle();
        }
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

    /// Ends the connection: another request needs the memory of a response that the client does not take, or the client's
    /// certificate is no longer good.
    pub(crate) fn end(&self, reason: CloseReason) {
        let mut state = self.state.lock();
        // A response that is not taken holds memory until the connection has ended.
        if state.end != Some(CloseReason::WriteTime) {
            state.end = Some(reason);
        }
        drop(state);
        self.place.signal().notify_one();
    }

    /// Waits for [`Self::end`], which may have been called before, or until the connection has to give way to a newer one.
    pub(crate) async fn ended(&self) -> CloseReason {
        loop {
            self.place.signal().notified().await;
            if self.gives_way() {
                return CloseReason::GaveWay;
            }
            if let Some(reason) = self.state.lock().end.take() {
                return reason;
            }
        }
    }

    /// Returns true if the connection has to give way, and no request has come meanwhile.
    pub(crate) fn gives_way(&self) -> bool {
        self.place.is_leaving()
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
