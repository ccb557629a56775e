//! Finds the modules of this crate that a file names, in `use` lines and in paths anywhere in its code.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;

use crate::sources::is_cfg_test;

/// Returns the paths below the crate's root that `source` names, without its tests; `module` is its own path.
///
/// `use a::{b, c}` is two paths. A path may end with the name of an item or of a module.
pub(super) fn named_modules(source: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut file = syn::parse_file(source).unwrap();
    file.items.retain(|item| !is_test(item));
    let mut named = Vec::new();
    let mut at = module.to_vec();
    read(file.into_token_stream(), &mut at, &mut named);
    named
}

fn is_test(item: &syn::Item) -> bool {
    let syn::Item::Mod(module) = item else { return false };
    module.attrs.iter().any(is_cfg_test)
}

fn read(tokens: TokenStream, module: &mut Vec<String>, named: &mut Vec<Vec<String>>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let is_start = at == 0 || !is_colon(&tokens[at - 1]);
        match &tokens[at] {
            TokenTree::Ident(word)
                if is_start && (*word == "crate" || *word == "super" || *word == "self") =>
            {
                at = path(&tokens, at, module.clone(), module, named);
            }
            // `mod inner { .. }` adds a level for `super`.
            TokenTree::Ident(word) if *word == "mod" => {
                if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                {
                    module.push(name.to_string());
                    read(body.stream(), module, named);
                    module.pop();
                    at += 2;
                }
                at += 1;
            }
            TokenTree::Group(group) => {
                read(group.stream(), module, named);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Reads the path that begins at `at`, relative to `base`. Returns the position after it.
fn path(
    tokens: &[TokenTree],
    mut at: usize,
    mut base: Vec<String>,
    module: &[String],
    named: &mut Vec<Vec<String>>,
) -> usize {
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) if *word == "crate" => base.clear(),
            Some(TokenTree::Ident(word)) if *word == "super" => {
                base.pop();
            }
            Some(TokenTree::Ident(word)) if *word == "self" => {}
            Some(TokenTree::Ident(word)) => base.push(word.to_string()),
            Some(TokenTree::Group(group)) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for part in
                    inner.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ','))
                {
                    if !part.is_empty() {
                        path(part, 0, base.clone(), module, named);
                    }
                }
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        // Only `::` continues the path.
        if !(tokens.get(at).is_some_and(is_colon) && tokens.get(at + 1).is_some_and(is_colon)) {
            break;
        }
        at += 2;
    }
    if base != module {
        named.push(base);
    }
    at
}

fn is_colon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':')
}
