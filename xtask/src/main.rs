//! The program of this workspace, as an adopter writes it.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask_db::main()
}
