//! The threads that serve connections: one runtime of one thread each, and each connection stays on one of them.
//!
//! On a runtime of several threads every packet wakes a second thread, in case it could help: with one connection that sends
//! 230 KB, a scheduler's, that is 27 calls of the kernel and as many switches for each request, and nothing to help with.
//! Who has long work to do does it elsewhere ([`LONG`]).

use std::future::Future;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::{io, panic};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};

/// The length of a body whose handling would keep the other connections of its thread waiting: half a millisecond's work.
pub(crate) const LONG: usize = 512 * 1024;

/// The threads, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Dropped, it ends the thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread for each core that this process may use.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let workers = (0..count).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers, next: AtomicUsize::new(0) })
    }

    /// Runs `connection` on the thread whose turn it is.
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
        // How many tasks run before it is looked who else has sent something. Among them may be 16 that decrypt large bodies.
        let runtime = Builder::new_current_thread().enable_all().event_interval(16).build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(format!("connections-{number}")).spawn(move || {
            // An error means that the sender was dropped, which is the sign to end.
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

/// Does `work` on `length` bytes here, or on a thread for long work.
pub(crate) async fn work<T: Send + 'static>(length: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if length < LONG {
        return work();
    }
    // What is told of the request there belongs into its span here.
    let span = opentelemetry::Context::current();
    let work = move || {
        let _entered = span.attach();
        work()
    };
    match spawn_blocking(work).await {
        Ok(result) => result,
        // Caught there, to be caught here as if it had happened here.
        Err(error) => panic::resume_unwind(error.into_panic()),
    }
}
