//! The command `plimsoll`. Everything that it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    plimsoll::cli::main(std::env::args_os()).into()
}
