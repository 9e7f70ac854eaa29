//! The program `cdc`: parse arguments, run the command, print the error with its hint, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    cdc::cli::main()
}
