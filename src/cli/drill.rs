//! `plimsoll drill`: plays scripted incidents.

use clap::{Args, Subcommand};

use super::{Exit, say, with_runtime};
use crate::chain::chain;
use crate::drill::{self, RunOptions};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a scenario: a throwaway Postgres, a Plimsoll with the shipped rules beside it, and a
    /// receiver that shows each page as it comes
    Run(RunArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// A scenario that comes with this program, e.g. migration-042, or a file
    scenario: String,

    /// Go on at the end, and print the addresses to open
    #[arg(long)]
    keep: bool,

    /// The major version of the throwaway server [default: the newest that is installed]
    #[arg(long, value_name = "NUMBER")]
    major: Option<u32>,
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let Command::Run(arguments) = arguments.command;
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            say(&format!("error: finding this program: {error}"));
            return Exit::Failure;
        }
    };
    let options = RunOptions {
        scenario: arguments.scenario,
        keep: arguments.keep,
        program,
        major: arguments.major,
    };
    with_runtime(async {
        // Every line is shown when it is written: the lock is taken anew each time.
        match drill::run(&options, &mut std::io::stdout()).await {
            Ok(outcome) if outcome.passed() => Exit::Fine,
            Ok(_) => Exit::Failure,
            Err(error) => {
                say(&format!("error: {}", chain(&error)));
                Exit::Failure
            }
        }
    })
}
