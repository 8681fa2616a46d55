//! `db-completions`: a script with which a shell completes these commands and their flags.

use std::path::Path;

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::aot;

use super::Cli;
use crate::Context;
use crate::error::{Failure, Result};

/// Arguments of `db-completions`.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell that the script is for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// An alias is not a program, so cargo's own completion must call ours for the alias and keep its own for
/// everything else. (zsh's does that by itself: it calls `_cargo-ALIAS`.)
const BASH_ALIAS: &str = r#"
_FUNCTION_alias() {
    if [[ ${COMP_CWORD} -ge 2 && "${COMP_WORDS[1]}" == "ALIAS" ]]; then
        local words=("cargo-ALIAS" "${COMP_WORDS[@]:2}") index=$((COMP_CWORD - 1))
        local COMP_WORDS=("${words[@]}") COMP_CWORD=${index}
        _FUNCTION cargo-ALIAS "$2" "$3"
    elif declare -F _cargo >/dev/null; then
        _cargo "$@"
    fi
}
if ! declare -F _cargo >/dev/null && declare -F _completion_loader >/dev/null; then
    _completion_loader cargo
fi
complete -F _FUNCTION_alias -o bashdefault -o default cargo
"#;
const BASH_PROGRAM: &str = "\ncomplete -F _FUNCTION -o bashdefault -o default PROGRAM\n";
const FISH_ALIAS: &str = r#"
complete -c cargo -n 'string match -qr "^\s*cargo\s+ALIAS\s" -- (commandline -cp)' -f -a '(complete -C (string replace -r "^\s*cargo\s+ALIAS\s" "cargo-ALIAS " -- (commandline -cp)))'
"#;

pub(crate) fn run(ctx: &Context, flags: &Completions) -> Result {
    let command = &ctx.config.settings.command;
    let (program, alias) = called_as(command)?;
    let mut cli = Cli::command();
    let mut script = Vec::new();
    // clap_complete's script for bash does not find the subcommands of a program with a `-` in its name.
    let function = program.replace('-', "_");
    match flags.shell {
        Shell::Bash => aot::generate(aot::Bash, &mut cli, &function, &mut script),
        Shell::Fish => aot::generate(aot::Fish, &mut cli, &program, &mut script),
        Shell::Zsh => aot::generate(aot::Zsh, &mut cli, &program, &mut script),
    }
    let registration = match (flags.shell, alias) {
        (Shell::Bash, Some(_)) => BASH_ALIAS,
        (Shell::Bash, None) => BASH_PROGRAM,
        (Shell::Fish, Some(_)) => FISH_ALIAS,
        (Shell::Fish, None) | (Shell::Zsh, _) => "",
    };
    let registration = registration
        .replace("FUNCTION", &function)
        .replace("PROGRAM", &program)
        .replace("ALIAS", alias.unwrap_or_default());
    let script = String::from_utf8(script)?;
    ctx.ui.data(format!("{script}{registration}").trim_end());
    Ok(())
}

/// The name of the program for the shell, and the alias of cargo, if it is one.
fn called_as(command: &str) -> Result<(String, Option<&str>)> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        ["cargo", alias] => Ok((format!("cargo-{alias}"), Some(alias))),
        [program] => {
            let name = Path::new(program).file_name().unwrap_or_default();
            Ok((name.to_string_lossy().into_owned(), None))
        }
        _ => Err(Failure::usage(format!("cannot complete `{command}`"))
            .cause("only a program, or an alias of cargo's, can be completed")
            .hint("set `command` in `[workspace.metadata.xtask-db]` to one of the two: \"cargo xtask\", or \"xtask\"")
            .into()),
    }
}
