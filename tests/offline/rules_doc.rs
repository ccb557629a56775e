//! docs/rules.md must be the page made from the table of rules.

use std::path::Path;

use daemonset_warden::admission::validation::rules;

#[test]
fn rules_md_is_the_table_of_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md");
    let expected = rules::markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/rules.md is out of date: run UPDATE_GOLDEN=1 cargo test --test offline rules_doc"
    );
}
