//! Looks up a password in the text of a `.pgpass` (the manual, "The Password File").
//!
//! The rules are those of `passwordFromFile` in libpq's fe-connect.c. The login reads the file
//! itself, anew each time: passwords rotate.

/// Whose password is looked up.
pub(in crate::collect) struct Whose<'a> {
    pub(in crate::collect) host: &'a str,
    pub(in crate::collect) port: u16,
    pub(in crate::collect) database: &'a str,
    pub(in crate::collect) user: &'a str,
}

/// The password of the first line that is meant.
pub(in crate::collect) fn look_up(text: &[u8], whose: &Whose<'_>) -> Option<Vec<u8>> {
    let port = whose.port.to_string();
    let fields = [whose.host, &port, whose.database, whose.user];
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") {
            return None;
        }
        let rest = fields.iter().try_fold(line, |rest, field| after(rest, field.as_bytes()))?;
        Some(unescaped(rest)).filter(|password| !password.is_empty())
    })
}

/// What stands behind the first field of a line, if that field is this value or `*`.
fn after<'a>(line: &'a [u8], value: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let (mut line, mut value) = (line, value);
    loop {
        let (first, rest) = line.split_first()?;
        let (byte, rest) = match (first, rest) {
            (b':', rest) => return value.is_empty().then_some(rest),
            (b'\\', [escaped, rest @ ..]) => (escaped, rest),
            (byte, rest) => (byte, rest),
        };
        value = value.strip_prefix(&[*byte])?;
        line = rest;
    }
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter();
    let mut all = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte = if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte };
        all.push(*byte);
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let whose = Whose { host: "db", port: 5432, database: "postgres", user: "plimsoll" };
        let found = look_up(text.as_bytes(), &whose);
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text:?}");
    }

    #[test]
    fn lines_are_read_as_libpq_reads_them() {
        check("db:5432:postgres:plimsoll:secret", Some("secret"));
        check("db:5432:postgres:plimsoll:secret\r\n", Some("secret"));
        check("*:*:*:*:secret\n", Some("secret"));
        check("*:*:*:plimsoll:a\\:b\\\\c:d\n", Some("a:b\\c:d"));
        check("#*:*:*:*:no\n\n*:*:*:*:secret", Some("secret"));
        // The first that fits wins, however general it is.
        check("*:*:*:*:first\ndb:5432:postgres:plimsoll:second", Some("first"));
        check("other:*:*:*:no\ndb:*:*:*:second", Some("second"));
        check("d\\b:5432:postgres:plimsoll:secret", Some("secret"));
        // A prefix is not the whole, and a star is only alone a star.
        check("d:*:*:*:no", None);
        check("dbx:*:*:*:no", None);
        check("d*:*:*:*:no", None);
        check("DB:*:*:*:no", None);
        check(" db:*:*:*:no", None);
        check("db:5433:*:*:no", None);
        check("db:5432:postgres:plimsoll", None);
        check("*:*:*:*:", None);
        check("", None);
    }

    fn escaped(field: &str) -> String {
        field.replace('\\', "\\\\").replace(':', "\\:")
    }

    proptest! {
        /// Whatever a user, a database and a password look like, escaped they are found.
        #[test]
        fn what_is_escaped_is_found(
            [host, database, user, password] in prop::array::uniform4("[a-c:\\\\*# é]{1,8}"),
            port in 1_u16..,
        ) {
            let fields = [&host, &port.to_string(), &database, &user, &password];
            let line = fields.map(|field| escaped(field)).join(":");
            // A comment is one even where a host would begin with its sign.
            prop_assume!(!line.starts_with('#'));
            let whose = Whose { host: &host, port, database: &database, user: &user };
            let found = look_up(line.as_bytes(), &whose);
            prop_assert_eq!(found.as_deref(), Some(password.as_bytes()));
            let other = Whose { host: "other", ..whose };
            prop_assert!(look_up(line.as_bytes(), &other).is_none() || host == "*");
        }

        #[test]
        fn no_text_makes_it_fail(text in "[ab:*\\\\\n\r#]{0,60}") {
            let whose = Whose { host: "a", port: 1, database: "b", user: "a" };
            let _found = look_up(text.as_bytes(), &whose);
        }
    }
}
