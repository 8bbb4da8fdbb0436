//! The meaning of a configuration: from the merged raw form to settings that can be used, or
//! every mistake in it.
//!
//! What stands in secret files and what an address means to the Postgres driver comes in with
//! [`Outside`]; nothing here reads anything. Called by `load`.

mod app_pools;
mod kinds;
mod log;
mod logins;
mod pool_rules;
mod poolers;
mod probes;
mod receivers;
mod rules;
mod targets;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::layer::Layer;
use super::mistake::Mistake;
use super::place::{Origin, Places};
use super::raw::Raw;
use super::value::{Table, Val};
use super::{PollSettings, Secret, ServerSettings, Settings, Surroundings};
use crate::judge::MAX_SERVED_BY_ONE_READING;
use crate::judge::rule::RuleSet;

/// What a configuration refers to and does not hold.
pub struct Outside<'a> {
    /// What stands in each file of [`secret_files`], or why it cannot be used.
    pub secrets: BTreeMap<PathBuf, Result<Secret, String>>,
    /// Says what the driver makes of an address among its surroundings; the error must hold
    /// nothing secret. A line of it that begins with `hint: ` is shown as the hint.
    pub parse_postgres: &'a dyn Fn(&Secret, &Surroundings) -> Result<ParsedTarget, String>,
    /// What addresses leave out; kept for those who take them apart again.
    pub surroundings: Surroundings,
    /// The state folder of this user on this machine.
    pub state_dir: Option<PathBuf>,
}

/// What is taken from an address of a Postgres server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedTarget {
    /// What the target is called if it has no name: its host.
    pub default_name: String,
    /// Who logs in, if the address or its surroundings say so.
    pub user: Option<String>,
}

/// Faster than this the tick is a slip of the unit: a poll takes milliseconds.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// A receiver that is told more often than this is told nothing new.
const MIN_REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Waiting longer than this for one answer is waiting for a dead peer.
const MAX_TIMEOUT: Duration = Duration::from_mins(5);

/// Checks the merged form of the layers, the first of which is [`Layer::defaults`].
pub fn check(raw: &Raw, layers: &[Layer], outside: &Outside<'_>) -> Result<Settings, Vec<Mistake>> {
    let mut checker = Checker { places: Places::of(layers), outside, mistakes: Vec::new() };
    let settings = checker.settings(raw);
    let mut mistakes: Vec<Mistake> =
        layers.iter().flat_map(|layer| layer.mistakes.iter().cloned()).collect();
    mistakes.append(&mut checker.mistakes);
    match settings {
        Some(settings) if mistakes.is_empty() => Ok(settings),
        _ => {
            sort(&mut mistakes, layers);
            Err(mistakes)
        }
    }
}

/// The files whose content [`check()`] needs, as paths that can be opened.
pub fn secret_files(raw: &Raw, layers: &[Layer]) -> Vec<PathBuf> {
    let places = Places::of(layers);
    let mut files = targets::secret_files(raw);
    files.extend(logins::secret_files(raw));
    files.extend(receivers::secret_files(raw));
    files.extend(app_pools::secret_files(raw));
    files.into_iter().map(|(path, file)| places.resolve(&path, &file)).collect()
}

/// The rules of a target for which nothing was set, as everyone has them.
///
/// # Panics
/// Never: the defaults are part of the program, and a test reads them.
pub fn default_rules() -> RuleSet {
    let layers = [Layer::defaults()];
    let raw = Raw::of_toml(layers[0].text()).expect("the embedded defaults are read by a test");
    let outside = Outside {
        secrets: BTreeMap::new(),
        parse_postgres: &|_, _| Err(String::new()),
        surroundings: Surroundings::default(),
        state_dir: None,
    };
    let mut checker =
        Checker { places: Places::of(&layers), outside: &outside, mistakes: Vec::new() };
    checker.rules(&raw, None).expect("the embedded defaults are checked by a test")
}

/// By layer, line and column; what stands nowhere comes last.
fn sort(mistakes: &mut [Mistake], layers: &[Layer]) {
    let order = |origin: &Origin| layers.iter().position(|layer| layer.origin == *origin);
    mistakes.sort_by_key(|mistake| match &mistake.place {
        Some(place) => (order(&place.origin).unwrap_or(usize::MAX), place.position),
        None => (usize::MAX, None),
    });
}

/// What was made of a part of the configuration; `None` if a mistake in it was noted.
type Checked<T> = Option<T>;

/// Gathers mistakes while settings are made.
struct Checker<'a> {
    places: Places,
    outside: &'a Outside<'a>,
    mistakes: Vec<Mistake>,
}

