//! The words of the code: a type name stands for one type, doc comments begin with the noun or the verb.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};

use super::sources::{is_cfg_test, is_test_file, root, rust_files};

/// First words of a doc comment that ask a question instead of naming the thing.
const QUESTION_WORDS: &[&str] = &["What", "Whether", "How", "Why", "Which", "Where", "Who", "When"];

/// The most doc comments, in percent, that may begin with one of [`QUESTION_WORDS`].
const MAX_QUESTIONS_PERCENT: f64 = 5.0;

#[test]
fn a_type_name_stands_once_in_the_crate() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // The stand-ins of a build without a feature have the names of what they stand for.
    for (path, source) in sources().into_iter().filter(|(path, _)| !path.ends_with("_disabled.rs")) {
        for name in type_names(&source, is_test_file(Path::new(&path))) {
            places.entry(name).or_default().push(path.clone());
        }
    }
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "these stand more than once: {places:#?}");
}

#[test]
fn doc_comments_begin_with_the_noun_or_the_verb() {
    let (mut count, mut questions) = (0_u32, Vec::new());
    for (path, source) in sources() {
        for (line, first_word) in doc_comments(&source) {
            count += 1;
            if QUESTION_WORDS.contains(&first_word) {
                questions.push(format!("{path}:{line} {first_word}"));
            }
        }
    }
    let percent = f64::from(u32::try_from(questions.len()).unwrap()) * 100.0 / f64::from(count);
    println!("{} of {count} doc comments begin with a question word: {percent:.1}%", questions.len());
    assert!(
        percent <= MAX_QUESTIONS_PERCENT,
        "{} of {count} doc comments begin with a question word, {percent:.1}%: {questions:#?}",
        questions.len()
    );
}

#[test]
fn the_tests_see_what_they_look_for() {
    let source = "
        //! What it is.
        //! Why so.
        /// A thing.
        pub struct A;
        // Whether this counts.
        pub trait B { type Output; }
        impl Iterator for A { type Item = u8; fn next(&mut self) -> Option<u8> { enum C {} loop {} } }
        #[cfg(test)]
        mod tests { struct D; pub(crate) struct E; mod inner { type F = u8; } }
        /// `Where` it is.
        type G = u8;";
    assert_eq!(type_names(source, false), ["A", "B", "C", "E", "G"]);
    assert_eq!(type_names(source, true), ["A", "B", "E"]);
    assert_eq!(doc_comments(source), [(2, "What"), (4, "A"), (11, "Where")]);
}

/// The names of the structs, enums, unions, traits and aliases of a file in its order, those within functions too.
///
/// Private types of tests are left out, and so are associated types.
fn type_names(source: &str, is_test: bool) -> Vec<String> {
    let mut names = TypeNames { is_test, found: Vec::new() };
    names.visit_file(&syn::parse_file(source).unwrap());
    names.found
}

struct TypeNames {
    is_test: bool,
    found: Vec<String>,
}

impl TypeNames {
    fn add(&mut self, name: &syn::Ident, visibility: &syn::Visibility) {
        if !self.is_test || !matches!(visibility, syn::Visibility::Inherited) {
            self.found.push(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for TypeNames {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Struct(item) => self.add(&item.ident, &item.vis),
            syn::Item::Enum(item) => self.add(&item.ident, &item.vis),
            syn::Item::Union(item) => self.add(&item.ident, &item.vis),
            syn::Item::Trait(item) => self.add(&item.ident, &item.vis),
            syn::Item::Type(item) => self.add(&item.ident, &item.vis),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let outer = self.is_test;
        self.is_test |= module.attrs.iter().any(is_cfg_test);
        visit::visit_item_mod(self, module);
        self.is_test = outer;
    }
}

/// The line, from 1, and the first word of each doc comment: a run of `///` or `//!` lines.
fn doc_comments(source: &str) -> Vec<(usize, &str)> {
    let mut comments = Vec::new();
    let mut last = None;
    for (index, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let marker = ["///", "//!"].into_iter().find(|marker| line.starts_with(marker));
        if let Some(marker) = marker.filter(|_| marker != last) {
            let text = line[marker.len()..].trim_start_matches(|char: char| !char.is_alphabetic());
            let end = text.find(|char: char| !char.is_alphabetic()).unwrap_or(text.len());
            comments.push((index + 1, &text[..end]));
        }
        last = marker;
    }
    comments
}

/// The files of src by their paths below it.
fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    let name = |file: &Path| file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    rust_files(&src).iter().map(|file| (name(file), fs::read_to_string(file).unwrap())).collect()
}
