//! The bytes of a body as they come: small ones on the heap, large ones in a mapping of their own.
//!
//! A mapping costs what has been written to it, however much was announced; it grows without being copied, and goes back to
//! the system whole. On the heap, large bodies that come and go in any order leave holes, which are memory too. What goes
//! beyond the first megabytes comes in huge pages: a call with 9 MB of Nodes spent a fifth of its time on small ones.

use std::ops::Deref;

use memmap2::{Advice, MmapMut};

/// Above this a body has a mapping: far above what is usual, and far below what the limits allow.
const LARGE: usize = 1024 * 1024;
/// What a mapping is charged at once.
const STEP: usize = 256 * 1024;
/// The same beyond as many bytes: a huge page of x86-64, and of arm64 with small pages.
const HUGE: usize = 2 * 1024 * 1024;

/// Bytes of which more may come.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Bytes,
    /// How many there may be before it has to grow.
    room: usize,
}

#[derive(Debug)]
enum Bytes {
    Heap(Vec<u8>),
    Mapped { map: MmapMut, length: usize },
}

/// What to grow to, and what that costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    room: usize,
    mapped: bool,
    /// While it grows: to grow may be to copy, and then both are there.
    pub(super) at_first: usize,
    /// From then on.
    pub(super) then: usize,
}

impl Buffer {
    /// Empty, with room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        Self { bytes: Bytes::Heap(Vec::with_capacity(room)), room }
    }

    /// How it would have to grow to hold `needed` bytes, if it has to, of `expected` or else `most` in the end.
    pub(super) fn growth(&self, needed: usize, expected: Option<usize>, most: usize) -> Option<Growth> {
        if needed <= self.room {
            return None;
        }
        if needed > LARGE || expected.is_some_and(|expected| expected > LARGE) {
            let room = if needed > HUGE {
                needed.next_multiple_of(HUGE)
            } else {
                // A body does not become longer than was announced: HTTP sees to that.
                needed.next_multiple_of(STEP).min(expected.unwrap_or(most))
            };
            let before = if matches!(self.bytes, Bytes::Heap(_)) { self.room } else { 0 };
            return Some(Growth { room, mapped: true, at_first: before + room, then: room });
        }
        // What has come is doubled, not what was announced: an announcement costs nothing. An eighth of it is earnest.
        let announced = expected.filter(|expected| self.room >= expected / 8);
        let doubled = (self.room * 2).min(LARGE).min(expected.unwrap_or(most));
        let room = announced.unwrap_or(doubled).max(needed);
        Some(Growth { room, mapped: false, at_first: self.room + room, then: room })
    }

    /// Grows; `most` is what there may be in the end.
    ///
    /// # Errors
    /// When the system gives no mapping.
    pub(super) fn grow(&mut self, growth: Growth, most: usize) -> std::io::Result<()> {
        match &mut self.bytes {
            Bytes::Heap(bytes) if growth.mapped => {
                // In whole huge pages, so that the kernel puts it where they fit.
                let mut map =
                    MmapMut::map_anon(if most > HUGE { most.next_multiple_of(HUGE) } else { most })?;
                if map.len() > HUGE {
                    // Where there are none, small pages do.
                    let _ = map.advise_range(Advice::HugePage, HUGE, map.len() - HUGE);
                }
                map[..bytes.len()].copy_from_slice(bytes);
                self.bytes = Bytes::Mapped { map, length: bytes.len() };
            }
            Bytes::Heap(bytes) => bytes.reserve_exact(growth.room - bytes.len()),
            Bytes::Mapped { .. } => {}
        }
        self.room = growth.room;
        Ok(())
    }

    /// Takes in more, for which there is room.
    pub(super) fn push(&mut self, data: &[u8]) {
        match &mut self.bytes {
            Bytes::Heap(bytes) => bytes.extend_from_slice(data),
            Bytes::Mapped { map, length } => {
                map[*length..*length + data.len()].copy_from_slice(data);
                *length += data.len();
            }
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Heap(bytes) => bytes,
            Bytes::Mapped { map, length } => &map[..*length],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes in `size` bytes in chunks of 1,000; the most that it cost, and what it cost in the end.
    fn taken(size: usize, expected: Option<usize>, most: usize) -> (usize, usize) {
        let sent: Vec<u8> = (0..size).map(|at| at.to_le_bytes()[0]).collect();
        let mut buffer = Buffer::new(100.min(expected.unwrap_or(100)));
        let (mut peak, mut cost) = (100, 100);
        for chunk in sent.chunks(1_000) {
            if let Some(growth) = buffer.growth(buffer.len() + chunk.len(), expected, most) {
                peak = peak.max(growth.at_first);
                cost = growth.then;
                buffer.grow(growth, expected.unwrap_or(most)).unwrap();
            }
            buffer.push(chunk);
        }
        assert!(*buffer == *sent);
        (peak, cost)
    }

    #[test]
    fn what_comes_is_kept_and_costs_little_more() {
        assert_eq!(taken(100, Some(100), 5_000), (100, 100));
        assert_eq!(taken(3_000, Some(3_000), 5_000), (1_000 + 3_000, 3_000));
        assert_eq!(taken(3_000, None, 5_000).1, 4_000);
        assert_eq!(taken(5_000, None, 5_000).1, 5_000);
        assert_eq!(taken(LARGE + 1, Some(LARGE + 1), 4 * LARGE), (LARGE + 1, LARGE + 1));
        assert_eq!(taken(LARGE + 1, None, 4 * LARGE).1, LARGE + STEP);
        assert_eq!(taken(HUGE, Some(3 * HUGE), 3 * HUGE), (HUGE, HUGE));
        assert_eq!(taken(HUGE + 1, Some(HUGE + 1), 3 * HUGE), (2 * HUGE, 2 * HUGE));
        assert_eq!(taken(2 * HUGE + 1, None, 3 * HUGE), (3 * HUGE, 3 * HUGE));
    }
}
