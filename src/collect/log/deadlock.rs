//! The detail of a deadlock: who waited for whom, and what each of them ran, without literals.
//!
//! Its sentences are translated and its numbers are not, so it is read by its shape: first a line
//! for each session, with its process id as the first number; then, behind `Process 123: `, the
//! statement of each, which can have lines of its own. Source: `DeadLockReport` (deadlock.c).

use plimsoll_core::reading::log::{Deadlock, MAX_PARTIES, Party};
use plimsoll_core::reading::sql;

use super::entry::Entry;

/// As much of a statement as a person needs to know it again.
const MAX_STATEMENT_CHARS: usize = 500;

/// `Process 12645 waits for ShareLock on transaction 17119874; blocked by process 10732.`
const MAX_WAITS_CHARS: usize = 200;

/// `Process`, in the longest of languages.
const MAX_WORD_BYTES: usize = 48;

/// The deadlock that this entry tells of.
pub(super) fn deadlock(entry: &Entry) -> Deadlock {
    Deadlock {
        role: entry.role.clone(),
        database: entry.database.clone(),
        application: entry.application.clone(),
        pid: entry.pid,
        parties: parties(entry.detail.as_deref().unwrap_or_default()),
    }
}

fn parties(detail: &str) -> Vec<Party> {
    let mut lines = detail.split('\n').peekable();
    let mut waits: Vec<(i32, &str)> = Vec::new();
    let is_one = |waits: &[(i32, &str)], pid: i32| waits.iter().any(|(known, _)| *known == pid);
    while let Some(line) =
        lines.next_if(|line| statement(line).is_none_or(|(pid, _)| !is_one(&waits, pid)))
    {
        waits.extend(numbers(line).next().map(|pid| (pid, line)));
    }
    let mut statements: Vec<(i32, String)> = Vec::new();
    for line in lines {
        let is_new =
            |pid: i32| is_one(&waits, pid) && statements.iter().all(|(known, _)| *known != pid);
        match (statement(line).filter(|(pid, _)| is_new(*pid)), statements.last_mut()) {
            (Some((pid, text)), _) => statements.push((pid, text.to_owned())),
            (None, Some((_, statement))) => {
                statement.push('\n');
                statement.push_str(line);
            }
            (None, None) => {}
        }
    }
    // Whoever raises an error of this kind by hand may write anything there: a line that does not
    // name another of the circle at its end is none of the server's.
    let is_of_server = |line: &str| numbers(line).last().is_some_and(|pid| is_one(&waits, pid));
    let own = waits.iter().filter(|(_, line)| is_of_server(line)).take(MAX_PARTIES);
    let party = |(pid, line): &(i32, &str)| {
        let ran = statements.iter().find(|(known, _)| known == pid);
        Party {
            pid: *pid,
            waits: shown(line),
            statement: ran
                .map(|(_, text)| sql::redact(text, MAX_STATEMENT_CHARS))
                .unwrap_or_default(),
        }
    };
    own.map(party).collect()
}

/// `Process 123: UPDATE …`
fn statement(line: &str) -> Option<(i32, &str)> {
    let digits = line.find(|c: char| c.is_ascii_digit()).filter(|at| *at <= MAX_WORD_BYTES)?;
    let (number, rest) = number(&line[digits..])?;
    let text = rest.trim_start_matches(' ').strip_prefix([':', '：'])?;
    Some((number, text.trim_start_matches(' ')))
}

/// The numbers of a line, in order.
fn numbers(line: &str) -> impl Iterator<Item = i32> {
    let words = line.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|digits| digits.parse().ok())
}

fn number(text: &str) -> Option<(i32, &str)> {
    let len = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..len].parse().ok()?, &text[len..]))
}

/// What the server says of a lock names no data: types, process ids, OIDs.
fn shown(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).take(MAX_WAITS_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(detail: &str, expected: &[(i32, &str)]) {
        let parties = parties(detail);
        let seen: Vec<_> = parties.iter().map(|one| (one.pid, one.statement.as_str())).collect();
        assert_eq!(seen, expected, "{detail}");
        assert!(parties.iter().all(|one| one.waits.contains(&one.pid.to_string())));
    }

    #[test]
    fn both_statements_are_found_in_any_language_and_shown_without_literals() {
        check(
            "Process 12 waits for ShareLock on transaction 171; blocked by process 9.\n\
             Process 9 waits for ShareLock on transaction 172; blocked by process 12.\n\
             Process 12: UPDATE pay SET card = '4111 1111'\n  WHERE id = 7;\n\
             Process 9: UPDATE pay SET card = E'x\\'y' WHERE id = 8;",
            &[
                (12, "UPDATE pay SET card = ? WHERE id = ?;"),
                (9, "UPDATE pay SET card = ? WHERE id = ?;"),
            ],
        );
        check(
            "El proceso 12 espera ShareLock en transacción 171; bloqueado por proceso 9.\n\
             El proceso 9 espera ShareLock en transacción 172; bloqueado por proceso 12.\n\
             Proceso 12: SELECT 1\nProceso 9: SELECT 2",
            &[(12, "SELECT ?"), (9, "SELECT ?")],
        );
        check(
            "进程12等待在事务 171上的ShareLock; 由进程9阻塞.\n进程9等待在事务 172上的ShareLock; \
             由进程12阻塞.\n进程 12: SELECT 1\n进程 9: SELECT 2",
            &[(12, "SELECT ?"), (9, "SELECT ?")],
        );
        check(
            "Le processus 12 attend ShareLock sur transaction 1 ; bloqué par le processus 9.\n\
             Le processus 9 attend ShareLock sur transaction 2 ; bloqué par le processus 12.\n\
             Processus 12 : SELECT 1\nProcessus 9 : SELECT 2",
            &[(12, "SELECT ?"), (9, "SELECT ?")],
        );
        check("", &[]);
        check("99999999999999999999: x\nno number", &[]);
        // Raised by hand: nothing of it is shown.
        check("card 4111 of customer 77", &[]);
    }

    #[test]
    fn a_statement_that_was_cut_in_a_literal_shows_nothing_of_it() {
        check(
            "Process 12 waits for ShareLock; blocked by process 9.\n\
             Process 9 waits for ShareLock; blocked by process 12.\n\
             Process 12: UPDATE pay SET note = 'canary\nProcess 9: SELECT 1",
            &[(12, "UPDATE pay SET note = ?…"), (9, "SELECT ?")],
        );
    }

    #[test]
    fn circles_are_bounded() {
        let waits: Vec<String> = (1..100).map(|n| format!("Process {n} waits for 1")).collect();
        assert_eq!(parties(&waits.join("\n")).len(), MAX_PARTIES);
    }
}
