//! Finds the end of plain text in a JSON string. A list of node names and a Node consist of little else.

use wide::u8x16;

/// Bytes of one step: the most that every x86-64 and arm64 processor compares at once.
const BLOCK: usize = 16;
/// The last of the control characters, which JSON requires to be escaped.
const LAST_CONTROL: u8 = 0x1f;

/// Returns the number of bytes before the first quote, backslash or control character; all bytes if there is none. Hot: every
/// string of a request.
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

/// Returns a bit for each special byte, the lowest for the first byte.
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
