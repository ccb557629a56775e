//! The times of the cache's lock, from the metrics.

/// Returns in words for how long the lock was held, from the text of `/metrics`: the smallest buckets that have all, and 99.9%.
pub(crate) fn describe_lock(metrics: &str) -> String {
    let cpu = "daemonset_warden_cache_lock_cpu_seconds";
    let (count, longest) = quantile(metrics, cpu, 1.0);
    let (_, held) = quantile(metrics, "daemonset_warden_cache_lock_held_seconds", 0.999);
    format!("taken {count} times, for {} ms of CPU at most, 99.9% for {} ms", longest * 1e3, held * 1e3)
}

/// Returns the count of a histogram, and the upper bound of the bucket below which `share` of it is.
fn quantile(metrics: &str, name: &str, share: f64) -> (f64, f64) {
    let value_of = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    let count = format!("{name}_count ");
    let count = metrics.lines().find(|line| line.starts_with(&count)).and_then(value_of).unwrap_or(f64::NAN);
    let prefix = format!("{name}_bucket{{le=\"");
    let buckets = metrics.lines().filter_map(|line| {
        let (bound, _) = line.strip_prefix(&prefix)?.split_once('"')?;
        Some((bound.parse().unwrap_or(f64::INFINITY), value_of(line)?))
    });
    let bound = buckets.filter(|(_, below)| *below >= share * count).map(|(bound, _)| bound);
    (count, bound.fold(f64::INFINITY, f64::min))
}
