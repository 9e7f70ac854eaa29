//! The command line: arguments in, exit code out; each subcommand has a thin file of its own.
//!
//! Results go to stdout, everything else to stderr. Exit codes ([`Outcome`], [`exit_code`]): 0 done
//! or healthy, 1 findings or not healthy, 2 wrong usage or configuration.

pub mod check;
mod common;
mod compared;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod output;
mod request;
pub(crate) mod resync;
pub(crate) mod run;
pub mod setup;
pub mod status;
pub mod stop;
pub mod teardown;
pub(crate) mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Flags, Loaded};
use crate::error::{Class, Error, Result};
use crate::settings::Settings;
use crate::telemetry::{self, LogFormat};
use stop::Stop;

/// The result of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, or healthy: exit code 0.
    Done,
    /// There are findings, or something is not healthy: exit code 1.
    Findings,
}

/// Help opens with one sentence, usage and examples; the flags come after them.
const HELP_TEMPLATE: &str = "\
{about-with-newline}
{usage-heading} {usage}{after-help}

{all-args}";

const EXAMPLES: &str = "\
Examples:
  export CDC_SOURCE_URL=postgresql://cdc@master/app_master_db
  export CDC_TARGET_URL=postgresql://cdc@localhost/app_core_db
  cdc check                  say what would go wrong, change nothing
  cdc run                    copy, then follow the source until stopped
  cdc status                 show how far it is
  cdc demo                   see it work on two throw-away servers

Exit codes: 0 done or healthy, 1 findings or not healthy, 2 wrong usage or configuration.";

/// Keeps lookup tables in one PostgreSQL database in step with master tables in another.
#[derive(Debug, Parser)]
#[command(name = "cdc", version, after_help = EXAMPLES)]
#[command(
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Configuration file [env: CDC_CONFIG] [default: ./cdc.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<std::path::PathBuf>,

    /// Database with the master tables: URL or key=value as in libpq [env: CDC_SOURCE_URL,
    /// CDC_SOURCE_URL_FILE]
    ///
    /// Other users of the machine can see arguments: keep a password in CDC_SOURCE_PASSWORD_FILE,
    /// in CDC_SOURCE_URL or in the password file (~/.pgpass).
    #[arg(long, global = true, value_name = "URL")]
    pub source_url: Option<String>,

    /// Database with the lookup tables [env: CDC_TARGET_URL, CDC_TARGET_URL_FILE]
    #[arg(long, global = true, value_name = "URL")]
    pub target_url: Option<String>,

    /// What to log: error, warn, info, debug, trace, or filters such as cdc::source=debug [default:
    /// info]
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "CDC_LOG",
        hide_env_values = true
    )]
    pub log_level: Option<String>,

    /// How to log [default: text on a terminal, json elsewhere]
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "CDC_LOG_FORMAT",
        hide_env_values = true
    )]
    pub log_format: Option<LogFormat>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep the lookup tables in step until stopped
    Run(run::Args),
    /// Say what is wrong or would go wrong, without changing anything
    Check(check::Args),
    /// Prepare both databases: publication, bookkeeping, lookup tables
    Setup(setup::Args),
    /// Show how far each read model is
    Status(status::Args),
    /// Compare lookup tables with their sources and repair differences
    Resync(resync::Args),
    /// Compare lookup tables with their sources and repair nothing
    Verify(verify::Args),
    /// Remove what setup and run have created
    Teardown(teardown::Args),
    /// Show it at work on two throw-away servers
    Demo(demo::Args),
    /// Print the configuration in effect, or an example
    Config(config::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

/// What every subcommand may ask for.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Flags of every command.
    pub global: GlobalArgs,
    /// Cancelled by the first SIGTERM or Ctrl-C.
    pub stop: Stop,
}

impl Context {
    /// Reads file, environment and flags.
    ///
    /// # Errors
    ///
    /// Configuration, with all mistakes at once where possible.
    pub(crate) fn load(&self) -> Result<Loaded> {
        crate::config::load(&self.flags())
    }

    /// The flags that say what else file and environment say.
    pub(crate) fn flags(&self) -> Flags {
        Flags {
            config: self.global.config.clone(),
            source_url: self.global.source_url.clone(),
            target_url: self.global.target_url.clone(),
            log_level: self
                .global
                .log_level
                .clone()
                .filter(|level| !level.trim().is_empty()),
        }
    }

    /// The settings; warnings about them are logged. From here on the log has their level.
    ///
    /// # Errors
    ///
    /// As [`Context::load`].
    pub(crate) fn settings(&self) -> Result<Settings> {
        self.load_and_log().map(|loaded| loaded.settings)
    }

