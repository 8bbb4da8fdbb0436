//! Families of metrics and the sheet on which one answer is written.
//!
//! Everything that must hold for every series is here: labels as the family names them, values of
//! labels that cannot harm a reader, no series twice, and no more than fit.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::health::Histogram;
use crate::serve::limits::{MAX_LABEL_CHARS, MAX_SERIES};

/// A family: one name, one meaning, one set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub(super) const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

pub(super) const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

pub(super) const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

const SERIES_LEFT_OUT: Family = gauge(
    "plimsoll_series_left_out",
    &["family"],
    "Series of a family that this answer has no room for, or that it sums in one named other.",
);

/// Between the values of labels in the key of a series. No printable value holds it, and it comes
/// before all that they hold, so that keys have the order of their values.
pub(super) const BETWEEN: char = '\n';

/// One answer, while it is written.
#[derive(Default)]
pub(super) struct Sheet {
    families: BTreeMap<&'static str, (Family, BTreeMap<String, Value>)>,
    left_out: BTreeMap<&'static str, u64>,
    series: usize,
}

/// The value of one series.
pub(super) enum Value {
    Number(f64),
    Histogram(Box<Histogram>),
}

impl Sheet {
    /// Adds to a series, with the values of its labels in the order of the family's: two names
    /// that print alike are one series with the sum of both.
    pub(super) fn add(&mut self, family: &Family, labels: &[&str], number: f64) {
        if let Some(Value::Number(sum)) = self.series(family, labels, || Value::Number(0.0)) {
            *sum += number;
        }
    }

    /// Adds a histogram.
    pub(super) fn observe(&mut self, family: &Family, labels: &[&str], seen: &Histogram) {
        self.series(family, labels, || Value::Histogram(Box::new(seen.clone())));
    }

    /// Counts series of a family that were not written.
    pub(super) fn left_out(&mut self, family: &Family, series: usize) {
        if series > 0 {
            *self.left_out.entry(family.name).or_default() += series as u64;
        }
    }

    fn series(
        &mut self,
        family: &Family,
        labels: &[&str],
        new: impl FnOnce() -> Value,
    ) -> Option<&mut Value> {
        debug_assert_eq!(family.labels.len(), labels.len(), "labels of {}", family.name);
        let length = labels.iter().map(|value| value.len() + 1).sum();
        let mut key = String::with_capacity(length);
        for value in labels {
            key.push_str(&printable(value, MAX_LABEL_CHARS));
            key.push(BETWEEN);
        }
        let (known, series) =
            self.families.entry(family.name).or_insert_with(|| (*family, BTreeMap::new()));
        debug_assert_eq!(known, family, "two families are named {}", family.name);
        match series.entry(key) {
            Entry::Occupied(series) => Some(series.into_mut()),
            Entry::Vacant(_) if self.series >= MAX_SERIES => {
                *self.left_out.entry(family.name).or_default() += 1;
                None
            }
            Entry::Vacant(series) => {
                self.series += 1;
                Some(series.insert(new()))
            }
        }
    }

    /// Everything that was written, by the names of the families and the keys of their series.
    pub(super) fn into_families(
        mut self,
    ) -> impl Iterator<Item = (Family, BTreeMap<String, Value>)> {
        // Of each family at most one, so it needs no room of its own.
        self.series = 0;
        for (family, series) in std::mem::take(&mut self.left_out) {
            self.add(&SERIES_LEFT_OUT, &[family], series as f64);
        }
        self.families.into_values().filter(|(_, all)| !all.is_empty())
    }
}

/// Text that shows as it is: what steers a terminal, breaks a line or turns the reading direction
/// is written as its code, and all beyond `most` characters is cut.
pub(in crate::serve) fn printable(text: &str, most: usize) -> Cow<'_, str> {
    // Nearly every name is of this kind, and there are thousands of them.
    let is_plain = text.len() <= most && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_plain || text.chars().nth(most).is_none() && !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::new();
    let mut room = most;
    for character in text.chars() {
        let shown = if is_harmful(character) {
            format!("\\u{{{:x}}}", u32::from(character))
        } else {
            character.to_string()
        };
        let chars = shown.chars().count();
        if chars >= room {
            printable.push('…');
            break;
        }
        room -= chars;
        printable.push_str(&shown);
    }
    Cow::Owned(printable)
}

fn is_harmful(character: char) -> bool {
    let unseen = matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    character.is_control() || unseen
}
