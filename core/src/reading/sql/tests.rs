//! What is shown of statements, as tables of cases and as properties.

use proptest::prelude::*;

use super::redact;

const ROOM: usize = 1_000;

#[track_caller]
fn check(text: &str, shown: &str) {
    assert_eq!(redact(text, ROOM), shown, "of {text}");
}

#[test]
fn strings_of_every_form_are_taken_out() {
    check("SELECT 'a', 'it''s', ''", "SELECT ?, ?, ?");
    check(r"SELECT E'it\'s', e'\\', E'a''b'", "SELECT ?, ?, ?");
    check(r"SELECT U&'d\0061t', u&'!0061' UESCAPE '!'", "SELECT ?, ? UESCAPE ?");
    check("SELECT B'101', X'1FF', N'n', b'0', x'a'", "SELECT ?, ?, ?, ?, ?");
    check("SELECT $$it's$$, $a_1$ $$ $a$ $a_1$, $é$é$é$", "SELECT ?, ?, ?");
    check("DO $body$ BEGIN PERFORM 1; END $body$ LANGUAGE plpgsql", "DO ? LANGUAGE plpgsql");
    check("SELECT 'a'\n  'b', date'2024-05-10', type'x'", "SELECT ? ?, date?, type?");
}

#[test]
fn numbers_of_every_form_are_taken_out() {
    check("SELECT 1, -2, +3, 4.5, .5, 5., 1e-5, 1.5E+10", "SELECT ?, -?, +?, ?, ?, ?, ?, ?");
    check("SELECT 0xDEAD_BEEF, 0o17, 0b10, 1_000, 12abc", "SELECT ?, ?, ?, ?, ?");
    check("SELECT a[1:2], t1.c2, a-5, 1..10", "SELECT a[?:?], t1.c2, a-?, ?.?");
}

