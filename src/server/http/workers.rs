//! The threads that serve connections: one for each core, with a runtime of its own. A connection stays on one thread.
//!
//! On a runtime of several threads every packet wakes a second thread, which finds nothing to do: with a scheduler's connection
//! that sends 230 KB, that is 27 calls of the kernel and as many thread switches a request. Long work is done on other threads
//! (`LONG`).

use std::future::Future;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::{io, panic};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};

use crate::telemetry::otlp::in_current_span;

/// The length of a body, in bytes, from which on handling it would keep the other connections of its thread waiting: it takes half
/// a millisecond.
pub(crate) const LONG: usize = 512 * 1024;

/// The threads that serve connections. Dropping this ends the threads and waits for them.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Dropping it ends the thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread for each core that this process may use.
    ///
    /// # Errors
    /// Fails if the system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let workers = (0..count).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers, next: AtomicUsize::new(0) })
    }

    /// Runs `connection` on one of the threads, each in turn, as a task of `connections`.
    pub(crate) fn spawn(
        &self,
        connections: &mut JoinSet<()>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len();
        connections.spawn_on(connection, &self.workers[turn].runtime);
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        // The number of tasks that run before the runtime looks for new packets. All 16 may be decrypting large bodies.
        let runtime = Builder::new_current_thread().enable_all().event_interval(16).build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(format!("connections-{number}")).spawn(move || {
            // An error means that the sender was dropped: the thread has to end.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.end.take());
        // It fails only if the thread has panicked, and tokio catches the panics of tasks.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Runs `work` on a body of `length` bytes: on this thread, or from [`LONG`] on one for long work. Panics if `work` does.
pub(crate) async fn work<T: Send + 'static>(length: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if length < LONG {
        return work();
    }
    // The work describes itself in the span of the request, which is current on this thread only.
    match spawn_blocking(in_current_span(work)).await {
        Ok(result) => result,
        // The guard catches it as if it had happened on this thread.
        Err(error) => panic::resume_unwind(error.into_panic()),
    }
}
