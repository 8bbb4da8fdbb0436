//! From the text of one instance to its pools: samples are looked up in the table of presets, or
//! in a mapping of the operator's own, and gathered pool by pool.
//!
//! Two exporters of one pool are not added: a preset that shows the same pools as another is left
//! out. Several processes of one instance are. Called by `collect`, which brings the text.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use super::presets::{PRESETS, Preset};
use super::{Max, Pool};
use crate::reading::exposition::{Fault, Feed, Labels, Sample, Selector, plain};

/// An application has a handful; hundreds are a label that holds something else than a pool.
pub const MAX_POOLS: usize = 256;

/// Npgsql calls a pool by its connection string; longer names are cut.
const MAX_NAME_CHARS: usize = 200;

/// Libraries that know no "unlimited" say the largest number that they have (`Integer.MAX_VALUE`
/// of Tomcat and R2DBC).
const AS_GOOD_AS_UNLIMITED: f64 = 2_147_483_647.0;

/// The number of fields.
const FIELDS: usize = 8;

/// What a metric says of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Connections that are lent out.
    InUse,
    /// Connections that are open and not lent out.
    Idle,
    /// Connections that are open; tells one of the two above where the other is known.
    Open,
    /// The most that there can be.
    Max,
    /// Who waits for one now.
    Waiting,
    /// How often somebody gave up.
    Timeouts,
    /// How often somebody had to wait.
    Waits,
    /// How long they waited, in seconds after the factor.
    WaitSeconds,
}

impl Field {
    /// Whether it says how the pool is now: such a metric shows that there is a pool.
    fn is_gauge(self) -> bool {
        matches!(self, Self::InUse | Self::Idle | Self::Open | Self::Max | Self::Waiting)
    }
}

/// Metrics of an application that no preset knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    /// The label that names the pool.
    pub pool_label: Option<String>,
    /// What each metric says.
    pub fields: Vec<(Field, Selector)>,
    /// How many seconds the unit of [`Field::WaitSeconds`] has.
    pub wait_unit_seconds: f64,
}

/// Why an answer shows no pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPools {
    /// It cannot be read.
    Unreadable(Fault),
    /// There is nothing in it.
    Empty,
    /// There is, but nothing of a pool.
    NoneAmong {
        /// How many samples there are.
        samples: u32,
    },
    /// More than [`MAX_POOLS`].
    TooMany,
}

impl fmt::Display for NoPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(fault) => write!(f, "what it shows cannot be read: {fault}"),
            Self::Empty => f.write_str("it shows no metric at all"),
            Self::NoneAmong { samples: 1 } => {
                f.write_str("it shows one sample, and that is of no connection pool")
            }
            Self::NoneAmong { samples } => {
                write!(f, "it shows {samples} samples, and none of a connection pool")
            }
            Self::TooMany => write!(f, "it shows more than {MAX_POOLS} connection pools"),
        }
    }
}

/// Which metrics are looked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    presets: Vec<Known>,
    by_name: HashMap<String, Vec<Entry>>,
}

/// A preset, or a mapping as one.
#[derive(Clone, Debug)]
struct Known {
    name: String,
    pool_labels: Vec<String>,
    hidden_by: &'static [&'static str],
}

/// What a metric says, in one preset.
#[derive(Clone, Debug)]
struct Entry {
    preset: usize,
    labels: Vec<(String, String)>,
    field: Field,
    rank: u8,
    factor: f64,
}

impl Wanted {
    /// Those of all presets: the names seen choose.
    pub fn of_all_presets() -> Self {
        Self::of_presets(PRESETS.iter())
    }

    /// Those of one preset, whatever else is shown.
    pub fn of_preset(preset: &Preset) -> Self {
        Self::of_presets(std::iter::once(preset))
    }

    /// Those of a mapping.
    pub fn of_mapping(mapping: &Mapping) -> Self {
        let mut wanted = Self { presets: Vec::new(), by_name: HashMap::new() };
        wanted.presets.push(Known {
            name: "mapping".to_owned(),
            pool_labels: mapping.pool_label.iter().map(|label| plain(label)).collect(),
            hidden_by: &[],
        });
        for (field, selector) in &mapping.fields {
            let is_time = *field == Field::WaitSeconds;
            let factor = if is_time { mapping.wait_unit_seconds } else { 1.0 };
            let labels = selector.labels.clone();
            let entry = Entry { preset: 0, labels, field: *field, rank: 0, factor };
            wanted.by_name.entry(selector.metric.clone()).or_default().push(entry);
        }
        wanted
    }

    fn of_presets<'a>(presets: impl Iterator<Item = &'a Preset>) -> Self {
        let mut wanted = Self { presets: Vec::new(), by_name: HashMap::new() };
        for (index, preset) in presets.enumerate() {
            wanted.presets.push(Known {
                name: preset.name.to_owned(),
                pool_labels: preset.pool_labels.iter().map(|label| (*label).to_owned()).collect(),
                hidden_by: preset.hidden_by,
            });
            for series in preset.series {
                let label = series.label.iter();
                let entry = Entry {
                    preset: index,
                    labels: label.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
                    field: series.field,
                    rank: series.rank,
                    factor: series.factor,
                };
                wanted.by_name.entry(series.metric.to_owned()).or_default().push(entry);
            }
        }
        wanted
    }

    fn entries(&self, name: &str) -> &[Entry] {
        let found = self.by_name.get(name);
        let found = found.or_else(|| {
            // Only names in UTF-8 have dots.
            name.contains('.').then(|| self.by_name.get(&plain(name))).flatten()
        });
        found.map_or(&[], Vec::as_slice)
    }
}

