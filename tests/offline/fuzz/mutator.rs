//! Makes bad inputs from good ones: it moves, doubles, removes and replaces tokens, and sometimes bytes.
//!
//! This needs neither coverage data nor nightly Rust: inputs that are mostly right reach the code behind the parser, which
//! random bytes do not.

/// Tokens that have been a problem for parsers of other projects.
const WORDS: [&str; 62] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1",
    "1.5",
    "1e999",
    "1E-400",
    "01",
    "+1",
    ".5",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "{}",
    "[]",
    "\"\"",
    "\"a\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\u{e9}\"",
    "\"9223372036854775807Ki\"",
    "\"-1\"",
    "\"0.0000000001n\"",
    "\"1e1000\"",
    "\"100%\"",
    "\"99999999999999999999%\"",
    "\"Exists\"",
    "\"In\"",
    "\"NotIn\"",
    "\"Gt\"",
    "\"NoSchedule\"",
    "\"NoExecute\"",
    "\"metadata.name\"",
    "\"n1\"",
    "\"Always\"",
    "\"OnDelete\"",
    "\"RollingUpdate\"",
    "\"nodeName\":",
    "\"NODENAMES\":",
    "\"tolerations\":",
    "\"affinity\":",
    "\"matchFields\":",
    "\"spec\":",
    "\"metadata\":",
    "\"labels\":",
    "\"Pod\":",
    "\"deletionTimestamp\":",
    "{\"a\":",
    "[[",
    "}}",
    "]]",
    ",",
    ":",
    "\"",
    "\\",
    "\u{feff}",
    "*a",
];

/// Random numbers from a seed (splitmix64): the same with every version of every dependency.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, which must not be 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Returns a mutation of one of `seeds`.
pub(super) fn mutate(random: &mut Random, seeds: &[&[u8]]) -> Vec<u8> {
    let mut input = random.one(seeds).to_vec();
    // Mostly few changes: with each further change the parser is more likely to stop early.
    let changes = [0, 1, 1, 1, 2, 2, 3, 5, 20][random.below(9)];
    for _ in 0..changes {
        change(random, &mut input, seeds);
    }
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, seeds: &[&[u8]]) {
    match random.below(16) {
        0..=4 => {
            let (start, end) = token(random, input);
            let word = random.one(&WORDS);
            input.splice(start..end, word.bytes());
        }
        5 => {
            let (start, end) = token(random, input);
            input.drain(start..end);
        }
        // Replaces a value by another.
        6..=8 => {
            let other = random.one(seeds);
            let (start, end) = value(random, other);
            let taken = other[start..end].to_vec();
            let (start, end) = value(random, input);
            input.splice(start..end, taken);
        }
        9 => {
            let (start, end) = value(random, input);
            input.splice(start..end, b"null".iter().copied());
        }
        // Repeats a part, once or more often.
        10 => {
            let (start, end) = value(random, input);
            let taken = input[start..end].to_vec();
            let times = [1, 1, 1, 2, 50][random.below(5)];
            for _ in 0..times {
                let comma = if random.below(2) == 0 { &b","[..] } else { b"" };
                let again: Vec<u8> = [comma, &taken].concat();
                input.splice(end..end, again);
            }
        }
        11 => {
            let (start, _) = token(random, input);
            let word = random.one(&WORDS);
            input.splice(start..start, word.bytes());
        }
        12 => {
            let depth = [2, 20, 200, 2_000][random.below(4)];
            let (start, end) = value(random, input);
            let (open, close) = if random.below(2) == 0 { ("[", "]") } else { ("{\"a\":", "}") };
            let nested: Vec<u8> =
                [open.repeat(depth).as_bytes(), &input[start..end], close.repeat(depth).as_bytes()].concat();
            input.splice(start..end, nested);
        }
        13 => {
            let end = random.below(input.len() + 1);
            input.truncate(end);
        }
        _ => {
            if let Some(at) = (!input.is_empty()).then(|| random.below(input.len())) {
                input[at] = random.next().to_le_bytes()[0];
            }
        }
    }
}

/// Returns the range of a random token: a string, a word, a number or a mark.
fn token(random: &mut Random, input: &[u8]) -> (usize, usize) {
    if input.is_empty() {
        return (0, 0);
    }
    let start = random.below(input.len());
    let is_mark = |byte: &u8| b"{}[],:\"\n ".contains(byte);
    let start = input[..start].iter().rposition(is_mark).unwrap_or(0);
    let length = 1 + input[start + 1..].iter().position(is_mark).unwrap_or(0);
    match input[start] {
        b'"' => (start, (start + 1 + length).min(input.len())),
        _ if length > 1 => (start + 1, start + length),
        _ => (start, start + 1),
    }
}

/// Returns the range of a random object, array or token.
fn value(random: &mut Random, input: &[u8]) -> (usize, usize) {
    if input.is_empty() || random.below(2) == 0 {
        return token(random, input);
    }
    let from = random.below(input.len());
    let Some(start) = input[..from].iter().rposition(|byte| b"{[".contains(byte)) else {
        return token(random, input);
    };
    let mut depth = 0_i64;
    for (at, byte) in input.iter().enumerate().skip(start) {
        depth += match byte {
            b'{' | b'[' => 1,
            b'}' | b']' => -1,
            _ => 0,
        };
        if depth == 0 {
            return (start, at + 1);
        }
    }
    (start, input.len())
}
