//! `plimsoll check`: looks whether every target can be watched and every receiver told, beside a
//! daemon or before there is one, and prints what is well, what is not, and what mends it.
//!
//! It changes nothing, sends nothing, and has one connection at a server, for a moment, and after
//! it one for each probe. What is read is read by `collect`, `notify` and `store`; here it is
//! judged and shown.

mod beside;
mod fallback;
pub(super) mod finding;
mod machine;
mod receiver;
mod slots;
mod sources;
pub(super) mod statement_log;
pub(super) mod target;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::stream::{self, StreamExt};
use plimsoll_core::settings::{Mistake, Secret, Settings, TargetSettings};

use super::{Exit, environment, print, say, with_runtime};
use crate::chain::chain;
use crate::collect::postgres::inspect::{inspect, names_of};
use crate::load::{DEFAULT_FILE, LoadError, LoadRequest, Overrides, load};
use crate::notify::http::Client;
use crate::run::{parse_postgres, rules_of, source_of, told};
use finding::{Finding, Findings, Subject};
use target::Wanted;

/// So many targets, or receivers, are looked at at once: each is a socket and perhaps a login.
const AT_ONCE: usize = 32;

const MORE_HELP: &str = "\
It changes nothing and sends nothing, and may run beside the daemon. At each server it logs in
once, and once more for each probe. Settings come from files, then variables (PLIMSOLL_…, two
underscores between two keys), then these flags, as with `plimsoll run`.

Ends with 0 if nothing is wrong, warnings included; 1 if a receiver or this machine is in
trouble; 3 if the settings cannot be used; 4 if a target is in trouble. Of several, the first of
3, 4, 1.";

/// The command line of `check`.
#[derive(Debug, Args)]
#[command(after_help = MORE_HELP)]
pub(super) struct Arguments {
    /// A file of settings; several are laid over each other [default: /etc/plimsoll/plimsoll.toml,
    /// if it is there]
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,

    /// A server to look at, e.g. postgresql://plimsoll@db:5432/postgres; several are several
    /// targets
    #[arg(long, value_name = "URL")]
    postgres: Vec<String>,

    /// Where to keep what must outlive a restart [default: $STATE_DIRECTORY, then
    /// ~/.local/state/plimsoll]
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<String>,

    /// Look at this target only, and at all receivers; several are several
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,

    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// A session that has been idle for so long counts as held at rest by its pool
    #[arg(
        long, value_name = "DURATION", default_value = "1m",
        value_parser = humantime::parse_duration
    )]
    idle_for: Duration,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line a finding, for people.
    Text,
    /// One object.
    Json,
}

pub(super) fn run(arguments: Arguments) -> Exit {
    let (format, rest, only) = (arguments.format, arguments.idle_for, arguments.target.clone());
    let findings = match load(&request(arguments), &parse_postgres) {
        Ok(mut settings) => {
            if let Some(unknown) = keep(&mut settings.targets, &only) {
                say(&format!("error: --target: no target is called {unknown}"));
                return Exit::Usage;
            }
            let mut findings = None;
            let ran = with_runtime(async {
                findings = Some(look(&settings, rest).await);
                Exit::Fine
            });
            match findings {
                Some(findings) => findings,
                None => return ran,
            }
        }
        Err(LoadError::Mistakes(mistakes)) => {
            Findings::of_settings(mistakes.iter().map(mistake).collect())
        }
    };
    let text = match format {
        Format::Text => findings.to_string(),
        Format::Json => findings.json(),
    };
    if print(&text) { findings.exit() } else { Exit::Failure }
}

/// Keeps the targets that are asked for, all if none is; gives a name that is of none.
fn keep(targets: &mut Vec<TargetSettings>, only: &[String]) -> Option<String> {
    if only.is_empty() {
        return None;
    }
    let is_known = |name: &&String| targets.iter().any(|target| target.name == **name);
    if let Some(unknown) = only.iter().find(|name| !is_known(name)) {
        return Some(unknown.clone());
    }
    targets.retain(|target| only.contains(&target.name));
    None
}

fn request(arguments: Arguments) -> LoadRequest {
    LoadRequest {
        files: arguments.config,
        default_file: Some(PathBuf::from(DEFAULT_FILE)),
        flags: Overrides {
            postgres: arguments.postgres.into_iter().map(Secret::new).collect(),
            state_dir: arguments.state_dir,
            ..Overrides::default()
        },
        env: environment(),
    }
}

fn mistake(mistake: &Mistake) -> Finding {
    let without_hint = Mistake { hint: None, excerpt: None, ..mistake.clone() };
    let finding = Finding::wrong("settings", without_hint.to_string());
    match &mistake.hint {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

async fn look(settings: &Settings, rest: Duration) -> Findings {
    let client = Client::from_environment();
    let targets = stream::iter(&settings.targets)
        .map(|target| look_at_target(target, settings, rest))
        .buffered(AT_ONCE)
        .collect::<Vec<_>>();
    let receivers = stream::iter(&settings.receivers)
        .map(|one| receiver::look(settings, one, &client))
        .buffered(AT_ONCE)
        .collect::<Vec<_>>();
    let (targets, receivers) = tokio::join!(targets, receivers);
    let (many, told) = (settings.targets.len(), settings.receivers.len());
    let counted = if told == 0 {
        let text = format!("targets: {many}; receivers: none, so that nobody is told of anything");
        Finding::warning("settings", text)
    } else {
        Finding::ok("settings", format!("targets: {many}; receivers: {told}"))
    };
    Findings::new(vec![counted], targets, receivers, machine::find(settings))
}

async fn look_at_target(target: &TargetSettings, settings: &Settings, rest: Duration) -> Subject {
    let name = target.name.clone();
    let prepared = source_of(target, settings).and_then(|it| Ok((it, told(target, settings)?)));
    let (source, told) = match prepared {
        Ok((source, told)) => (Arc::new(source), told),
        Err(error) => {
            let findings = vec![Finding::wrong("settings", chain(&error))];
            return Subject {
                name,
                address: "an address that cannot be used".to_owned(),
                findings,
            };
        }
    };
    let seen = inspect(Arc::clone(&source), rest).await;
    let mut findings = match &seen {
        Ok(seen) => target::find(&Wanted { levels: target.rules.slots, rest }, seen),
        Err(failure) => {
            let (role, database) = names_of(&source);
            vec![target::unseen(role, database, failure)]
        }
    };
    // Only then: in a full server each login holds a slot, and a probe's is one.
    let reading = beside::read(told, seen.as_ref()).await;
    let sources = rules_of(settings, target).sources;
    findings.extend(sources::find(&reading, &sources, seen.as_ref().ok()));
    Subject { name, address: source.conninfo.address(), findings }
}
