//! `plimsoll setup-sql`: prints the SQL that makes the role that Plimsoll logs in as, with the
//! rights that reading needs on the server's version and no others. It runs nothing.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use plimsoll_core::settings::Secret;

use super::check::statement_log::QUIET;
use super::check::target::ENOUGH_CONNECTIONS;
use super::{Exit, environment, print, say, sql, with_runtime};
use crate::chain::chain;
use crate::collect::postgres::inspect::major;
use crate::load::{DEFAULT_FILE, LoadRequest, Overrides, load};
use crate::run::{parse_postgres, source_of};

/// Majors that are read, the oldest and the newest that were tested.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// From here on a role can be let in when ordinary slots are gone.
const HAS_RESERVED_SLOTS: u32 = 16;

/// A longer name would be cut by the server (`NAMEDATALEN` − 1), and be another's.
const MAX_NAME_BYTES: usize = 63;

const MORE_HELP: &str = "\
Pipe it into psql, as a superuser or as who may grant pg_monitor; it may be run again. What it
makes has no password yet: a comment says how to give it one.

The version comes from --version, else from the server that --postgres or the settings name
(files, then variables). Ends with 4 if that server cannot be asked.";

/// The command line of `setup-sql`.
#[derive(Debug, Args)]
#[command(after_help = MORE_HELP)]
pub(super) struct Arguments {
    /// The name of the role
    #[arg(long, value_name = "NAME", default_value = "plimsoll", value_parser = role_name)]
    role: String,

    /// The server's major version
    #[arg(
        long, value_name = "13..18", conflicts_with_all = ["postgres", "config", "target"],
        value_parser = clap::value_parser!(u32).range(13..=18)
    )]
    version: Option<u32>,

    /// A server to ask for its version; log in as somebody who is there already
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,

    /// A file of settings, of which the only target is asked, or the one that --target names
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,

    /// Ask this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,

    /// On 16 and later: reserve slots for the role, too; needs a superuser and a restart
    #[arg(long)]
    reserved: bool,

    /// What else Plimsoll may use to get into a full server; says what that costs
    #[arg(long, value_enum, value_name = "WAY")]
    fallback: Option<Fallback>,
}

/// Ways into a full server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fallback {
    /// A replication connection, which takes no ordinary slot
    Replication,
}

fn role_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.contains('\0') {
        return Err("no role can have this name".to_owned());
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("it has {} bytes, and PostgreSQL keeps {MAX_NAME_BYTES}", name.len()));
    }
    if name.starts_with("pg_") {
        return Err("names that begin with pg_ are PostgreSQL's own".to_owned());
    }
    Ok(name.to_owned())
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let version = match arguments.version {
        Some(version) => Ok(version),
        None => ask(arguments),
    };
    match version {
        Ok(version) if print(&script(version, arguments)) => Exit::Fine,
        Ok(_) => Exit::Failure,
        Err(exit) => exit,
    }
}

/// Asks the server. What goes wrong is said here.
fn ask(arguments: &Arguments) -> Result<u32, Exit> {
    let request = LoadRequest {
        files: arguments.config.clone(),
        default_file: Some(PathBuf::from(DEFAULT_FILE)),
        flags: Overrides {
            postgres: arguments.postgres.iter().map(Secret::new).collect(),
            // Nothing is kept: one that is missing must not be in the way.
            state_dir: Some(".".to_owned()),
            ..Overrides::default()
        },
        env: environment(),
    };
    let settings = load(&request, &parse_postgres).map_err(|error| {
        say(&format!("{error}\n  hint: or say the version: --version 16"));
        Exit::Settings
    })?;
    let is_meant = |name: &String| arguments.target.as_ref().is_none_or(|meant| meant == name);
    let mut meant = settings.targets.iter().filter(|target| is_meant(&target.name));
    let (Some(target), None) = (meant.next(), meant.next()) else {
        say("error: no target, or several, could be meant\n  hint: --target NAME, or --version 16");
        return Err(Exit::Usage);
    };
    let source = source_of(target, &settings).map_err(|error| {
        say(&format!("error: {}", chain(&error)));
        Exit::Settings
    })?;
    let mut answer = Err(Exit::Failure);
    with_runtime(async {
        answer = match major(Arc::new(source)).await {
            Ok(major) if MAJORS.contains(&major) => Ok(major),
            Ok(major) if major > *MAJORS.end() => {
                say(&format!("PostgreSQL {major} is newer than any that was tested"));
                Ok(major)
            }
            Ok(major) => {
                say(&format!("error: PostgreSQL {major} is older than 13, and cannot be read"));
                Err(Exit::Target)
            }
            Err(failure) => {
                say(&format!(
                    "error: {}\n  hint: the role may not be there yet: log in as another one, or \
                     say the version: --version 16",
                    failure.text
                ));
                Err(Exit::Target)
            }
        };
        Exit::Fine
    });
    answer
}

