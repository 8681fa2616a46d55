//! The pages that say what is in the tree have all of it.

use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).expect(path)
}

#[test]
fn every_dependency_has_a_row_that_says_what_it_is_for() {
    let page = read("docs/dependencies.md");
    for package in ["xtask", "crates/pg-connect", "crates/private-server", "app"] {
        let manifest: toml::Table = read(&format!("{package}/Cargo.toml"))
            .parse()
            .expect("TOML");
        let name = manifest["package"]["name"].as_str().expect("a name");
        let (_, section) = page.split_once(&format!("\n## {name}\n")).expect(name);
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let rows: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        let dependencies: Vec<&String> = manifest["dependencies"]
            .as_table()
            .expect("a table")
            .keys()
            .collect();
        for dependency in &dependencies {
            assert!(rows.contains(&dependency.as_str()), "{name}: {dependency}");
        }
        assert_eq!(rows.len(), dependencies.len(), "{name}: {rows:?}");
    }
}

#[test]
fn every_decision_is_listed() {
    let page = read("ARCHITECTURE.md");
    for entry in std::fs::read_dir(repository().join("docs/adr")).expect("a folder") {
        let name = entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("UTF-8");
        assert!(page.contains(&format!("(docs/adr/{name})")), "{name}");
    }
}
