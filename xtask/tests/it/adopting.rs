//! `docs/adopting.md`, applied to a new workspace from the packaged crates, block by block.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Project, Run};

/// A fenced block of the page: what stands behind its language, and its text.
struct Block {
    info: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block {
                info: info.to_owned(),
                text: text.join("\n") + "\n",
            });
        }
    }
    blocks
}

impl Block {
    /// `file=PATH` and what stands behind it.
    fn file(&self) -> Option<(&str, &str)> {
        let (_, file) = self.info.split_once(" file=")?;
        Some(file.split_once(' ').unwrap_or((file, "")))
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// cargo as a person runs it, with what was downloaded for this build.
fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_NET_OFFLINE", "true");
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "DATABASE_URL"] {
        command.env_remove(name);
    }
    command
}

/// Packages the crates and unpacks them into a folder.
fn packaged(into: &Path) -> Vec<(String, PathBuf)> {
    let target = into.join("package");
    let arguments = ["package", "--workspace", "--exclude", "app", "--no-verify"];
    let mut package = cargo(&repository(), &arguments);
    package
        .args(["--quiet", "--allow-dirty", "--target-dir"])
        .arg(&target);
    Run::of(&mut package).succeeds();
    let mut crates = Vec::new();
    for entry in std::fs::read_dir(target.join("package")).expect("lists") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_none_or(|extension| extension != "crate")
        {
            continue;
        }
        let mut tar = Command::new("tar");
        tar.arg("xzf").arg(&path).arg("-C").arg(into);
        Run::of(&mut tar).succeeds();
        let stem = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let (name, _) = stem.rsplit_once('-').expect("a version");
        crates.push((name.to_owned(), into.join(&stem)));
    }
    crates
}

/// A workspace with an sqlx folder and an xtask of its own, which is not ours yet.
fn workspace(folder: &Path, crates: &[(String, PathBuf)], main: &str) {
    let patches: String = crates
        .iter()
        .map(|(name, path)| format!("{name} = {{ path = {path:?} }}\n"))
        .collect();
    let files = [
        (
            "Cargo.toml",
            // The profile is this repository's, so that what is built already is not built again.
            &*format!(
                "[workspace]\nresolver = \"3\"\nmembers = [\"xtask\"]\n\n[patch.crates-io]\n{patches}\n[profile.dev]\ndebug = false\n[profile.dev.package.argon2]\nopt-level = 3\n[profile.dev.package.blake2]\nopt-level = 3\n[profile.dev.package.hmac]\nopt-level = 3\n"
            ),
        ),
        (
            ".cargo/config.toml",
            "[alias]\nxtask = \"run --quiet --package xtask --\"\n",
        ),
        (
            "xtask/Cargo.toml",
            "[package]\nname = \"xtask\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\nclap = { version = \"4\", features = [\"derive\"] }\n",
        ),
        ("xtask/src/main.rs", main),
        (
            "migrations/1_items.up.sql",
            "CREATE TABLE items (id bigserial PRIMARY KEY, name text NOT NULL);\n",
        ),
        ("migrations/1_items.down.sql", "DROP TABLE items;\n"),
        (
            "migrations/2_price.up.sql",
            "ALTER TABLE items ADD COLUMN price int;\n",
        ),
        (
            "migrations/2_price.down.sql",
            "ALTER TABLE items DROP COLUMN price;\n",
        ),
    ];
    for (path, text) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes it");
        std::fs::write(path, text).expect("writes");
    }
    let lock = repository().join("Cargo.lock");
    std::fs::copy(lock, folder.join("Cargo.lock")).expect("copies");
}

#[test]
fn every_line_of_the_page_on_adopting_does_what_it_says() {
    let page = std::fs::read_to_string(repository().join("docs/adopting.md")).expect("reads");
    let blocks = blocks(&page);
    let place = tempfile::tempdir().expect("a folder");
    let root = place.path().join("their workspace");
    let before = blocks
        .iter()
        .find(|block| block.file() == Some(("xtask/src/main.rs", "before")))
        .expect("their main.rs");
    workspace(&root, &packaged(place.path()), &before.text);

    // What it takes.
    let mut taken = 0;
    for block in &blocks {
        match block.file() {
            Some((_, "before")) | None => {}
            Some((file, "append")) => {
                let path = root.join(file);
                let text = std::fs::read_to_string(&path).expect("reads") + &block.text;
                std::fs::write(path, text).expect("writes");
                if file == "xtask/Cargo.toml" {
                    taken += block.text.lines().count();
                }
            }
            Some((file, _)) => {
                std::fs::write(root.join(file), &block.text).expect("writes");
                if file == "xtask/src/main.rs" {
                    let added = |line: &&str| before.text.lines().all(|theirs| theirs != *line);
                    taken += block.text.lines().filter(added).count();
                }
            }
        }
    }
    assert!(taken > 3 && taken <= 10, "{taken} lines");

    // Its commands, in their order; and theirs, which are as they were.
    let project = Project::empty();
    // What is built already is not built again; what comes of it must not replace our own program.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("..");
    let target = place.path().join("target");
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (program, arguments) = words.split_first().expect("a command");
        assert_eq!(*program, "cargo", "{line}");
        let mut command = cargo(&root, arguments);
        command
            .env("DATABASE_URL", &project.url)
            .env("CARGO_BUILD_BUILD_DIR", &built)
            .env("CARGO_TARGET_DIR", &target);
        Run::of(&mut command)
    };
    let commands = blocks.iter().filter(|block| block.info == "console");
    let commands: Vec<&str> = commands.flat_map(|block| block.text.lines()).collect();
    assert!(commands.len() >= 5, "{commands:?}");
    for line in commands {
        run(line).succeeds();
    }
    assert_eq!(project.value("SELECT count(*) FROM items"), "100");
    assert_eq!(run("cargo xtask answer").succeeds().stdout, "42\n");
    let help = run("cargo xtask --help").succeeds();
    for command in ["hello", "answer", "db-migrate", "db-rollback"] {
        assert!(help.stdout.contains(command), "{}", help.stdout);
    }
    // From any folder of theirs.
    let mut status = cargo(&root.join("xtask/src"), &["xtask", "db-status", "--check"]);
    status
        .env("DATABASE_URL", &project.url)
        .env("CARGO_BUILD_BUILD_DIR", &built)
        .env("CARGO_TARGET_DIR", &target);
    Run::of(&mut status).succeeds();
}