/// The answer of one instance while it is read.
#[derive(Debug)]
pub struct Scrape<'a> {
    feed: Feed,
    gathered: Gathered<'a>,
}

impl<'a> Scrape<'a> {
    /// Nothing was read yet.
    pub fn new(wanted: &'a Wanted) -> Self {
        let gathered = Gathered { wanted, pools: Vec::new(), too_many: false };
        Self { feed: Feed::new(), gathered }
    }

    /// Takes the next piece of the answer.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), NoPools> {
        let gathered = &mut self.gathered;
        let pushed = self.feed.push(piece, &mut |sample| gathered.take(sample));
        if gathered.too_many {
            return Err(NoPools::TooMany);
        }
        pushed.map_err(NoPools::Unreadable)
    }

    /// The pools, when all of the answer was taken; ordered by preset and name. OpenMetrics says
    /// itself where it ends.
    pub fn finish(self, is_openmetrics: bool) -> Result<Vec<Pool>, NoPools> {
        let Self { feed, mut gathered } = self;
        let samples = feed.finish(is_openmetrics, &mut |sample| gathered.take(sample));
        if gathered.too_many {
            return Err(NoPools::TooMany);
        }
        let samples = samples.map_err(NoPools::Unreadable)?;
        let pools = gathered.pools();
        match (samples, pools.is_empty()) {
            (0, _) => Err(NoPools::Empty),
            (_, true) => Err(NoPools::NoneAmong { samples }),
            (_, false) => Ok(pools),
        }
    }
}

/// What is known of the pools so far.
#[derive(Debug)]
struct Gathered<'a> {
    wanted: &'a Wanted,
    pools: Vec<Found>,
    too_many: bool,
}

/// One pool.
#[derive(Debug)]
struct Found {
    preset: usize,
    key: Key,
    /// A rank and a sum for each field.
    values: [Option<(u8, f64)>; FIELDS],
    /// Whether one of its gauges was shown, if only as NaN.
    is_shown: bool,
}

/// What tells a pool from others of its preset.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    /// Its name.
    Name(String),
    /// It has none: all labels that are not about something else.
    Labels(Vec<(String, String)>),
}

impl Gathered<'_> {
    fn take(&mut self, sample: &Sample<'_>) -> Result<(), &'static str> {
        let entries = self.wanted.entries(sample.name());
        if entries.is_empty() {
            return Ok(());
        }
        let (labels, value) = sample.read()?;
        for entry in entries.iter().filter(|entry| has(&labels, &entry.labels)) {
            let key = key(&labels, &self.wanted.presets[entry.preset], entry);
            let Some(found) = self.found(entry.preset, key) else { break };
            found.take(entry, value);
        }
        Ok(())
    }

    fn found(&mut self, preset: usize, key: Key) -> Option<&mut Found> {
        let known = self.pools.iter().position(|p| p.preset == preset && p.key == key);
        let index = known.unwrap_or(self.pools.len());
        if known.is_none() {
            if self.pools.len() == MAX_POOLS {
                self.too_many = true;
                return None;
            }
            self.pools.push(Found { preset, key, values: [None; FIELDS], is_shown: false });
        }
        self.pools.get_mut(index)
    }

    fn pools(&mut self) -> Vec<Pool> {
        // A counter alone shows no pool.
        self.pools.retain(|found| found.is_shown);
        let seen: BTreeSet<&str> = self
            .pools
            .iter()
            .map(|found| self.wanted.presets[found.preset].name.as_str())
            .collect();
        let is_hidden = |known: &Known| known.hidden_by.iter().any(|preset| seen.contains(preset));
        let shown: Vec<&Found> = self
            .pools
            .iter()
            .filter(|found| !is_hidden(&self.wanted.presets[found.preset]))
            .collect();
        let name = |found: &Found| match &found.key {
            Key::Name(name) => shown_name(name),
            Key::Labels(labels) => {
                let beside = shown.iter().filter(|other| other.preset == found.preset);
                shown_name(&what_differs(labels, &beside.map(|other| &other.key)))
            }
        };
        let mut pools: Vec<Pool> = shown
            .iter()
            .map(|found| found.pool(name(found), &self.wanted.presets[found.preset].name))
            .collect();
        pools.sort_by(|a, b| (&a.preset, &a.name).cmp(&(&b.preset, &b.name)));
        pools
    }
}