    /// As [`Context::settings`], with the file that was read.
    ///
    /// # Errors
    ///
    /// As [`Context::load`].
    pub(crate) fn load_and_log(&self) -> Result<Loaded> {
        let loaded = self.load()?;
        telemetry::set_level(&loaded.settings.log_level)?;
        loaded.log_warnings();
        Ok(loaded)
    }
}

/// The command line with the layout of help that all commands share.
pub(crate) fn command() -> clap::Command {
    Cli::command()
        .help_template(HELP_TEMPLATE)
        .mut_subcommands(|subcommand| {
            let after = subcommand.get_after_help().map(ToString::to_string);
            let subcommand = subcommand.help_template(HELP_TEMPLATE);
            match after {
                Some(after) => subcommand.after_help(flowing(&after)),
                None => subcommand,
            }
        })
}

/// The text with each paragraph in one line, so that it wraps at the width of the terminal. Lines
/// that are indented stay as they are.
fn flowing(text: &str) -> String {
    let mut flowing = String::with_capacity(text.len());
    let mut in_paragraph = false;
    for line in text.lines() {
        let continues = in_paragraph && !line.is_empty() && !line.starts_with(' ');
        if continues {
            flowing.push(' ');
        } else if !flowing.is_empty() {
            flowing.push('\n');
        }
        flowing.push_str(line);
        in_paragraph = !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':');
    }
    flowing
}

/// The whole program.
pub fn main() -> ExitCode {
    let parsed = command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let code = match start(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(exit_code(&error))
        }
    };
    telemetry::stderr::flush();
    code
}

/// Prints help, version or what is wrong with the arguments, as clap does, but never a password.
fn usage(error: &clap::Error) -> ExitCode {
    let plain = error.render().to_string();
    let masked = output::masked(&plain);
    if error.use_stderr() && masked != plain {
        output::note(masked.trim_end());
    } else {
        // Nothing can be done if stdout or stderr is closed.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The exit code of an error.
pub(crate) fn exit_code(error: &Error) -> u8 {
    match error.class() {
        Class::Configuration => 2,
        _ => 1,
    }
}

fn start(cli: Cli) -> Result<Outcome> {
    // The demo prints its own story: it logs only errors and warnings, unless the user asks for
    // more.
    let quiet = matches!(cli.command, Command::Demo(_)).then_some("warn");
    telemetry::init(
        cli.global.log_level.as_deref().or(quiet),
        cli.global.log_format,
    )?;
    // One thread: the process waits for sockets most of the time, and computes little.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::transient("could not start the runtime").with_source(error))?;
    let outcome = runtime.block_on(async {
        let context = Context {
            global: cli.global,
            stop: Stop::on_signals()?,
        };
        dispatch(&cli.command, &context).await
    });
    // A blocked name lookup must not hold the exit.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Run(args) => run::run(args, context).await,
        Command::Check(args) => check::run(args, context).await,
        Command::Setup(args) => setup::run(args, context).await,
        Command::Status(args) => status::run(args, context).await,
        Command::Resync(args) => resync::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Teardown(args) => teardown::run(args, context).await,
        Command::Demo(args) => demo::run(args, context).await,
        Command::Config(args) => config::run(args, context).await,
        Command::Completions(args) => completions::run(args, context).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_has_a_sentence_and_examples() {
        for command in command().get_subcommands() {
            let name = command.get_name();
            let about = command.get_long_about().or(command.get_about());
            assert!(about.is_some(), "{name}");
            let after = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                after.contains("Examples:\n  cdc "),
                "{name} has no examples"
            );
        }
    }

    /// Paragraphs broke in the middle of lines: they were wrapped by hand, and by the terminal once
    /// more.
    #[test]
    fn help_fills_the_width_of_the_terminal() {
        for width in [80, 100] {
            for subcommand in command().get_subcommands() {
                let name = subcommand.get_name();
                let mut subcommand = subcommand.clone().term_width(width);
                let help = subcommand.render_long_help().to_string();
                let lines: Vec<&str> = help.lines().collect();
                for pair in lines.windows(2) {
                    let [line, next] = pair else { continue };
                    assert!(line.chars().count() <= width, "{name}, {width}: {line}");
                    let is_text = |line: &str| line.starts_with(|c: char| !c.is_whitespace());
                    if is_text(line) && is_text(next) && !line.ends_with(':') {
                        let word = next.split(' ').next().unwrap_or_default();
                        let filled = line.chars().count() + 1 + word.chars().count();
                        assert!(filled > width, "{name}, {width}: {line} / {next}");
                    }
                }
            }
        }
    }

    #[test]
    fn errors_map_to_exit_codes() {
        assert_eq!(exit_code(&Error::configuration("x")), 2);
        assert_eq!(exit_code(&Error::transient("x")), 1);
        assert_eq!(exit_code(&Error::broken("x")), 1);
    }
}
