//! A bound on how many things are done a second, with room for a burst.

use std::time::Instant;

/// A token bucket: full at first, refilled as time passes.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    burst: u32,
    per_second: u32,
    tokens: f64,
    filled_at: Option<Instant>,
}

impl TokenBucket {
    /// Returns a full bucket of `burst` tokens that gains `per_second` tokens a second.
    pub fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second, tokens: f64::from(burst), filled_at: None }
    }

    /// Takes `cost` tokens, which must be no more than a burst. Returns false, and takes nothing, if there are fewer. A clock that
    /// goes back fills nothing.
    pub fn take(&mut self, cost: u32, now: Instant) -> bool {
        let passed = self.filled_at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.tokens = (self.tokens + passed * f64::from(self.per_second)).min(f64::from(self.burst));
        self.filled_at = Some(self.filled_at.map_or(now, |at| at.max(now)));
        let cost = f64::from(cost);
        let is_there = self.tokens >= cost;
        if is_there {
            self.tokens -= cost;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_a_rate() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut bucket = TokenBucket::new(10, 4);
        let mut taken = |at: Instant| (0..50).filter(|_| bucket.take(1, at)).count();
        assert_eq!(taken(start), 10);
        assert_eq!(taken(start + Duration::from_millis(250)), 1);
        assert_eq!(taken(start), 0, "time went back");
        assert_eq!(taken(start + Duration::from_secs(1)), 3);
        assert_eq!(taken(start + Duration::from_secs(3600)), 10, "no more than a burst is saved up");
        assert!(
            !bucket.take(4, start + Duration::from_secs(3600))
                && bucket.take(4, start + Duration::from_secs(3601))
        );
    }
}
