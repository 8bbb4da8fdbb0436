//! Reads TOML into the raw form and finds every mistake, not only the first.
//!
//! Strictly: `true` is no number, and an unknown key is a mistake. The parser stops at the first;
//! so it is noted, its key is taken out, and the rest is read again until nothing is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::keys::{fields, known_keys, known_words};
use super::layer::Layer;
use super::mistake::{Mistake, could_be_secret, excerpt, found};
use super::place::{Lines, Origin, Place, Position, join};
use super::raw::Raw;
use super::suggest::closest;
use super::value::MARK;

/// A file with more mistakes than these is no configuration, and nobody reads on.
const MAX_MISTAKES: usize = 100;

const UNKNOWN: &str = "unknown key";

/// Hints name so many keys at most.
const MAX_KEYS_IN_A_HINT: usize = 8;

/// Reads one source.
pub(super) fn read(origin: Origin, text: &str) -> Layer {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    let has_lines = matches!(origin, Origin::File(_) | Origin::Defaults);
    let mut reader = Reader {
        text,
        lines: Lines::of(text),
        origin,
        has_lines,
        is_torn: !errors.is_empty(),
        mistakes: Vec::new(),
        spoken: BTreeSet::new(),
    };
    reader.note_syntax(&errors, table.get_mut());
    let positions = reader.positions(table.get_ref());
    let is_whole = reader.note_meaningless(&mut table);
    let Reader { origin, mistakes, spoken, is_torn, .. } = reader;
    let text = match (mistakes.is_empty(), is_whole) {
        (true, _) => text.to_owned(),
        (false, true) => written(table),
        // What is left is still not clean, and could not be merged with the other layers.
        (false, false) => String::new(),
    };
    Layer { origin, positions, spoken, uncertain: is_torn || !is_whole, mistakes, text }
}

/// What is left, as TOML again.
fn written(table: Spanned<DeTable<'_>>) -> String {
    let table = toml::Table::deserialize(Deserializer::from(table));
    table.map(|table| table.to_string()).unwrap_or_default()
}

struct Reader<'a> {
    text: &'a str,
    lines: Lines<'a>,
    origin: Origin,
    has_lines: bool,
    /// It is no valid TOML.
    is_torn: bool,
    mistakes: Vec<Mistake>,
    spoken: BTreeSet<String>,
}

/// A step from a table or list to what it holds.
#[derive(Clone)]
enum Step {
    Key(String),
    Index(usize),
}

/// One key, or one element of a list.
struct Entry {
    steps: Vec<Step>,
    path: String,
    key: Range<usize>,
    value: Range<usize>,
    kind: &'static str,
    holds_entries: bool,
}

