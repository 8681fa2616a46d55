//! The pages that list what is in the tree list all of it, and nothing else.

use std::path::{Path, PathBuf};

use crate::common::commands;

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

/// The first cells of a table of README.md, without its header, by how the header begins.
fn first_cells(header: &str) -> Vec<String> {
    let page = read("README.md");
    let (_, table) = page.split_once(&format!("\n{header}")).expect(header);
    let rows = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("| "));
    rows.filter_map(|row| Some(row.split_once(" | ")?.0.to_owned()))
        .collect()
}

#[test]
fn the_readme_lists_exactly_the_commands_that_exist() {
    let mut listed: Vec<String> = Vec::new();
    for cell in first_cells("| command | does |") {
        // `db-backups` has a row for itself and its subcommand: it counts once.
        let quoted = cell.split('`').skip(1).step_by(2);
        let mut names: Vec<_> = quoted
            .filter_map(|text| text.split(' ').next().map(str::to_owned))
            .collect();
        names.dedup();
        listed.extend(names);
    }
    listed.sort_unstable();
    let mut existing = commands();
    existing.sort_unstable();
    assert_eq!(listed, existing);
}

#[test]
fn the_readme_lists_exactly_the_exit_codes_that_exist() {
    let source = read("xtask/src/error.rs");
    let (_, function) = source.split_once("fn exit_code").expect("the function");
    let (arms, _) = function.split_once("\n    }\n").expect("its end");
    let codes = arms
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Kind::"));
    let codes = codes.map(|arm| {
        let (_, code) = arm.split_once(" => ").expect("an arm");
        code.trim_end_matches(',').to_owned()
    });
    let codes: Vec<String> = std::iter::once("0".to_owned()).chain(codes).collect();
    assert_eq!(first_cells("| exit | means |"), codes);
}
