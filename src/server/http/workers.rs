//! The threads that serve connections: one for each core, with a runtime of its own. A connection stays on one thread.
//!
//! On a runtime of several threads every packet wakes a second thread, which finds nothing to do: with a scheduler's connection
//! that sends 230 KB, that is 27 calls of the kernel and as many thread switches a request. Long work is done on other threads
//! (`LONG`).

use std::future::Future;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::{io, panic};

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinSet, spawn_blocking};

use crate::telemetry::otlp::in_current_span;

/// From this length on, in bytes, the handling of a call by the scheduler would keep the other connections of its thread waiting: it
/// takes half a millisecond.
pub(crate) const LONG: usize = 512 * 1024;
/// As [`LONG`], for a review: each of its bytes may take ten times as long, because it is decoded. A shorter one is long, too, if
/// it is checked against many nodes.
pub(crate) const LONG_REVIEW: usize = 64 * 1024;

/// The short reviews that may wait for a thread for long work or use one: 4 MiB of bodies at most. Further ones are answered
/// without a look at the cluster.
const SHORT_REVIEWS: usize = 64;

/// The threads that serve connections. Dropping this ends the threads and waits for them.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    next: AtomicUsize,
    lost: Arc<Notify>,
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
        let lost = Arc::new(Notify::new());
        let workers = (0..count).map(|number| Worker::start(number, &lost)).collect::<io::Result<_>>()?;
        Ok(Self { workers, next: AtomicUsize::new(0), lost })
    }

    /// Waits until a thread has panicked. Tokio catches the panics of connections, so its runtime has failed, and nothing would serve
    /// its share of the connections.
    pub(crate) async fn thread_lost(&self) {
        self.lost.notified().await;
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
    fn start(number: usize, lost: &Arc<Notify>) -> io::Result<Self> {
        // The number of tasks that run before the runtime looks for new packets. All 16 may be decrypting large bodies.
        let runtime = Builder::new_current_thread().enable_all().event_interval(16).build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let lost = NotifyOnPanic(lost.clone());
        let thread = thread::Builder::new().name(format!("connections-{number}")).spawn(move || {
            let _lost = lost;
            // An error means that the sender was dropped: the thread has to end.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, end: Some(end), thread: Some(thread) })
    }
}

/// Notifies if its thread panics.
struct NotifyOnPanic(Arc<Notify>);

impl Drop for NotifyOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.notify_one();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.end.take());
        // It fails only if the thread has panicked, and tokio catches the panics of tasks.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The threads for long work on reviews.
///
/// As many run at once as there are cores: more would only share the cores, and take them from the threads of connections.
#[derive(Debug)]
pub(crate) struct LongReviews {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// The place of a short review among those that wait or run.
pub(crate) struct ShortReviewPlace(
    #[expect(dead_code, reason = "held until the review ends")] OwnedSemaphorePermit,
);

impl LongReviews {
    pub(crate) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self { running: Arc::new(Semaphore::new(cores)), waiting: Arc::new(Semaphore::new(SHORT_REVIEWS)) }
    }

    /// Returns a place for a review whose body is not counted as memory, or `None` if there are too many.
    pub(crate) fn place_for_short(&self) -> Option<ShortReviewPlace> {
        self.waiting.clone().try_acquire_owned().ok().map(ShortReviewPlace)
    }

    /// Runs `work` as [`work_long`] does, in turn.
    pub(crate) async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // It is never closed, so there is no error.
        let permit = self.running.clone().acquire_owned().await;
        work_long(move || {
            let _permit = permit;
            work()
        })
        .await
    }
}

/// Runs `work` on a thread for long work.
pub(crate) async fn work_long<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // The work describes itself in the span of the request, which is current on this thread only.
    match spawn_blocking(in_current_span(work)).await {
        Ok(result) => result,
        // The guard catches it as if it had happened on this thread.
        Err(error) => panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn as_many_reviews_run_at_once_as_there_are_cores_and_few_short_ones_wait() {
        let reviews = Arc::new(LongReviews::new());
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = (0..40).map(|_| {
            let (reviews, running, most) = (reviews.clone(), running.clone(), most.clone());
            tokio::spawn(async move {
                let work = move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(2));
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                reviews.work(work).await;
            })
        });
        for review in all.collect::<Vec<_>>() {
            review.await.unwrap();
        }
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        assert!(most.load(Ordering::SeqCst) <= cores, "{most:?}");
        let places: Vec<_> = std::iter::from_fn(|| reviews.place_for_short()).collect();
        assert_eq!(places.len(), SHORT_REVIEWS);
        drop(places);
        assert!(reviews.place_for_short().is_some());
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_noticed() {
        let workers = Workers::start().unwrap();
        let short = Duration::from_millis(20);
        assert!(timeout(short, workers.thread_lost()).await.is_err());
        let lost = NotifyOnPanic(workers.lost.clone());
        let panics = move || {
            let _lost = lost;
            panic!("a test");
        };
        assert!(thread::spawn(panics).join().is_err());
        assert!(timeout(short, workers.thread_lost()).await.is_ok());
    }
}
