//! `plimsoll run`: watches until SIGTERM.

use std::path::PathBuf;

use clap::Args;
use plimsoll_core::settings::Secret;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::log::{Log, LogFormat};
use super::{Exit, environment, say, with_runtime};
use crate::chain::chain;
use crate::load::{DEFAULT_FILE, LoadRequest, Overrides};
use crate::run::{self, RunError};

/// Watches the targets until SIGTERM. SIGHUP reads the settings again.
///
/// Settings come from files, then variables (PLIMSOLL_…, two underscores between two keys), then
/// these flags. With nothing but --postgres the shipped defaults apply.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A file of settings; several are laid over each other [default: /etc/plimsoll/plimsoll.toml,
    /// if it is there]
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,

    /// A server to watch, e.g. postgresql://plimsoll@db:5432/postgres; several are several targets
    #[arg(long, value_name = "URL")]
    postgres: Vec<String>,

    /// Part of every dedup key, so that two installations cannot close each other's pages
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,

    /// Where to listen for HTTP [default: 127.0.0.1:7546]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// Where to keep what must outlive a restart [default: $STATE_DIRECTORY, then
    /// ~/.local/state/plimsoll]
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<String>,

    /// How the log on stderr is written; RUST_LOG says how much of it
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Each target has two sockets at most, each receiver some, and the usual soft limit is 1,024. The
/// hard one is what the operator grants.
fn raise_limit_of_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current = limit.current, "the limit of open files stays as it is");
    }
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let log = match Log::begin(arguments.log_format) {
        Ok(log) => log,
        Err(error) => {
            say(&format!("error: starting the thread of the log: {error}"));
            return Exit::Failure;
        }
    };
    raise_limit_of_open_files();
    let (exit, last_words) = watch(arguments);
    // What the log still has comes before the last words.
    log.end();
    for line in last_words {
        say(&line);
    }
    exit
}

/// Watches, and then how it ended and what there is to say of that.
fn watch(arguments: Arguments) -> (Exit, Vec<String>) {
    let mut last_words = Vec::new();
    let exit = with_runtime(async {
        match run::run(request(arguments)).await {
            Ok(()) => Exit::Fine,
            Err(RunError::Settings(error)) => {
                last_words.push(error.to_string());
                Exit::Settings
            }
            Err(error) => {
                last_words.push(format!("error: {}", chain(&error)));
                last_words.extend(error.hint().map(|hint| format!("  hint: {hint}")));
                Exit::Failure
            }
        }
    });
    (exit, last_words)
}

fn request(arguments: Arguments) -> LoadRequest {
    LoadRequest {
        files: arguments.config,
        default_file: Some(PathBuf::from(DEFAULT_FILE)),
        flags: Overrides {
            postgres: arguments.postgres.into_iter().map(Secret::new).collect(),
            instance: arguments.instance,
            listen: arguments.listen,
            state_dir: arguments.state_dir,
        },
        env: environment(),
    }
}
