//! Waiting for what a control plane does in its own time.

use std::time::{Duration, Instant};

/// Enough for anything that should happen at once, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks until the answer is `Ok`. Panics after a minute, with the last `Err`: how it is instead.
pub(crate) async fn eventually<T, F>(what: &str, probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    eventually_within(PATIENCE, what, probe).await
}

/// As `eventually`, for what takes longer, or must not.
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

/// Asks again and again for as long as said. Panics at the first `Err`.
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
