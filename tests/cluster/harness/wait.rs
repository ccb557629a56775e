//! Functions that wait for the state of a cluster.

use std::time::{Duration, Instant};

/// Long enough for anything that should happen at once, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

/// Calls `probe` until it returns `Ok`, and returns its value. Panics after a minute, with the last `Err`.
pub(crate) async fn eventually<T, F>(what: &str, probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    eventually_within(PATIENCE, what, probe).await
}

/// Does the same as [`eventually`], within `at_most`.
pub(crate) async fn eventually_within<T, F>(at_most: Duration, what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(instead) if started.elapsed() > at_most => {
                panic!("not within {at_most:?}: {what}. Instead: {instead}")
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// Calls `probe` again and again for the time `during`. Panics at the first `Err`.
pub(crate) async fn consistently<F>(during: Duration, what: &str, mut probe: impl FnMut() -> F)
where
    F: Future<Output = Result<(), String>>,
{
    let started = Instant::now();
    while started.elapsed() < during {
        if let Err(instead) = probe().await {
            panic!("{what}: no longer so after {:?}. Instead: {instead}", started.elapsed());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
