//! Names and texts as they stand in SQL, for the statements that are printed for people to run.

/// Reserved words of any major from 13 to 18, those that may be a function or a type included
/// (kwlist.h: `RESERVED_KEYWORD` and `TYPE_FUNC_NAME_KEYWORD`). As a name each must be quoted.
const RESERVED: &str = " all analyse analyze and any array as asc asymmetric authorization binary \
    both case cast check collate collation column concurrently constraint create cross \
    current_catalog current_date current_role current_schema current_time current_timestamp \
    current_user default deferrable desc distinct do else end except false fetch for foreign \
    freeze from full grant group having ilike in initially inner intersect into is isnull join \
    lateral leading left like limit localtime localtimestamp natural not notnull null offset on \
    only or order outer overlaps placing primary references returning right select session_user \
    similar some symmetric system_user table tablesample then to trailing true union unique user \
    using variadic verbose when where window with ";

/// A name, quoted where it must be.
pub(super) fn name(name: &str) -> String {
    let mut chars = name.chars();
    let begins = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let goes_on = chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    // Words that GRANT and ALTER ROLE take for somebody else.
    let is_special = ["public", "none"].contains(&name);
    if begins && goes_on && !is_special && !RESERVED.contains(&format!(" {name} ")) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, whatever `standard_conforming_strings` is.
pub(super) fn text(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        return format!("E'{}'", quoted.replace('\\', "\\\\"));
    }
    format!("'{quoted}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_must_be() {
        let names = ["plimsoll", "_a1", "user", "Plimsoll", "o\"brien", "a-b", "1a", "", "public"];
        let quoted =
            ["plimsoll", "_a1", "\"user\"", "\"Plimsoll\"", "\"o\"\"brien\"", "\"a-b\"", "\"1a\""];
        assert_eq!(names.map(name)[..7], quoted);
        assert_eq!([name(""), name("public"), name("rolé")], ["\"\"", "\"public\"", "\"rolé\""]);
    }

    #[test]
    fn texts_are_quoted() {
        assert_eq!([text("a"), text("o'b"), text("a\\'")], ["'a'", "'o''b'", "E'a\\\\'''"]);
    }
}
