//! What the two commands say of themselves.

use super::run;

/// What is printed, without spaces at the ends of lines.
async fn help(command: &str) -> String {
    let ended = run(&[command, "--help"], &[]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    ended.stdout.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn check_says_what_it_does() {
    insta::assert_snapshot!(help("check").await, @r"
    Look whether all can be watched and everybody told, and say what mends what is not so

    Usage: plimsoll check [OPTIONS]

    Options:
          --config <FILE>
              A file of settings; several are laid over each other [default:
              /etc/plimsoll/plimsoll.toml, if it is there]

          --postgres <URL>
              A server to look at, e.g. postgresql://plimsoll@db:5432/postgres; several are several
              targets

          --state-dir <FOLDER>
              Where to keep what must outlive a restart [default: $STATE_DIRECTORY, then
              ~/.local/state/plimsoll]

          --target <NAME>
              Look at this target only, and at all receivers; several are several

          --format <FORMAT>
              How it is printed

              Possible values:
              - text: A line a finding, for people
              - json: One object

              [default: text]

          --idle-for <DURATION>
              A session that has been idle for so long counts as held at rest by its pool

              [default: 1m]

      -h, --help
              Print help (see a summary with '-h')

    It changes nothing and sends nothing, and may run beside the daemon. At each server it logs in
    once, and once more for each probe. Settings come from files, then variables (PLIMSOLL_…, two
    underscores between two keys), then these flags, as with `plimsoll run`.

    Ends with 0 if nothing is wrong, warnings included; 1 if a receiver or this machine is in
    trouble; 3 if the settings cannot be used; 4 if a target is in trouble. Of several, the first of
    3, 4, 1.
    ");
}

#[tokio::test]
async fn setup_sql_says_what_it_does() {
    insta::assert_snapshot!(help("setup-sql").await, @r"
    Print the SQL that makes the role that Plimsoll logs in as

    Usage: plimsoll setup-sql [OPTIONS]

    Options:
          --role <NAME>
              The name of the role

              [default: plimsoll]

          --version <13..18>
              The server's major version

          --postgres <URL>
              A server to ask for its version; log in as somebody who is there already

          --config <FILE>
              A file of settings, of which the only target is asked, or the one that --target names

          --target <NAME>
              Ask this target

          --reserved
              On 16 and later: reserve slots for the role, too; needs a superuser and a restart

          --fallback <WAY>
              What else Plimsoll may use to get into a full server; says what that costs

              Possible values:
              - replication: A replication connection, which takes no ordinary slot

      -h, --help
              Print help (see a summary with '-h')

    Pipe it into psql, as a superuser or as who may grant pg_monitor; it may be run again. What it
    makes has no password yet: a comment says how to give it one.

    The version comes from --version, else from the server that --postgres or the settings name
    (files, then variables). Ends with 4 if that server cannot be asked.
    ");
}
