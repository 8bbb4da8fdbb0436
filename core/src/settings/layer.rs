//! One layer of a configuration, read strictly: the defaults, a file, a variable, a flag.
//!
//! `load` makes one of everything that it finds, in order, and merges their texts. The reading
//! itself is `strict`'s.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeValue;

use super::keys::known_keys;
use super::mistake::Mistake;
use super::place::{Origin, Place, Position};
use super::{Secret, strict};

/// What the environment variables of a configuration begin with.
const PREFIX: &str = "PLIMSOLL_";

/// Stands between the parts of a path in a variable's name.
const SEPARATOR: &str = "__";

/// What one source says, as far as it can be used.
pub struct Layer {
    pub(super) origin: Origin,
    /// Where each key stands.
    pub(super) positions: BTreeMap<String, Option<Position>>,
    /// Keys that were taken out, and keys that were probably meant by them.
    pub(super) spoken: BTreeSet<String>,
    /// It is not even TOML: something may be lost.
    pub(super) uncertain: bool,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) text: String,
}

impl Layer {
    /// The defaults.
    pub fn defaults() -> Self {
        Self::read(Origin::Defaults, super::DEFAULTS)
    }

    /// A file, by the name under which it was asked for.
    pub fn file(name: &str, text: &str) -> Self {
        Self::read(Origin::File(name.to_owned()), text)
    }

    /// A file that could not be read, and why.
    pub fn unreadable_file(name: &str, why: &str) -> Self {
        let origin = Origin::File(name.to_owned());
        let mut layer = Self::read(origin.clone(), "");
        let place = Place { origin, position: None };
        layer.uncertain = true;
        layer.mistakes.push(Mistake::new("", why).at(Some(place)));
        layer
    }

    /// An environment variable: `PLIMSOLL_POLL__INTERVAL` is `poll.interval`. `None` if it is not
    /// ours: Kubernetes sets `PLIMSOLL_PORT` and the like for a service called plimsoll.
    pub fn variable(name: &str, value: &str) -> Option<Self> {
        let path = name.strip_prefix(PREFIX)?.to_lowercase();
        let parts: Vec<&str> = path.split(SEPARATOR).collect();
        if parts.len() == 1 && !known_keys().contains(&path) {
            return None;
        }
        Some(Self::setting(Origin::Variable(name.to_owned()), &parts, value))
    }

    /// A flag that sets one key.
    pub fn flag(flag: &str, path: &[&str], value: &str) -> Self {
        Self::setting(Origin::Flag(flag.to_owned()), path, value)
    }

    /// Targets of which only the address is given, by `--postgres` or `DATABASE_URL`.
    pub fn addresses(origin: Origin, addresses: &[Secret]) -> Self {
        let targets: Vec<String> = addresses
            .iter()
            .map(|url| format!("{{ postgres = {} }}", quoted(url.expose())))
            .collect();
        Self::read(origin, &format!("targets = [{}]", targets.join(", ")))
    }

    /// The layer as TOML, without what was wrong in it. May hold secrets.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// One key with a value that is text where the key takes text, and else TOML.
    fn setting(origin: Origin, path: &[&str], value: &str) -> Self {
        let key = path.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".");
        let as_text = Self::read(origin.clone(), &format!("{key} = {}", quoted(value)));
        if as_text.mistakes.is_empty() || DeValue::parse(value).is_err() {
            return as_text;
        }
        Self::read(origin, &format!("{key} = {value}"))
    }

    fn read(origin: Origin, text: &str) -> Self {
        strict::read(origin, text)
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
