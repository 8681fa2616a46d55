//! What a shell and `man` are given: completions and pages for the program as it is called.

use std::process::Command;

use crate::common::{Project, Run, commands};

/// What bash offers for the last of these words.
fn offered(project: &Project, script: &str, words: &[&str]) -> Vec<String> {
    // As bash itself calls what is registered for the first word (its manual, "Programmable Completion").
    const ASK: &str = r#"
        source "$0"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        function=$(complete -p "$1" | sed -E 's/.*-F (\S+).*/\1/')
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    project.write("completions", script);
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ASK])
        .arg(project.path("completions"));
    let run = Run::of(bash.args(words)).succeeds();
    assert_eq!(run.stderr, "", "{words:?}");
    let words = run.stdout.split_whitespace();
    words.map(str::to_owned).collect()
}

#[test]
fn bash_completes_every_command_and_its_flags_by_the_name_that_the_program_is_called() {
    let project = Project::empty();
    let completions = |shell| {
        project
            .unconfigured_run(&["db-completions", shell])
            .succeeds()
            .stdout
    };
    let script = completions("bash");
    for command in commands() {
        let all = offered(&project, &script, &["cargo", "xtask", ""]);
        assert!(all.contains(&command), "{command}: {all:?}");
        let one = offered(&project, &script, &["cargo", "xtask", &command]);
        assert!(one.contains(&command), "{command}: {one:?}");
        let flags = offered(&project, &script, &["cargo", "xtask", &command, "--dat"]);
        assert_eq!(flags, ["--database-url"], "{command}");
    }
    let flags = offered(
        &project,
        &script,
        &["cargo", "xtask", "db-migrate", "--stall"],
    );
    assert_eq!(flags, ["--stall-budget"]);

    // What is not ours is left to cargo's own completion.
    let with_cargo = format!("_cargo() {{ COMPREPLY=(of-cargo); }}\n{script}");
    assert_eq!(
        offered(&project, &with_cargo, &["cargo", "bui"]),
        ["of-cargo"]
    );
    assert_eq!(
        offered(&project, &with_cargo, &["cargo", "run", "db-"]),
        ["of-cargo"]
    );

    for shell in ["fish", "zsh"] {
        let script = completions(shell);
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
    }

    project.write(
        "Cargo.toml",
        "[workspace.metadata.xtask-db]\ncommand = '/usr/local/bin/my-xtask'\n",
    );
    let of_program = offered(&project, &completions("bash"), &["my-xtask", "db-mi"]);
    assert_eq!(of_program, ["db-migrate"]);
    let flags = offered(
        &project,
        &completions("bash"),
        &["my-xtask", "db-psql", "--dat"],
    );
    assert_eq!(flags, ["--database-url"]);
    project.write(
        "Cargo.toml",
        "[workspace.metadata.xtask-db]\ncommand = 'docker run migrator'\n",
    );
    project
        .unconfigured_run(&["db-completions", "bash"])
        .exits(2)
        .says("cannot complete `docker run migrator`");
}

#[test]
fn every_command_has_a_man_page() {
    let project = Project::empty();
    project
        .unconfigured_run(&["db-man"])
        .succeeds()
        .says("man target/man/cargo-xtask.1");
    project.unconfigured_run(&["db-man", "pages"]).succeeds();
    for folder in ["target/man", "pages"] {
        for command in commands() {
            let page = project.path(&format!("{folder}/cargo-xtask-{command}.1"));
            let page = std::fs::read_to_string(page).expect("a page");
            assert!(page.contains("Example"), "{page}");
            assert!(
                page.contains(&format!("cargo xtask {}", command.replace('-', "\\-"))),
                "{page}"
            );
        }
    }
    project.write("file", "");
    project
        .unconfigured_run(&["db-man", "file"])
        .exits(1)
        .says("cannot write man pages to `file`");
}
