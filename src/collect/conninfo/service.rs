//! Looks up a service in the files of libpq (the manual, "The Connection Service File").
//!
//! No error shows anything that stands in a file, nor the name that was asked for: either can be a
//! part of a password. The rules are those of `parseServiceFile` in libpq's fe-connect.c.

use plimsoll_core::settings::ServiceFile;

use super::ConnInfoError;
use super::parameters::named;

/// One line of a service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) value: String,
    /// Its line, from 1, and its file: for errors.
    pub(super) line: usize,
    pub(super) file: String,
}

/// The settings of the service of this name, in the first file that has it.
pub(super) fn find(name: &str, files: &[ServiceFile]) -> Result<Vec<Setting>, ConnInfoError> {
    let mut looked = Vec::new();
    for file in files {
        let path = file.path.display().to_string();
        match &file.text {
            Ok(Some(text)) => {
                if let Some(settings) = find_in(text.expose(), name, &path)? {
                    return Ok(settings);
                }
                looked.push(path);
            }
            Ok(None) => looked.push(format!("{path} (not there)")),
            Err(why) => {
                let said = format!("names a service, and {path}, where it may stand, {why}");
                return Err(ConnInfoError::Service(said));
            }
        }
    }
    let looked = match looked.as_slice() {
        [] => "there is no file of services".to_owned(),
        looked => format!("looked in {}", looked.join(" and ")),
    };
    Err(ConnInfoError::Service(format!("names a service that is not defined; {looked}")))
}

fn find_in(text: &str, name: &str, file: &str) -> Result<Option<Vec<Setting>>, ConnInfoError> {
    let mut found: Option<Vec<Setting>> = None;
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            let is_it = header.split_once(']').is_some_and(|(group, _)| group == name);
            found = is_it.then(Vec::new);
            continue;
        }
        let Some(settings) = &mut found else { continue };
        let wrong = |what: &str| {
            let place = format!("line {line_number} of {file}");
            ConnInfoError::Service(format!("names a service that cannot be used: {place} {what}"))
        };
        if line.starts_with("ldap") {
            return Err(wrong("looks it up in LDAP, which is not supported"));
        }
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("has no '='"))?;
        let key = match named(key) {
            Some("service" | "servicefile") => return Err(wrong("names another service")),
            Some(key) => key,
            None => return Err(wrong("sets an unknown parameter")),
        };
        // The first one wins, unlike in a connection string.
        if settings.iter().all(|setting| setting.key != key) {
            let (value, file) = (value.to_owned(), file.to_owned());
            settings.push(Setting { key, value, line: line_number, file });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use plimsoll_core::settings::Secret;
    use proptest::prelude::*;

    use super::*;

    fn file(path: &str, text: &str) -> ServiceFile {
        ServiceFile { path: path.into(), text: Ok(Some(Secret::new(text))) }
    }

    fn values(name: &str, files: &[ServiceFile]) -> String {
        match find(name, files) {
            Ok(settings) => {
                let all: Vec<String> =
                    settings.iter().map(|s| format!("{}={}", s.key, s.value)).collect();
                all.join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn services_are_read_as_libpq_reads_them() {
        let cases = [
            ("[db]\nhost=a\nport=1", "host=a port=1"),
            ("# host=no\n[other]\nhost=b\n\n  [db]  \n  host=a  \n\tport=1\r\n", "host=a port=1"),
            // The first group of the name, and the first line of a key.
            ("[db]\nhost=a\nhost=b\n[db]\nport=1", "host=a"),
            ("[db]\n[other]\nhost=b", ""),
            ("[db] and more\nhost=a", "host=a"),
            ("[db2]\nhost=b\n[db]\nhost=a", "host=a"),
            // A value may hold anything; what a file says of others is not looked at.
            ("[other]\nnonsense\n[db]\npassword=a=b #c", "password=a=b #c"),
            ("[db]\nhost=", "host="),
        ];
        for (text, expected) in cases {
            assert_eq!(values("db", &[file("/f", text)]), expected, "{text}");
        }
        let two = [file("/user", "[a]\nhost=1"), file("/system", "[a]\nhost=2\n[b]\nhost=3")];
        assert_eq!(values("a", &two), "host=1");
        assert_eq!(values("b", &two), "host=3");
    }

    #[test]
    fn what_is_wrong_is_said_by_line_and_file() {
        let cases = [
            ("[db]\nhost=a\ncanary", "line 3 of /f has no '='"),
            ("[db]\nhost = canary", "line 2 of /f sets an unknown parameter"),
            ("[db]\ncanary=1", "line 2 of /f sets an unknown parameter"),
            ("[db]\nservice=canary", "line 2 of /f names another service"),
            ("[db]\nldap://canary/", "line 2 of /f looks it up in LDAP"),
            ("[canary]\nhost=a", "is not defined; looked in /f"),
        ];
        for (text, expected) in cases {
            let said = values("db", &[file("/f", text)]);
            assert!(said.contains(expected), "{text}: {said}");
            assert!(!said.contains("canary"), "{text}: {said}");
        }
        let absent = ServiceFile { path: "/f".into(), text: Ok(None) };
        assert!(values("canary", &[absent]).ends_with("looked in /f (not there)"));
        let shut = ServiceFile { path: "/f".into(), text: Err("cannot be opened".to_owned()) };
        let said = values("canary", &[shut]);
        assert_eq!(said, "names a service, and /f, where it may stand, cannot be opened");
        assert!(values("canary", &[]).contains("there is no file of services"));
    }

    proptest! {
        /// What is written is read again; nothing of another service gets in.
        #[test]
        fn a_service_is_found_among_others(
            hosts in prop::collection::vec("[a-z=#\\[\\] ]{0,8}[a-z]", 1..6),
            wanted in 0_usize..6,
        ) {
            let service = |(index, host)| format!("[s{index}]\nhost={host}\n");
            let text = hosts.iter().enumerate().map(service).collect::<Vec<_>>().concat();
            let expected = hosts.get(wanted).map(|host| format!("host={host}"));
            let said = values(&format!("s{wanted}"), &[file("/f", &text)]);
            match expected {
                Some(expected) => prop_assert_eq!(said, expected),
                None => prop_assert!(said.contains("is not defined")),
            }
        }

        #[test]
        fn no_text_is_shown_whatever_it_is(text in "(canary|[\\[\\]=#a \n]){0,30}") {
            let said = find("a", &[file("/f", &text)]).err().map(|error| error.to_string());
            prop_assert!(!said.unwrap_or_default().contains("canary"));
        }
    }
}
