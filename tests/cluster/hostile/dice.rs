//! Random numbers that a seed repeats.

use std::time::{SystemTime, UNIX_EPOCH};

/// A source of numbers.
pub(super) struct Dice(u64);

impl Dice {
    /// Takes the seed of the environment variable `SEED`, or a new one. Returns the seed too.
    pub(super) fn seeded() -> (Self, u64) {
        let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
            time ^ u64::from(std::process::id()) << 40
        });
        (Self(seed | 1), seed)
    }

    /// Returns another source, for a task of its own.
    pub(super) fn split(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
    }

    pub(super) fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    pub(super) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = self.below(last as u64 + 1);
            all.swap(last, usize::try_from(other).expect("an index"));
        }
    }
}
