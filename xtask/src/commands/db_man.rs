//! `db-man`: a man page for each command.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use super::Cli;
use crate::Context;
use crate::error::Result;

/// Arguments of `db-man`.
#[derive(Args, Debug)]
pub struct Man {
    /// Folder for the man pages [default: target/man at the workspace root]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(crate) fn run(ctx: &Context, flags: &Man) -> Result {
    let command = &ctx.config.settings.command;
    let name = command.replace(' ', "-");
    let folder = match &flags.folder {
        Some(folder) => folder.clone(),
        None => ctx.config.root.join("target/man"),
    };
    let cli = Cli::command().bin_name(command).display_name(&name);
    fs::create_dir_all(&folder)
        .and_then(|()| clap_mangen::generate_to(cli, &folder))
        .with_context(|| format!("cannot write man pages to `{}`", folder.display()))?;
    let first = ctx.config.shown(&folder.join(name + ".1"));
    ctx.ui
        .status("Written", format_args!("man {}", first.display()));
    Ok(())
}
