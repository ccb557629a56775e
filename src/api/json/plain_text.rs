//! Where the plain text of a JSON string ends: nearly all that is in a list of node names or in a Node is that.

use wide::u8x16;

/// How many bytes are looked at at once: what any x86-64 and any arm64 can.
const BLOCK: usize = 16;
/// The last of the control characters, which JSON has escaped.
const LAST_CONTROL: u8 = 0x1f;

/// How many of the first bytes of a string's content are no quote, backslash or control character.
#[inline]
pub(crate) fn plain_length(bytes: &[u8]) -> usize {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for (index, block) in blocks.iter().enumerate() {
        let special = special(*block);
        if special != 0 {
            return index * BLOCK + special.trailing_zeros() as usize;
        }
    }
    let plain = rest.iter().take_while(|byte| !is_special(**byte)).count();
    blocks.len() * BLOCK + plain
}

/// A bit for each special byte, the lowest for the first.
#[inline]
fn special(block: [u8; BLOCK]) -> u32 {
    let bytes = u8x16::new(block);
    let quote = bytes.simd_eq(u8x16::splat(b'"'));
    let backslash = bytes.simd_eq(u8x16::splat(b'\\'));
    let control = bytes.min(u8x16::splat(LAST_CONTROL)).simd_eq(bytes);
    (quote | backslash | control).to_bitmask()
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | ..=LAST_CONTROL)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_special_byte_ends_it(
            plain in proptest::collection::vec(any::<u8>().prop_filter("plain", |byte| !is_special(*byte)), 0..70),
            special in prop_oneof![Just(b'"'), Just(b'\\'), 0..=LAST_CONTROL],
            after in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assert_eq!(plain_length(&plain), plain.len());
            let text = [&plain[..], &[special], &after].concat();
            prop_assert_eq!(plain_length(&text), plain.len());
        }
    }
}
