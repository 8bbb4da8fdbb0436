//! The words that a server puts before a message, in each language that it speaks.
//!
//! csvlog and stderr translate them (`error_severity` and `send_message_to_server_log` in elog.c);
//! jsonlog does not. Source: the message catalogues that PostgreSQL 15 brings for its twelve
//! languages; where a language keeps the English word, it stands here once.

use super::entry::{Field, Severity};

const SEVERITIES: [(Severity, &[&str]); 5] = [
    (Severity::Log, &["LOG", "ჟურნალი", "로그", "СООБЩЕНИЕ", "LOGG", "ЗАПИСУВАННЯ", "日志"]),
    (
        Severity::Error,
        &[
            "ERROR",
            "FEHLER",
            "ERREUR",
            "ERRORE",
            "შეცდომა",
            "오류",
            "ОШИБКА",
            "FEL",
            "ПОМИЛКА",
            "错误",
        ],
    ),
    (
        Severity::Fatal,
        &["FATAL", "FATALE", "ფატალური", "치명적오류", "ВАЖНО", "FATALT", "ФАТАЛЬНО", "致命错误"],
    ),
    (
        Severity::Panic,
        &[
            "PANIC",
            "PANIK",
            "PANICO",
            "პანიკა",
            "손상",
            "ПАНИКА",
            "ПАНІКА",
            "比致命错误还过分的错误",
        ],
    ),
    (
        Severity::Other,
        &[
            "WARNING",
            "NOTICE",
            "INFO",
            "DEBUG",
            "DEBUG1",
            "DEBUG2",
            "DEBUG3",
            "DEBUG4",
            "DEBUG5",
            "WARNUNG",
            "HINWEIS",
            "ATTENTION",
            "ATTENZIONE",
            "NOTIFICA",
            "გაფრთხილება",
            "ინფორმაცია",
            "გამართვა",
            "경고",
            "알림",
            "정보",
            "디버그",
            "ПРЕДУПРЕЖДЕНИЕ",
            "ЗАМЕЧАНИЕ",
            "ИНФОРМАЦИЯ",
            "ОТЛАДКА",
            "VARNING",
            "NOTIS",
            "ПОПЕРЕДЖЕННЯ",
            "ПОВІДОМЛЕННЯ",
            "ІНФОРМАЦІЯ",
            "НАЛАГОДЖЕННЯ",
            "警告",
            "注意",
            "信息",
            "调试",
        ],
    ),
];

/// What stands before the lines that follow the first of an entry in stderr, and whether such a
/// line is looked at.
const PARTS: [(Option<Field>, &[&str]); 2] = [
    (
        Some(Field::Detail),
        &[
            "DETAIL",
            "DETALLE",
            "DÉTAIL",
            "DETTAGLI",
            "詳細",
            "დეტალები",
            "상세정보",
            "ПОДРОБНОСТИ",
            "DETALJ",
            "ВІДОМОСТІ",
            "详细信息",
        ],
    ),
    (
        None,
        &[
            "HINT",
            "QUERY",
            "CONTEXT",
            "STATEMENT",
            "BACKTRACE",
            "TIPP",
            "ANFRAGE",
            "ZUSAMMENHANG",
            "ANWEISUNG",
            "CONSULTA",
            "CONTEXTO",
            "SENTENCIA",
            "ASTUCE",
            "REQUÊTE",
            "CONTEXTE",
            "INSTRUCTION",
            "PILE D'APPEL",
            "SUGGERIMENTO",
            "CONTESTO",
            "ISTRUZIONE",
            "ヒント",
            "問い合わせ",
            "文脈",
            "文",
            "バックトレース",
            "მინიშნება",
            "მოთხოვნა",
            "კონტექსტი",
            "ოპერატორი",
            "სტეკი",
            "힌트",
            "쿼리",
            "내용",
            "명령 구문",
            "역추적",
            "ПОДСКАЗКА",
            "ЗАПРОС",
            "КОНТЕКСТ",
            "ОПЕРАТОР",
            "СТЕК",
            "TIPS",
            "FRÅGA",
            "KONTEXT",
            "SATS",
            "УКАЗІВКА",
            "ЗАПИТ",
            "ІНСТРУКЦІЯ",
            "ВІДСТЕЖУВАТИ",
            "提示",
            "查询",
            "上下文",
            "语句",
        ],
    ),
];

/// Longer than any of the words, in bytes, with what follows them.
const LONGEST: usize = 64;

/// The severity that a word stands for.
pub(super) fn severity(word: &str) -> Option<Severity> {
    let found = SEVERITIES.iter().find(|(_, words)| words.contains(&word));
    found.map(|(severity, _)| *severity)
}

/// Where a text begins with a severity: its word, and the message. In every language `: ` and a
/// second space follow.
pub(super) fn opening(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(":  ")?;
    severity(word).map(|_| (word, rest))
}

/// Where a text begins like a later line of an entry: what field that is, if it is looked at, and
/// what stands there.
pub(super) fn part(text: &str) -> Option<(Option<Field>, &str)> {
    let (label, rest) = text.split_once(':')?;
    if LONGEST < label.len() {
        return None;
    }
    let rest = rest.trim_start_matches(' ');
    // French puts a space before its colons.
    let label = label.trim_end();
    match PARTS.iter().find(|(_, labels)| labels.contains(&label)) {
        Some((field, _)) => Some((*field, rest)),
        None => is_location(rest).then_some((Some(Field::Routine), rest)),
    }
}

/// `InitProcess, proc.c:357`, which is in no language.
fn is_location(text: &str) -> bool {
    let Some((function, place)) = text.split_once(", ") else { return false };
    let Some((file, line)) = place.split_once(':') else { return false };
    let is_name = |name: &str, also: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
        !name.is_empty() && name.len() < LONGEST && name.chars().all(is_part)
    };
    is_name(function, "_")
        && is_name(file, "_-./")
        && file.contains('.')
        && !line.is_empty()
        && line.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_means_two_things() {
        let words: Vec<&str> =
            SEVERITIES.iter().flat_map(|(_, words)| words.iter().copied()).collect();
        let parts: Vec<&str> = PARTS.iter().flat_map(|(_, words)| words.iter().copied()).collect();
        let all: std::collections::BTreeSet<&str> = words.iter().chain(&parts).copied().collect();
        assert_eq!(all.len(), words.len() + parts.len());
        assert!(all.iter().all(|word| word.len() < LONGEST));
    }

    #[test]
    fn lines_open_in_many_languages() {
        let cases = [
            ("FATAL:  sorry", Some(("FATAL", "sorry"))),
            ("FEHLER:  Verklemmung", Some(("FEHLER", "Verklemmung"))),
            ("错误:  :  x", Some(("错误", ":  x"))),
            ("ERROR: one space", None),
            ("archive:  failed", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(opening(text), expected, "{text}");
        }
    }

    #[test]
    fn later_lines_are_told_apart() {
        let routine = Some(Field::Routine);
        let cases = [
            ("DETAIL:  Process 1", Some((Some(Field::Detail), "Process 1"))),
            ("ASTUCE :  x", Some((None, "x"))),
            ("쿼리:SELECT 1", Some((None, "SELECT 1"))),
            ("LOCATION:  InitProcess, proc.c:357", Some((routine, "InitProcess, proc.c:357"))),
            (
                "ORT:  DeadLockReport, deadlock.c:1130",
                Some((routine, "DeadLockReport, deadlock.c:1130")),
            ),
            ("some program: x", None),
            ("nothing", None),
        ];
        for (text, expected) in cases {
            assert_eq!(part(text), expected, "{text}");
        }
    }
}