#[test]
fn names_parameters_and_operators_are_kept() {
    check(r#"SELECT "o""id", U&"d\0061ta" FROM "t""#, r#"SELECT "o""id", U&"d\0061ta" FROM "t""#);
    check("SELECT $1::int8, f($2)->>$3", "SELECT $1::int8, f($2)->>$3");
    check("SELECT a$b$c, naïve FROM überweisung", "SELECT a$b$c, naïve FROM überweisung");
    check("SELECT a ? 'k', a @> '{}'", "SELECT a ? ?, a @> ?");
    // A number that no protocol can bind is no parameter.
    check("SELECT $4111111111111111", "SELECT ?");
}

#[test]
fn row_counts_are_kept_where_rows_are_counted() {
    check("SELECT FROM t WHERE a = 5 LIMIT 50000", "SELECT FROM t WHERE a = ? LIMIT 50000");
    check("SELECT FROM t limit 10 offset 20", "SELECT FROM t limit 10 offset 20");
    check("SELECT FROM t FETCH FIRST 5 ROWS ONLY", "SELECT FROM t FETCH FIRST 5 ROWS ONLY");
    check("SELECT FROM t FETCH /* n */ NEXT 5 ROWS ONLY", "SELECT FROM t FETCH NEXT 5 ROWS ONLY");
    check("SELECT FROM t LIMIT 4111111111111111", "SELECT FROM t LIMIT ?");
    check("SELECT FROM t LIMIT 1e6 OFFSET a+5", "SELECT FROM t LIMIT ? OFFSET a+?");
    check("SELECT FROM t LIMIT ALL", "SELECT FROM t LIMIT ALL");
    check("SELECT first 5, NEXT 6", "SELECT first ?, NEXT ?");
}

#[test]
fn comments_go_and_white_space_becomes_one_space() {
    check("  SELECT\t1 ,\r\n 2 -- card 4111\n FROM t", "SELECT ? , ? FROM t");
    check("a/* x /* y */ 'z' */b", "a b");
    check("SELECT 1--'", "SELECT ?");
    check("SELECT a -- 'open\n= 'b'", "SELECT a = ?");
    check("/*application='api'*/ SELECT 1 /*trace='00-abc'*/", "SELECT ?");
    check("-- nothing else", "");
}

#[test]
fn what_does_not_end_takes_the_rest_along() {
    check("SELECT 'unended FROM t", "SELECT ?…");
    check("SELECT E'unended \\' FROM t", "SELECT ?…");
    check("SELECT $x$ unended $y$", "SELECT ?…");
    check("SELECT $$ unended $", "SELECT ?…");
    check(r#"SELECT "unended"#, "SELECT ?…");
    check("SELECT a /* unended /* twice */ b", "SELECT a…");
    check("SELECT X'1F", "SELECT ?…");
}

#[test]
fn where_a_string_ends_by_one_setting_and_goes_on_by_another_all_the_rest_goes() {
    // `standard_conforming_strings` decides where this one ends; nobody told us its value.
    check(r"SELECT 'it\'s secret', 'x'", "SELECT ?…");
    check(r"SELECT 'C:\', secret, 'x'", "SELECT ?…");
    check(r"SELECT 'C:\\', a, 'C:\x'", "SELECT ?, a, ?");
    check(r"SELECT E'a' 'b\'c', 5", "SELECT ? ?…");
}

#[test]
fn all_that_follows_a_password_goes() {
    check("CREATE ROLE app LOGIN PASSWORD 'x' VALID UNTIL 'y'", "CREATE ROLE app LOGIN PASSWORD ?");
    check("ALTER USER app ENCRYPTED PASSWORD hunter2", "ALTER USER app ENCRYPTED PASSWORD ?");
    check("alter role app password'x'; SELECT b", "alter role app password?");
    check("ALTER /* */ USER a WITH PASSWORD hunter2; x", "ALTER USER a WITH PASSWORD ?");
    check("CREATE USER MAPPING FOR a SERVER b OPTIONS (password x)", {
        "CREATE USER MAPPING FOR a SERVER b OPTIONS (password ?"
    });
    check("SELECT password FROM users", "SELECT password FROM users");
    check("CREATE TABLE users (password text)", "CREATE TABLE users (password text)");
}

#[test]
fn values_of_settings_go() {
    check("SET app.token = abc, def; SELECT a", "SET app.token = ?, ?; SELECT a");
    check("SET LOCAL lock_timeout TO '5s'", "SET LOCAL lock_timeout TO ?");
    check("ALTER ROLE app SET app.token TO \"abc\"", "ALTER ROLE app SET app.token TO ?");
    check("ALTER SYSTEM SET work_mem = '4MB'", "ALTER SYSTEM SET work_mem = ?");
    check("SET ROLE reader", "SET ROLE reader");
    check("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", {
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"
    });
    check("UPDATE t SET a = b", "UPDATE t SET a = b");
}

#[test]
fn what_cannot_be_seen_is_made_visible() {
    check("SELECT \u{1b}[31mred", "SELECT ?[?");
    check("SELECT \"a\u{202e}b\u{7f}\nc\"", "SELECT \"a\u{fffd}b??c\"");
    check("SELECT a\u{200b}b, \u{feff}c\u{85}", "SELECT a\u{fffd}b, \u{fffd}c\u{fffd}");
}

#[test]
fn what_is_too_long_ends_in_an_ellipsis_behind_a_whole_token() {
    let text = "SELECT amount FROM invoices WHERE customer = 'x'";
    assert_eq!(redact(text, 43), "SELECT amount FROM invoices WHERE customer…");
    assert_eq!(redact(text, 44), "SELECT amount FROM invoices WHERE customer…");
    assert_eq!(redact(text, 45), "SELECT amount FROM invoices WHERE customer =…");
    assert_eq!(redact(text, 46), "SELECT amount FROM invoices WHERE customer = ?");
    assert_eq!(redact("SELECT überweisung", 18), "SELECT überweisung");
    assert_eq!(redact("SELECT überweisung", 17), "SELECT…");
    assert_eq!(redact("SELECT 1", 1), "…");
    assert_eq!(redact("SELECT 1", 0), "");
    assert_eq!(redact(&"x".repeat(1_000_000), 80), "…");
}

#[test]
fn statements_of_real_programs_stay_readable() {
    // A migration, an ORM, a queue, a backup, a pool, and a text that the server cut.
    check(
        "UPDATE invoices SET idx = id % 97 WHERE id IN (SELECT id FROM invoices WHERE idx IS NULL \
         ORDER BY id LIMIT 50000)",
        "UPDATE invoices SET idx = id % ? WHERE id IN (SELECT id FROM invoices WHERE idx IS NULL \
         ORDER BY id LIMIT 50000)",
    );
    check(
        r#"SELECT  "users".* FROM "users" WHERE "users"."email" = 'a@b.example' LIMIT 1"#,
        r#"SELECT "users".* FROM "users" WHERE "users"."email" = ? LIMIT 1"#,
    );
    check(
        "SELECT  id, lock_version FROM \"miq_queue\" WHERE ( state = 'ready' AND priority <= 200 ) \
         FOR UPDATE SKIP LOCKED",
        "SELECT id, lock_version FROM \"miq_queue\" WHERE ( state = ? AND priority <= ? ) \
         FOR UPDATE SKIP LOCKED",
    );
    check(
        "COPY \"public\".\"field_history\" (\"id\", \"object_id\") TO stdout",
        "COPY \"public\".\"field_history\" (\"id\", \"object_id\") TO stdout",
    );
    check(
        "INSERT INTO cards (pan, cvc) VALUES ('4111111111111111', 123), ('5500000000000004', 4",
        "INSERT INTO cards (pan, cvc) VALUES (?, ?), (?, ?",
    );
    check("BEGIN;SET LOCAL jit=off;COMMIT", "BEGIN;SET LOCAL jit=?;COMMIT");
}

/// What no output may contain, in whole or in a part.
const CANARY: &str = "K7Q9Z2W8X4V6";

/// The same for numbers: too long to be a number of rows, and no part of it occurs elsewhere.
const CANARY_NUMBER: &str = "918273645546372819";

/// Well-formed text around a canary: nothing in it opens what another part closes.
const AROUND: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "FIRST",
    "SET",
    "ALTER",
    "ROLE",
    "TO",
    "=",
    ",",
    "(",
    ")",
    ";",
    "-",
    "/",
    "*",
    "::",
    "$1",
    "$",
    "?",
    "\"q\"\"uo'ted\"",
    "U&\"$$\"",
    "a$b$",
    "e",
    "x",
    "u&",
    "naïve",
    "\u{200b}",
    "\u{1}",
    "…",
    "5",
    "0x1F",
    "LIMIT 7",
    "'a''b'",
    "E'\\''",
    "$$'$$",
    "$t$ $$ ' $t$",
    "'--'",
    "/* ' /* $$ */ \" */",
    "-- it's\n",
    "U&'\\0061'",
    "X'1f'",
    "''",
    "\n",
    "ALTER ROLE a",
    "SET a.b =",
];

fn canary_in_a_literal() -> impl Strategy<Value = String> {
    let forms: Vec<(&str, &str)> = vec![
        ("'", "'"),
        ("'it''s ", "'"),
        ("'", "''x'"),
        ("E'", "'"),
        ("E'\\'", "\\\\'"),
        ("e'a''", "'"),
        ("U&'", "'"),
        ("N'", "'"),
        ("B'", "'"),
        ("X'", "'"),
        ("$$", "$$"),
        ("$$'", "'$$"),
        ("$t$", "$t$"),
        ("$é_1$ $t$ ", "$é_1$"),
        ("-- ", "\n"),
        ("/*", "*/"),
        ("/* /* */ ", " */"),
        (";ALTER USER u PASSWORD ", " "),
        (";SET a.b TO ", ";"),
        // As written for `standard_conforming_strings = off`.
        ("'\\'", "'"),
        ("'a\\\\\\'", "\\'b'"),
    ];
    let numbers: Vec<(&str, &str)> = vec![
        ("", ""),
        ("-", ""),
        ("0x", ""),
        ("1_", ""),
        ("0.", ""),
        (".", ""),
        ("1e", ""),
        ("1e-", ""),
        ("", ".5"),
        ("", "abc"),
        ("LIMIT ", ""),
        ("12", "e"),
        ("$", ""),
    ];
    let texts = prop::sample::select(forms).prop_map(|(a, b)| format!("{a}{CANARY}{b}"));
    let numbers = prop::sample::select(numbers).prop_map(|(a, b)| format!("{a}{CANARY_NUMBER}{b}"));
    prop_oneof![texts, numbers]
}

fn statement() -> impl Strategy<Value = String> {
    let around = || prop::collection::vec(prop::sample::select(AROUND), 0..8);
    (around(), canary_in_a_literal(), around())
        .prop_map(|(before, canary, after)| [before.join(" "), canary, after.join(" ")].join(" "))
}

fn shows_canary(shown: &str) -> Option<&'static str> {
    // The end of a text that was cut behind LIMIT can look like a row count, of nine digits.
    let parts = [(CANARY, 4), (CANARY_NUMBER, 10)].into_iter().flat_map(|(canary, len)| {
        (0..=canary.len() - len).map(move |start| &canary[start..start + len])
    });
    parts.into_iter().find(|part| shown.contains(part))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None,
        ..ProptestConfig::default() })]

    #[test]
    fn a_canary_in_a_literal_is_never_shown(
        text in statement(), room in 0_usize..200, cut in any::<prop::sample::Index>(),
    ) {
        prop_assert_eq!(shows_canary(&redact(&text, room)), None, "of {}", text);
        // As a server cuts it: anywhere between two characters.
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let head = &text[..ends[cut.index(ends.len())]];
        prop_assert_eq!(shows_canary(&redact(head, room)), None, "of {}", head);
    }

    #[test]
    fn what_is_shown_is_bounded_on_one_line_and_stays_the_same(
        parts in prop::collection::vec(
            prop_oneof![prop::sample::select(AROUND).prop_map(str::to_owned), any::<String>(),
                "[-'\"$eEuU&0-9.xXaA/* \\\\\n\u{1}…]{0,6}", Just(CANARY.to_owned())], 0..12),
        joint in prop::sample::select(vec!["", " "]),
        room in 0_usize..200,
    ) {
        let text = parts.join(joint);
        let shown = redact(&text, room);
        prop_assert!(shown.chars().count() <= room, "{shown}");
        prop_assert!(!shown.chars().any(char::is_control), "{shown}");
        prop_assert_eq!(redact(&shown, room), shown.clone(), "of {}", text);
        prop_assert_eq!(redact(&shown, usize::MAX), shown, "of {}", text);
    }
}
