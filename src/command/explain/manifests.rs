//! Objects from files, folders and standard input: YAML and JSON, one document or many, and lists of objects.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::meta::{Metadata, NamedObject, TypeMeta};
use crate::explain::inventory::Inventory;

/// The size limit of a file, in bytes. A cluster of 5,000 nodes and 150,000 pods is somewhat smaller in JSON.
const MAX_BYTES: u64 = 2 << 30;
/// The size limit of YAML, in bytes: while YAML is parsed, it takes many times its size in memory. Larger files can be JSON.
const MAX_YAML_BYTES: usize = 64 << 20;
/// The deepest nesting of folders, and of lists.
const MAX_DEPTH: usize = 32;

/// Reads all `sources`, which are files, folders, or `-` for standard input, and adds their objects to `inventory`. Objects of
/// kinds that rows do not depend on are ignored.
///
/// # Errors
/// Fails if a source cannot be read or parsed, or a folder has no manifest in it. The error names the source.
pub(super) fn read(sources: &[PathBuf], inventory: &mut Inventory) -> anyhow::Result<()> {
    for source in sources {
        if source.as_os_str() == "-" {
            let text = text_of(std::io::stdin().lock()).context("failed to read standard input")?;
            parse(&text, inventory).context("standard input")?;
            continue;
        }
        let mut files = Vec::new();
        find_files(source, MAX_DEPTH, true, &mut files)?;
        if files.is_empty() {
            bail!("{}: no .yaml, .yml or .json file in it", source.display());
        }
        for file in files {
            let open = || text_of(fs::File::open(&file)?);
            let text = open().with_context(|| format!("failed to read {}", file.display()))?;
            parse(&text, inventory).with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}

/// Adds to `found` the file at `path`, or all files with a manifest's extension in the folder at `path`, ordered by name.
/// `is_named` is true for a path that the user gave: it is read whatever its extension, and must exist.
fn find_files(path: &Path, depth: usize, is_named: bool, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let failed = || format!("failed to read {}", path.display());
    let metadata = match fs::metadata(path) {
        // A dangling link in a folder is not a manifest.
        Err(_) if !is_named => return Ok(()),
        metadata => metadata.with_context(failed)?,
    };
    if metadata.is_dir() {
        if depth == 0 {
            bail!("{}: more than {MAX_DEPTH} folders deep", path.display());
        }
        let entries = fs::read_dir(path).with_context(failed)?;
        let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.with_context(failed)?;
        paths.sort();
        for path in paths {
            find_files(&path, depth - 1, false, found)?;
        }
    } else if is_named || metadata.is_file() && has_manifest_extension(path) {
        found.push(path.to_owned());
    }
    Ok(())
}

fn has_manifest_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

fn text_of(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        let limit = format!("more than {} GiB; use --kubeconfig instead", MAX_BYTES >> 30);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, limit));
    }
    Ok(text)
}

/// Adds every object in a text of YAML or JSON to `inventory`.
///
/// # Errors
/// Fails if the text is neither YAML nor JSON, or an object does not have the shape of its kind. Objects before it have been added.
pub fn parse(text: &str, inventory: &mut Inventory) -> anyhow::Result<()> {
    let text = text.trim_start_matches('\u{feff}');
    if !text.trim_start().starts_with(['{', '[']) {
        return parse_yaml(text, inventory);
    }
    let mut documents = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        match document {
            Ok(document) => documents.push(document),
            // YAML may begin like JSON.
            Err(error) if text.len() > MAX_YAML_BYTES => return Err(error.into()),
            Err(error) => return parse_yaml(text, inventory).map_err(|_| error.into()),
        }
    }
    documents
        .into_iter()
        .try_for_each(|document| parse_document(document, &TypeMeta::default(), 0, inventory))
}

fn parse_yaml(text: &str, inventory: &mut Inventory) -> anyhow::Result<()> {
    if text.len() > MAX_YAML_BYTES {
        bail!("more than {} MiB of YAML; use JSON instead", MAX_YAML_BYTES >> 20);
    }
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, yaml_options())
        .map_err(|error| anyhow!("{}", error.to_string().trim()))?;
    for document in documents.iter().filter(|document| !document.is_null()) {
        let raw = serde_json::value::to_raw_value(document)?;
        parse_document(&raw, &TypeMeta::default(), 0, inventory)?;
    }
    Ok(())
}

/// Returns the parser's limits, which are above those that the size sets: anchors must not expand to more than any manifest needs.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 200_000,
            max_depth: 100,
            max_nodes: 20_000_000,
            max_events: 50_000_000,
            max_total_scalar_bytes: MAX_YAML_BYTES,
            max_aliases: 10_000,
            max_anchors: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 1_000_000,
            max_replay_stack_depth: 16,
        },
        with_snippet: false,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List<'t> {
    #[serde(borrow)]
    items: Option<Vec<&'t RawValue>>,
}

/// Adds an object, or the items of a list. `default_kind` is the kind of an item that names none, as in a `NodeList`; `depth` is
/// the number of lists around the object.
fn parse_document(
    raw: &RawValue,
    default_kind: &TypeMeta,
    depth: usize,
    inventory: &mut Inventory,
) -> anyhow::Result<()> {
    let text = raw.get();
    if depth > MAX_DEPTH {
        bail!("more than {MAX_DEPTH} lists in one another");
    }
    if text == "null" {
        return Ok(());
    }
    if !text.starts_with('{') {
        bail!("expected Kubernetes objects, found {}", text.chars().take(40).collect::<String>());
    }
    let own: TypeMeta = serde_json::from_str(text)?;
    let kind = if own.kind.is_empty() { default_kind } else { &own };
    if let Some(item_kind) = kind.kind.strip_suffix("List") {
        let list: List<'_> = serde_json::from_str(text)?;
        let default_kind = TypeMeta { api_version: kind.api_version.clone(), kind: item_kind.to_owned() };
        let mut items = list.items.unwrap_or_default().into_iter();
        return items.try_for_each(|item| parse_document(item, &default_kind, depth + 1, inventory));
    }
    if kind.kind.is_empty() {
        bail!("an object has no kind");
    }
    inventory.apply(kind, text).map_err(|error| {
        let named: NamedObject = serde_json::from_str(text).unwrap_or_default();
        let Metadata { namespace, name, .. } = named.metadata;
        let slash = if namespace.is_empty() { "" } else { "/" };
        anyhow!("{} {namespace}{slash}{name}: {error}", kind.kind)
    })?;
    Ok(())
}