impl Found {
    fn take(&mut self, entry: &Entry, value: f64) {
        self.is_shown |= entry.field.is_gauge();
        let value = match entry.field {
            Field::Max if value <= 0.0 || value >= AS_GOOD_AS_UNLIMITED => f64::INFINITY,
            // What is below zero or no number at all was not counted right: missing beats wrong.
            Field::Max | Field::WaitSeconds if value >= 0.0 => value * entry.factor,
            _ if value >= 0.0 && value.is_finite() => value,
            _ => return,
        };
        let slot = &mut self.values[entry.field as usize];
        *slot = match *slot {
            Some((rank, _)) if rank < entry.rank => return,
            Some((rank, sum)) if rank == entry.rank => Some((rank, sum + value)),
            _ => Some((entry.rank, value)),
        };
    }

    fn pool(&self, name: String, preset: &str) -> Pool {
        let value = |field: Field| self.values[field as usize].map(|(_, value)| value);
        let count = |field| value(field).map(|value| value.round() as u32);
        let total = |field| value(field).map(|value| value.round() as u64);
        let (in_use, idle) = (count(Field::InUse), count(Field::Idle));
        let open = count(Field::Open);
        // The two numbers are not of one instant: what is left over may be less than nothing.
        let rest = |of: Option<u32>| open.zip(of).map(|(open, of)| open.saturating_sub(of));
        Pool {
            name,
            preset: preset.to_owned(),
            in_use: in_use.or_else(|| rest(idle)),
            idle: idle.or_else(|| rest(in_use)),
            max: match value(Field::Max) {
                None => Max::Unknown,
                Some(max) if max.is_finite() => Max::Of(max.round() as u32),
                Some(_) => Max::Unlimited,
            },
            waiting: count(Field::Waiting),
            timeouts_total: total(Field::Timeouts),
            waits_total: total(Field::Waits),
            wait_seconds_total: value(Field::WaitSeconds).filter(|seconds| seconds.is_finite()),
        }
    }
}

/// Whether a sample has these labels.
fn has(labels: &Labels<'_>, expected: &[(String, String)]) -> bool {
    expected.iter().all(|(name, value)| label(labels, name) == Some(value.as_str()))
}

fn label<'a>(labels: &'a Labels<'_>, name: &str) -> Option<&'a str> {
    let is_it = |found: &str| {
        found.len() == name.len()
            && found.bytes().zip(name.bytes()).all(|(f, n)| f == n || (f == b'.' && n == b'_'))
    };
    labels.iter().find(|(found, _)| is_it(found)).map(|(_, value)| value.as_ref())
}

fn key(labels: &Labels<'_>, known: &Known, entry: &Entry) -> Key {
    let named = known.pool_labels.iter().find_map(|name| label(labels, name));
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return Key::Name(name.to_owned());
    }
    let is_about_the_pool = |name: &str| {
        let is_of_the_entry = entry.labels.iter().any(|(of_entry, _)| of_entry == name);
        !is_of_the_entry && !is_about_something_else(name)
    };
    let mut rest: Vec<(String, String)> = labels
        .iter()
        .map(|(name, value)| (plain(name), value.as_ref().to_owned()))
        .filter(|(name, _)| is_about_the_pool(name))
        .collect();
    rest.sort();
    Key::Labels(rest)
}

/// Labels that tell processes of an instance apart, or say who measured, or of which part of a
/// histogram a sample is.
fn is_about_something_else(name: &str) -> bool {
    matches!(name, "pid" | "hostname" | "le" | "quantile") || name.starts_with("otel_scope_")
}

/// Of the labels of a pool without a name, those that others of its kind have otherwise.
fn what_differs<'a>(
    labels: &[(String, String)],
    others: &(impl Iterator<Item = &'a Key> + Clone),
) -> String {
    let is_shared = |one: &(String, String)| {
        others.clone().all(|other| match other {
            Key::Labels(labels) => labels.contains(one),
            Key::Name(_) => true,
        })
    };
    let differing = labels.iter().filter(|one| !is_shared(one));
    differing.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

/// A name that can be shown: one line of bounded length, without a password if it is a connection
/// string.
fn shown_name(name: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let shown: String = name.chars().map(plain).collect();
    let mut shown = without_password(&shown);
    if let Some((cut, _)) = shown.char_indices().nth(MAX_NAME_CHARS) {
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

/// `Host=db;Password=x;…` as Npgsql has it, and `postgresql://user:x@db/…`. What follows a password
/// is left out with it: nobody can say where one ends.
fn without_password(name: &str) -> String {
    if let Some(scheme) = name.find("://")
        && let Some(at) = name.rfind('@').filter(|at| *at > scheme)
    {
        return format!("{}://***{}", &name[..scheme], without_value(&name[at..]));
    }
    without_value(name)
}

/// The same of `password=` and its like, wherever the first of them stands.
fn without_value(name: &str) -> String {
    // ASCII alone, so that positions in one are positions in the other.
    let lower = name.to_ascii_lowercase();
    let ends = ["password", "passwd", "pwd", "psw"].iter().flat_map(|key| {
        let ends = lower.match_indices(key).map(|(at, key)| at + key.len());
        ends.filter(|end| lower[*end..].trim_start().starts_with('='))
    });
    ends.min().map_or_else(|| name.to_owned(), |end| format!("{}=***", &name[..end]))
}

#[cfg(test)]
mod tests;
