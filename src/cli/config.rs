//! `cdc config`: prints the configuration in effect, or an example.

use super::{Context, Outcome, output};
use crate::config::{EXAMPLE, Effective};
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  cdc config --example > cdc.toml    a commented file to start from
  cdc config                         what flags, environment, file and defaults come to
  cdc config --config other.toml     is the file right?";

/// Print the configuration in effect, or an example
///
/// Flags override the environment, the environment overrides the file. Passwords are shown as ****.
/// Neither database is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print a commented example of the file, and read nothing
    #[arg(long)]
    pub example: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Configuration, if there is a mistake in it.
pub(crate) async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if args.example {
        output::print(EXAMPLE)?;
        return Ok(Outcome::Done);
    }
    let loaded = context.load()?;
    for warning in &loaded.warnings {
        output::note(&format!("warning: {warning}"));
    }
    let origin = match &loaded.file {
        Some(file) => format!("# File: {}\n", file.display()),
        None => "# File: none\n".to_owned(),
    };
    output::print(&format!("{origin}{}", Effective(&loaded.settings)))?;
    Ok(Outcome::Done)
}