/// The script. Each statement stands alone: where one is not allowed, the others still do their
/// part. It can be run again, and then changes nothing.
fn script(version: u32, arguments: &Arguments) -> String {
    let role = sql::name(&arguments.role);
    let mut text = String::new();
    let mut add = |lines: &str| {
        text.push_str(lines);
        text.push('\n');
    };
    add(&format!(
        "-- The role of Plimsoll on PostgreSQL {version}. Run it as a superuser; on a managed service \
         as\n-- the administrator's role, where some statements at the end may be refused.\n"
    ));
    add(&create(&arguments.role));
    add(&format!(
        "-- A connection and its successor, a check beside them, and what has not ended yet.\n\
         ALTER ROLE {role} LOGIN INHERIT CONNECTION LIMIT {ENOUGH_CONNECTIONS};\n\n\
         -- Without a password nobody can log in but where pg_hba.conf asks for none. In psql:\n\
         --   \\password {role}\n\n\
         -- To see the sessions of others; without it they are hidden.\n\
         GRANT pg_monitor TO {role};\n"
    ));
    add(&reserved(version, &role, arguments.reserved));
    if arguments.fallback == Some(Fallback::Replication) {
        add(&format!(
            "-- For `fallback = \"replication\"`: a replication connection takes no ordinary slot. The\n\
             -- risk: who has this role's password can read every change of every database from\n\
             -- the write-ahead log, copy the whole cluster, and fill the disk with a slot of it.\n\
             -- It also needs a free one of max_wal_senders.\n\
             ALTER ROLE {role} REPLICATION;\n"
        ));
    }
    add(
        "-- A poll a second would otherwise be millions of lines a week in a server log that takes\n\
         -- statements. These need a superuser, on 15 and later also: GRANT SET ON PARAMETER … TO ….",
    );
    for quiet in QUIET.iter().filter(|quiet| !quiet.of_library) {
        let value = sql::text(quiet.value);
        add(&format!("ALTER ROLE {role} SET {} = {value};", quiet.setting));
    }
    add("-- Where these libraries are loaded:");
    for quiet in QUIET.iter().filter(|quiet| quiet.of_library) {
        let value = sql::text(quiet.value);
        add(&format!("-- ALTER ROLE {role} SET {} = {value};", quiet.setting));
    }
    text
}

/// `CREATE ROLE` has no `IF NOT EXISTS`. The body of the block is a text like any other.
fn create(role: &str) -> String {
    let mut tag = "plimsoll".to_owned();
    while role.contains(&format!("${tag}$")) {
        tag.push('_');
    }
    let mut text = String::new();
    let (name, quoted) = (sql::name(role), sql::text(role));
    write!(
        text,
        "DO ${tag}$\nBEGIN\n    \
         IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {quoted}) THEN\n        \
         CREATE ROLE {name};\n    END IF;\nEND\n${tag}$;\n"
    )
    .expect("writing to a String does not fail");
    text
}

fn reserved(version: u32, role: &str, reserve: bool) -> String {
    if version < HAS_RESERVED_SLOTS {
        return format!(
            "-- PostgreSQL {version} keeps no slots for such a role: a connection that is cut while the\n\
             -- server is full does not come back. 16 and later can (pg_use_reserved_connections).\n"
        );
    }
    let grant = format!(
        "-- To get in again when ordinary slots are gone. It has an effect only while\n\
         -- reserved_connections is above 0, which needs a restart of the server.\n\
         GRANT pg_use_reserved_connections TO {role};\n"
    );
    let comment = if reserve { "" } else { "-- " };
    format!("{grant}{comment}ALTER SYSTEM SET reserved_connections = 2;\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(role: &str) -> Arguments {
        Arguments {
            role: role.to_owned(),
            version: None,
            postgres: None,
            config: Vec::new(),
            target: None,
            reserved: false,
            fallback: None,
        }
    }

    #[test]
    fn names_that_no_role_can_have_are_refused() {
        for name in ["", "pg_monitor", &"x".repeat(64), "a\0b"] {
            assert!(role_name(name).is_err(), "{name}");
        }
        assert_eq!(role_name("o\"brien"), Ok("o\"brien".to_owned()));
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let text = script(16, &arguments("x$plimsoll$; DROP ROLE \"y'z\\"));
        assert!(text.contains("DO $plimsoll_$\n"), "{text}");
        assert!(text.contains(r#"= E'x$plimsoll$; DROP ROLE "y''z\\')"#), "{text}");
        assert!(text.contains(r#"GRANT pg_monitor TO "x$plimsoll$; DROP ROLE ""y'z\";"#), "{text}");
    }
}
