//! The images that the repository names: each by its digest, because a tag can be moved.

use std::fs;

use super::sources::root;

/// Returns the images that a Dockerfile names, without `scratch` and its own stages.
fn images_of_dockerfile(text: &str) -> Vec<String> {
    let (mut images, mut stages) = (Vec::new(), vec!["scratch".to_owned()]);
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FROM", rest @ ..] => {
                let rest: Vec<_> = rest.iter().filter(|word| !word.starts_with("--")).copied().collect();
                images.push(rest[0].to_owned());
                stages.extend(rest.get(2).map(|name| (*name).to_owned()));
            }
            ["COPY", rest @ ..] => {
                images.extend(rest.iter().filter_map(|word| word.strip_prefix("--from=")).map(str::to_owned));
            }
            _ => images.extend(line.strip_prefix("# syntax=").map(str::to_owned)),
        }
    }
    images.retain(|image| !stages.contains(image));
    images
}

/// Returns true for `name:tag@sha256:...`.
fn is_pinned(image: &str) -> bool {
    let Some((name, digest)) = image.split_once("@sha256:") else { return false };
    let is_hex = digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    name.contains(':') && digest.len() == 64 && is_hex
}

#[test]
fn every_image_is_named_by_tag_and_digest() {
    let mut images = images_of_dockerfile(&fs::read_to_string(root().join("Dockerfile")).unwrap());
    let values = fs::read_to_string(root().join("charts/daemonset-warden/values.yaml")).unwrap();
    images.extend(values.lines().filter_map(|line| line.trim().strip_prefix("image: ")).map(str::to_owned));
    assert!(images.len() >= 2, "{images:?}");
    let moved: Vec<_> = images.iter().filter(|image| !is_pinned(image)).collect();
    assert!(moved.is_empty(), "`just pin-images` writes the digests of these: {moved:?}");
}

#[test]
fn the_test_sees_each_image() {
    let text = "# syntax=docker/dockerfile:1\nFROM --platform=x a:1 AS build\nFROM scratch\nCOPY --from=build /a /a\nCOPY --from=b:2 /b /b";
    assert_eq!(images_of_dockerfile(text), ["docker/dockerfile:1", "a:1", "b:2"]);
    let digest = "0123456789abcdef".repeat(4);
    assert!(is_pinned(&format!("a:1@sha256:{digest}")));
    for image in ["a:1".to_owned(), format!("a@sha256:{digest}"), format!("a:1@sha256:{}", &digest[1..])] {
        assert!(!is_pinned(&image), "{image}");
    }
}
