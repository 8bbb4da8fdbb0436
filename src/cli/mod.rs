//! The command line: a file a subcommand. Data goes to stdout, talk to stderr.

mod check;
mod drill;
mod exit;
mod log;
mod run;
mod setup_sql;
mod sql;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;

use clap::{Parser, Subcommand};

pub use exit::Exit;

/// Watches PostgreSQL connection slots run full, says who holds them and why, pages once and keeps
/// the record.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the targets until SIGTERM
    Run(run::Arguments),
    /// Look whether all can be watched and everybody told, and say what mends what is not so
    Check(check::Arguments),
    /// Print the SQL that makes the role that Plimsoll logs in as
    SetupSql(setup_sql::Arguments),
    /// Play a scripted incident on a throwaway server, and see what is told of it
    Drill(drill::Arguments),
}

/// Does what these arguments say.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors to clap's caller either; both print themselves.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Fine };
            return if error.print().is_ok() { exit } else { Exit::Failure };
        }
    };
    match arguments.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::SetupSql(arguments) => setup_sql::run(&arguments),
        Command::Drill(arguments) => drill::run(arguments),
    }
}

/// Says something to a person. A stderr that is closed changes nothing of what was done.
fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// The environment. A variable whose name or value is no UTF-8 is none of ours.
fn environment() -> BTreeMap<String, String> {
    let text = |text: OsString| text.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// Writes what was asked for to stdout; false if nobody takes it.
fn print(text: &str) -> bool {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Runs it on a runtime of its own.
fn with_runtime(work: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(work);
            // What still blocks on a disk or a name server must not keep a stopped program alive.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            say(&format!("error: starting the runtime: {error}"));
            Exit::Failure
        }
    }
}
