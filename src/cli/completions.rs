//! `cdc completions`: prints completions for a shell.

use clap_complete::Shell;

use super::{Context, Outcome, command, output};
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  cdc completions bash > /etc/bash_completion.d/cdc
  cdc completions zsh > \"${fpath[1]}/_cdc\"
  cdc completions fish > ~/.config/fish/completions/cdc.fish";

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    pub shell: Shell,
}

/// Runs the command.
///
/// # Errors
///
/// If stdout cannot be written.
pub(crate) async fn run(args: &Args, _context: &Context) -> Result<Outcome> {
    // Into memory first: clap_complete panics where its writer fails, a closed pipe for example.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "cdc", &mut text);
    output::print(&String::from_utf8_lossy(&text))?;
    Ok(Outcome::Done)
}
