//! The environment that the image gives the program: with another one it would need other memory.

/// Returns the names and values of the Dockerfile's ENV instructions.
pub(crate) fn image_environment() -> Vec<(&'static str, String)> {
    let dockerfile = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile"));
    let words =
        dockerfile.lines().filter_map(|line| line.strip_prefix("ENV ")).flat_map(str::split_whitespace);
    let pair = |word: &'static str| word.split_once('=').map(|(name, value)| (name, value.to_owned()));
    words.map(|word| pair(word).expect("ENV NAME=VALUE ..")).collect()
}
