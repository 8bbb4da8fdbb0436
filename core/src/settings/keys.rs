//! Every key that a configuration may have, found by asking the raw form itself.
//!
//! For the hints of unknown keys, for excerpts, and for the tests that compare the defaults and
//! the documentation with what is really read. There is no second list to keep in step.

use super::raw::Raw;
use super::value::MARK;

/// Deeper than any key lies; a raw form that contains itself would not end otherwise.
const MAX_DEPTH: usize = 12;

/// The paths of all keys, tables included, such as `targets[].labels.<name>`.
pub fn known_keys() -> Vec<String> {
    let mut found = Vec::new();
    explore(&mut Vec::new(), &mut found);
    found
}

/// The words that stand in the paths.
pub(super) fn known_words(paths: &[String]) -> Vec<&str> {
    let mut words: Vec<&str> = paths
        .iter()
        .flat_map(|path| path.split('.'))
        .map(|word| word.trim_end_matches("[]"))
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// A step into the raw form.
#[derive(Clone)]
enum Step {
    Key(String),
    /// A table that takes any key.
    Any,
    /// A list of tables.
    Element,
}

fn explore(steps: &mut Vec<Step>, found: &mut Vec<String>) {
    if steps.len() >= MAX_DEPTH {
        return;
    }
    let Err(said) = ask(steps) else { return };
    if said.starts_with("unknown field") {
        for key in fields(&said) {
            steps.push(Step::Key(key.to_owned()));
            found.push(path(steps));
            explore(steps, found);
            steps.pop();
        }
    } else if said.starts_with("invalid type: map, expected a sequence") {
        steps.push(Step::Element);
        if ask(steps).is_err_and(|said| said.starts_with("unknown field")) {
            explore(steps, found);
        }
        steps.pop();
    } else if said.starts_with(MARK) || said.starts_with("invalid type: integer") {
        steps.push(Step::Any);
        found.push(path(steps));
        explore(steps, found);
        steps.pop();
    }
}

/// Puts `{ "?" = 0 }` at the end of the steps and says what the raw form answers. A table with
/// keys of its own does not know `?`, a value expected no table, a table with any keys expected
/// something else than 0.
fn ask(steps: &[Step]) -> Result<(), String> {
    let mut text = "{ \"?\" = 0 }".to_owned();
    for step in steps.iter().rev() {
        text = match step {
            Step::Key(key) => format!("{{ \"{key}\" = {text} }}"),
            Step::Any => format!("{{ \"?\" = {text} }}"),
            Step::Element => format!("[{text}]"),
        };
    }
    // A document is a table without its braces.
    let document = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    Raw::of_toml(document.unwrap_or(&text)).map(drop).map_err(|error| error.message().to_owned())
}

/// The fields that serde names: what stands in backticks behind "expected".
pub(super) fn fields(said: &str) -> Vec<&str> {
    let named = said.split_once(", expected ").map_or("", |(_, named)| named);
    named.split('`').skip(1).step_by(2).collect()
}

fn path(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => {
                path.push('.');
                path.push_str(key);
            }
            Step::Any => path.push_str(".<name>"),
            Step::Element => path.push_str("[]"),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::{DEFAULTS, Layer};

    #[test]
    fn the_raw_form_names_its_keys() {
        let keys = known_keys();
        for key in [
            "instance",
            "poll.interval",
            "targets",
            "targets[].labels.<name>",
            "targets[].rules.slots.warning.for",
            "rules.role_limit.subjects.<name>.critical.above_used",
            "receivers[].rules",
            "receiver_defaults.pagerduty.region",
        ] {
            assert!(keys.iter().any(|known| known == key), "{key} is not in {keys:#?}");
        }
        assert!(known_words(&keys).contains(&"targets"));
    }

    /// The key as the documentation names it: a level's keys once, a target's rules as `[rules]`.
    fn documented_as(key: &str) -> Option<String> {
        if key.starts_with("targets[].rules.") || key.contains(".subjects.<name>.") {
            return None;
        }
        let level = key.split_once(".warning.").or_else(|| key.split_once(".critical."));
        Some(level.map_or(key, |(_, key)| key).to_owned())
    }

    fn documented_keys(text: &str) -> BTreeSet<String> {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        rows.map(|(key, _)| key.to_owned()).collect()
    }

    #[test]
    fn every_key_is_documented_and_every_documented_key_is_read() {
        let documented = documented_keys(include_str!("../../../docs/configuration.md"));
        let known = known_keys().iter().filter_map(|key| documented_as(key)).collect();
        assert_eq!(documented, known);
    }

    /// The lines that show what could be set, without the # before them.
    fn uncommented(text: &str) -> String {
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Each key is in the file of defaults, set or shown, and what is shown there can be used.
    #[test]
    fn every_key_stands_in_the_defaults() {
        let mut shown = BTreeSet::new();
        for text in halves(&uncommented(DEFAULTS)) {
            let layer = Layer::file("default.toml", &text);
            assert_eq!(layer.mistakes, [], "{text}");
            shown.extend(layer.positions.keys().filter_map(|path| {
                let path = path.replace("[0]", "[]").replace("[1]", "[]");
                let path = path.replace("labels.service", "labels.<name>");
                let path = path.replace("labels.env", "labels.<name>");
                documented_as(&subjects(&path))
            }));
        }
        let known: BTreeSet<String> =
            known_keys().iter().filter_map(|key| documented_as(key)).collect();
        let missing: Vec<_> = known.difference(&shown).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// A key can be shown twice, with another value; TOML takes it once. So the first of each in
    /// one text, and the second in another.
    fn halves(text: &str) -> [String; 2] {
        let mut halves = [String::new(), String::new()];
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            let key = line.split_once(" = ").map(|(key, _)| key);
            if line.starts_with('[') {
                seen.clear();
            }
            let half = usize::from(key.is_some_and(|key| !seen.insert(key.to_owned())));
            for (index, text) in halves.iter_mut().enumerate() {
                if key.is_none() || index == half {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        halves
    }

    /// A role's or database's name in a path becomes `<name>`.
    fn subjects(path: &str) -> String {
        let Some((rule, rest)) = path.split_once(".subjects.") else { return path.to_owned() };
        match rest.split_once('.') {
            Some((_, rest)) => format!("{rule}.subjects.<name>.{rest}"),
            None => format!("{rule}.subjects.<name>"),
        }
    }
}
