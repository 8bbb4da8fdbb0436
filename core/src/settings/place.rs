//! Where something was written: a line of a file, a variable, a flag.
//!
//! A layer knows the place of each of its keys; [`Places`] lays those over each other as the
//! layers themselves are merged, so that a mistake in the merged form still names its line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::layer::Layer;

/// What a layer was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The defaults, embedded in the program.
    Defaults,
    /// A file, by the name under which it was asked for.
    File(String),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("config/default.toml"),
            Self::File(name) | Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A line and a column, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A text by its lines, to find the position of any byte of it.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
    /// Then columns are bytes, and need not be counted.
    is_ascii: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let newlines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        let starts = std::iter::once(0).chain(newlines).collect();
        Self { text, starts, is_ascii: text.is_ascii() }
    }

    /// The line of a byte, counted from 1.
    pub(super) fn line(&self, byte: usize) -> usize {
        self.starts.partition_point(|start| *start <= byte)
    }

    pub(super) fn position(&self, byte: usize) -> Position {
        let line = self.line(byte);
        let start = self.starts[line - 1];
        let before = self.text.get(start..byte).unwrap_or_default();
        let column = if self.is_ascii { before.len() } else { before.chars().count() };
        Position { line, column: column + 1 }
    }

    /// The text of a line, without its end.
    pub(super) fn text(&self, line: usize) -> &'a str {
        let start = self.starts.get(line - 1).copied().unwrap_or(self.text.len());
        self.text[start..].lines().next().unwrap_or_default()
    }
}

/// Where a key or a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// In what.
    pub origin: Origin,
    /// Where in it; variables and flags have no lines.
    pub position: Option<Position>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(Position { line, column }) => write!(f, "{}:{line}:{column}", self.origin),
            None => write!(f, "{}", self.origin),
        }
    }
}

/// The places of all keys of the merged form.
#[derive(Default)]
pub(super) struct Places {
    by_path: BTreeMap<String, (usize, Place)>,
    /// Paths that a mistake was already noted for.
    spoken: Vec<String>,
    /// Some layer could not be read whole: what is missing may stand in the rest.
    uncertain: bool,
}

impl Places {
    /// Lays the places of the layers over each other, the later ones above.
    pub(super) fn of(layers: &[Layer]) -> Self {
        let mut places = Self::default();
        for (order, layer) in layers.iter().enumerate() {
            places.lay(order, layer);
        }
        places
    }

    fn lay(&mut self, order: usize, layer: &Layer) {
        for (path, position) in &layer.positions {
            // A list replaces the list below it, so nothing of that one is left to be named.
            let elements = format!("{path}[");
            let below = self.by_path.range(elements.clone()..);
            let replaced: Vec<String> = below
                .take_while(|(below, _)| below.starts_with(&elements))
                .filter(|(_, (below, _))| *below != order)
                .map(|(below, _)| below.clone())
                .collect();
            for path in replaced {
                self.by_path.remove(&path);
            }
            let place = Place { origin: layer.origin.clone(), position: *position };
            self.by_path.insert(path.clone(), (order, place));
        }
        self.spoken.extend(layer.spoken.iter().cloned());
        self.uncertain |= layer.uncertain;
    }

    /// The place of a key, or of the nearest thing around it that was written.
    pub(super) fn find(&self, path: &str) -> Option<&Place> {
        let mut path = path;
        loop {
            if let Some((_, place)) = self.by_path.get(path) {
                return Some(place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Which layer a key comes from; the later ones win.
    pub(super) fn order(&self, path: &str) -> Option<usize> {
        self.by_path.get(path).map(|(order, _)| *order)
    }

    /// True if it was written in the defaults and nowhere else.
    pub(super) fn is_default(&self, path: &str) -> bool {
        self.find(path).is_some_and(|place| place.origin == Origin::Defaults)
    }

    /// True if a key may be missing only because a mistake was noted in its stead.
    pub(super) fn was_spoken_of(&self, path: &str) -> bool {
        self.uncertain
            || self.spoken.iter().any(|spoken| {
                path == spoken
                    || path.strip_prefix(spoken.as_str()).is_some_and(|rest| rest.starts_with('.'))
                    || path.strip_prefix(spoken.as_str()).is_some_and(|rest| rest.starts_with('['))
            })
    }

    /// A path as it was written, which is relative to the folder of the file that it stands in.
    pub(super) fn resolve(&self, path_of_key: &str, written: &Path) -> PathBuf {
        match self.find(path_of_key).map(|place| &place.origin) {
            Some(Origin::File(name)) => match Path::new(name).parent() {
                Some(folder) => folder.join(written),
                None => written.to_owned(),
            },
            _ => written.to_owned(),
        }
    }
}

/// The path of a key under that of its table.
pub(super) fn join(parent: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let key = if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        format!("\"{}\"", key.escape_debug())
    };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}