impl Checker<'_> {
    fn settings(&mut self, raw: &Raw) -> Option<Settings> {
        let state_dir = self.state_dir(raw);
        let server = self.server(raw);
        let poll = self.poll(raw);
        // Judged even if there is no target, so that mistakes in them are listed too.
        let rules = self.rules(raw, None);
        self.app_pool_defaults(raw);
        let targets = self.targets(raw);
        let receivers = self.receivers(raw, &targets);
        rules?;
        Some(Settings {
            instance: raw.instance.clone().map(|name| name.0.0),
            state_dir: state_dir?,
            server: server?,
            poll: poll?,
            targets: targets.into_iter().collect::<Option<_>>()?,
            receivers: receivers?,
            surroundings: self.outside.surroundings.clone(),
        })
    }

    fn state_dir(&mut self, raw: &Raw) -> Option<PathBuf> {
        if let Some(Val(written)) = &raw.state_dir {
            return Some(self.places.resolve("state_dir", written));
        }
        if self.outside.state_dir.is_none() {
            self.missing(
                Mistake::new("state_dir", "no folder is set, and the environment names none")
                    .hint("set `state_dir`, or $STATE_DIRECTORY, $XDG_STATE_HOME or $HOME"),
            );
        }
        self.outside.state_dir.clone()
    }

    fn server(&mut self, raw: &Raw) -> Option<ServerSettings> {
        let server = table(raw.server.as_ref());
        Some(ServerSettings {
            listen: self.required("server.listen", server.listen.as_ref())?,
            external_url: server.external_url.map(|url| url.0.0),
            shutdown_grace: self
                .required("server.shutdown_grace", server.shutdown_grace.as_ref())?,
        })
    }

    fn poll(&mut self, raw: &Raw) -> Option<PollSettings> {
        let poll = table(raw.poll.as_ref());
        let interval = self.required("poll.interval", poll.interval.as_ref());
        let budget = self.required("poll.budget", poll.budget.as_ref());
        let timeout = self.required("poll.timeout", poll.timeout.as_ref());
        let (interval, budget, timeout) = (interval?, budget?, timeout?);
        // The judge counts no gap between readings for more than this, so a slower tick would
        // serve patience slower than the clock.
        self.within("poll.interval", interval, MIN_INTERVAL, MAX_SERVED_BY_ONE_READING);
        self.within("poll.timeout", timeout, MIN_INTERVAL, MAX_TIMEOUT);
        Some(PollSettings { interval, budget: budget.0, timeout })
    }

    /// A duration that is not shorter than this.
    fn at_least(&mut self, path: &str, value: Duration, least: Duration) {
        if value < least {
            let [value, least] = [value, least].map(humantime::format_duration);
            let message = format!("expected at least {least}, found {value}");
            self.mistake(Mistake::new(path, message));
        }
    }

    /// A duration between two bounds.
    fn within(&mut self, path: &str, value: Duration, least: Duration, most: Duration) {
        if value < least || value > most {
            let [value, least, most] = [value, least, most].map(humantime::format_duration);
            let message = format!("expected between {least} and {most}, found {value}");
            self.mistake(Mistake::new(path, message));
        }
    }

    /// A value for which the defaults have one.
    fn required<T: Clone>(&mut self, path: &str, value: Option<&Val<T>>) -> Option<T> {
        if value.is_none() {
            self.missing(Mistake::new(path, "missing"));
        }
        value.map(|value| value.0.clone())
    }

    /// Notes a mistake at the place of its path. Said once, however many targets share it.
    fn mistake(&mut self, mistake: Mistake) {
        let place = self.places.find(&mistake.path).cloned();
        let mistake = mistake.at(place);
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// Notes that something is missing, unless that follows from a mistake noted already.
    fn missing(&mut self, mistake: Mistake) {
        if !self.places.was_spoken_of(&mistake.path) {
            self.mistake(mistake);
        }
    }

    /// What a file of secrets holds; notes a mistake if it cannot be used.
    fn secret_file(&mut self, path: &str, written: &std::path::Path) -> Option<Secret> {
        let file = self.places.resolve(path, written);
        match self.outside.secrets.get(&file) {
            Some(Ok(secret)) => Some(secret.clone()),
            Some(Err(why)) => {
                self.mistake(Mistake::new(path, format!("{}: {why}", file.display())));
                None
            }
            None => {
                self.mistake(Mistake::new(path, format!("{}: was not read", file.display())));
                None
            }
        }
    }
}

/// What a table says; one that is not there says nothing.
fn table<T: Clone + Default>(table: Option<&Table<T>>) -> T {
    table.map(|table| table.0.clone()).unwrap_or_default()
}