impl Reader<'_> {
    /// The parser's own complaints, one a line; what stands on such a line is not looked at.
    fn note_syntax(&mut self, errors: &[Error], table: &mut DeTable<'_>) {
        if errors.is_empty() {
            return;
        }
        let paths = known_keys();
        let words = known_words(&paths);
        let mut broken_lines = BTreeSet::new();
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let position = self.lines.position(span.start);
            if self.mistakes.len() >= MAX_MISTAKES {
                self.give_up(span.start);
                break;
            }
            if !broken_lines.insert(position.line) {
                continue;
            }
            let mut mistake = Mistake::new("", format!("no valid TOML: {}", error.message()))
                .at(Some(self.place(span.start)));
            mistake.excerpt =
                Some(excerpt(self.lines.text(position.line), position, span.len(), &words));
            self.mistakes.push(mistake);
        }
        let broken: Vec<Entry> = entries(table)
            .into_iter()
            .filter(|entry| !entry.holds_entries && self.touches(entry, &broken_lines))
            .collect();
        for entry in broken {
            self.take_out(table, &entry.steps);
        }
    }

    fn touches(&self, entry: &Entry, lines: &BTreeSet<usize>) -> bool {
        let first = self.lines.line(entry.key.start);
        let last = self.lines.line(entry.value.end);
        lines.range(first.min(last)..=last.max(first)).next().is_some()
    }

    fn positions(&self, table: &DeTable<'_>) -> BTreeMap<String, Option<Position>> {
        let position = |byte| self.has_lines.then(|| self.lines.position(byte));
        entries(table).into_iter().map(|entry| (entry.path, position(entry.value.start))).collect()
    }

    fn place(&self, byte: usize) -> Place {
        let position = self.has_lines.then(|| self.lines.position(byte));
        Place { origin: self.origin.clone(), position }
    }

    /// Unknown keys and values that cannot be used. False if it gave up before the end.
    fn note_meaningless(&mut self, table: &mut Spanned<DeTable<'_>>) -> bool {
        if self.mistakes.len() > MAX_MISTAKES {
            return false;
        }
        while let Err(error) = Raw::deserialize(Deserializer::from(table.clone())) {
            let span = error.span().unwrap_or(0..0);
            let entries = entries(table.get_ref());
            let unknown = error.message().starts_with("unknown field");
            let at = |entry: &&Entry| if unknown { entry.key == span } else { entry.value == span };
            let Some(entry) = entries.iter().find(at) else {
                // No entry has this span: nothing could be taken out, and it would be found again.
                self.mistakes
                    .push(Mistake::new("", error.message()).at(Some(self.place(span.start))));
                return false;
            };
            let mistake = if unknown {
                self.unknown_key(entry, error.message())
            } else {
                self.useless_value(entry, error.message())
            };
            self.mistakes.push(mistake.at(Some(self.place(span.start))));
            self.take_out(table.get_mut(), &entry.steps);
            if self.mistakes.len() >= MAX_MISTAKES {
                self.give_up(span.start);
                return false;
            }
        }
        true
    }

    fn give_up(&mut self, byte: usize) {
        let message = format!("more than {MAX_MISTAKES} mistakes; the rest is not listed");
        self.mistakes.push(Mistake::new("", message).at(Some(self.place(byte))));
    }

    fn unknown_key(&mut self, entry: &Entry, said: &str) -> Mistake {
        let known = fields(said);
        let (parent, key) = split(&entry.steps);
        if let Some(meant) = closest(key, known.iter().copied()) {
            self.spoken.insert(join(&parent, meant));
            let mistake = Mistake::new(&entry.path, UNKNOWN);
            return mistake.hint(format!("did you mean `{meant}`?"));
        }
        // In a file with a broken line, the rest of a torn secret can stand where keys do.
        if self.is_torn || could_be_secret(key) {
            return Mistake::new(parent, "unknown key, not shown because it could be a secret");
        }
        let mistake = Mistake::new(&entry.path, UNKNOWN);
        let elsewhere: Vec<String> = known_keys()
            .into_iter()
            .filter(|path| path.rsplit('.').next() == Some(key))
            .take(MAX_KEYS_IN_A_HINT)
            .collect();
        match elsewhere.as_slice() {
            [only] => mistake.hint(format!("it belongs elsewhere: `{only}`")),
            _ if known.len() <= MAX_KEYS_IN_A_HINT => {
                mistake.hint(format!("known here: {}", known.join(", ")))
            }
            _ => mistake.hint("docs/configuration.md lists every key"),
        }
    }

    fn useless_value(&self, entry: &Entry, said: &str) -> Mistake {
        let key = entry.steps.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        let (expected, hint) = match said.strip_prefix(MARK) {
            Some(complaint) => complaint.split_once(MARK).unwrap_or((complaint, "")),
            None => (said.rsplit_once(", expected ").map_or(said, |(_, expected)| expected), ""),
        };
        let (expected, hint) = match (expected, entry.kind) {
            ("a table", "array") => ("a table", "write the header with single brackets"),
            ("a sequence", "table") if !self.has_lines => {
                ("a list", "give the whole list as TOML: [{ … }, { … }]")
            }
            ("a sequence", "table") => ("a list", "write each header with double brackets: [[…]]"),
            ("a sequence", "string") if key == Some("password_command") => {
                ("a list", "no shell takes it apart: [\"program\", \"argument\", …]")
            }
            ("a sequence", _) => ("a list", ""),
            ("a map", _) => ("a table", ""),
            other => (other.0, hint),
        };
        let shown = self.text.get(entry.value.clone()).unwrap_or_default();
        let found = found(key.unwrap_or_default(), entry.kind, shown);
        let mistake = Mistake::new(&entry.path, format!("expected {expected}, found {found}"));
        if hint.is_empty() { mistake } else { mistake.hint(hint) }
    }

    /// Takes a key out. An element of a list goes with the whole list: the others would move up
    /// and be called by wrong numbers.
    fn take_out(&mut self, table: &mut DeTable<'_>, steps: &[Step]) {
        let Some(last) = steps.iter().rposition(|step| matches!(step, Step::Key(_))) else {
            return;
        };
        self.spoken.insert(path_of(&steps[..=last]));
        let Some(Step::Key(first)) = steps.first() else { return };
        if last == 0 {
            table.remove(first.as_str());
            return;
        }
        let Some(mut value) = table.get_mut(first.as_str()) else { return };
        for step in &steps[1..last] {
            let next = match (step, value.get_mut()) {
                (Step::Key(key), DeValue::Table(table)) => table.get_mut(key.as_str()),
                (Step::Index(index), DeValue::Array(array)) => array.get_mut(*index),
                _ => None,
            };
            let Some(next) = next else { return };
            value = next;
        }
        if let (Step::Key(key), DeValue::Table(table)) = (&steps[last], value.get_mut()) {
            table.remove(key.as_str());
        }
    }
}

/// The path of the table around the last key, and that key.
fn split(steps: &[Step]) -> (String, &str) {
    match steps.split_last() {
        Some((Step::Key(key), parent)) => (path_of(parent), key),
        _ => (path_of(steps), ""),
    }
}

fn path_of(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |path, step| match step {
        Step::Key(key) => join(&path, key),
        Step::Index(index) => format!("{path}[{index}]"),
    })
}

/// Everything in the table at any depth, each before what it holds.
fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    walk_table(table, &mut Vec::new(), &mut entries);
    entries
}

fn walk_table(table: &DeTable<'_>, steps: &mut Vec<Step>, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        steps.push(Step::Key(key.get_ref().clone().into_owned()));
        walk_value(key.span(), value, steps, entries);
        steps.pop();
    }
}

fn walk_value(
    key: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    steps: &mut Vec<Step>,
    entries: &mut Vec<Entry>,
) {
    let holds_entries = match value.get_ref() {
        DeValue::Table(table) => !table.is_empty(),
        DeValue::Array(list) => !list.is_empty(),
        _ => false,
    };
    entries.push(Entry {
        path: path_of(steps),
        steps: steps.clone(),
        key,
        value: value.span(),
        kind: value.get_ref().type_str(),
        holds_entries,
    });
    match value.get_ref() {
        DeValue::Table(table) => walk_table(table, steps, entries),
        DeValue::Array(list) => {
            for (index, element) in list.iter().enumerate() {
                steps.push(Step::Index(index));
                walk_value(element.span(), element, steps, entries);
                steps.pop();
            }
        }
        _ => {}
    }
}
