//! Single values of a configuration, each checked where it is read: a duration with its unit, a
//! ratio between 0 and 1, a name that can stand in a key.
//!
//! Not for anything that needs two values; that is `check`. The raw form is made of these.

mod scrapes;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{
    Deserialize, Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer,
};

pub(super) use self::scrapes::{LabelName, MetricsPath, Unit, Username};
use super::suggest::closest;
use super::{Fallback, Secret};
use crate::judge::Severity;
use crate::judge::rule::RuleName;

/// Opens and separates what [`Complaint`] says inside a serde error, which can only carry text.
/// TOML forbids this character, so that nothing an operator writes is taken for it.
pub(super) const MARK: char = '\u{1f}';

/// A year: anything longer is a slip of the keyboard, and sums of such patience cannot overflow.
const MAX_DURATION: Duration = Duration::from_hours(366 * 24);

/// Long enough for the host names of cloud providers, short enough for a subject line.
pub(super) const MAX_NAME_CHARS: usize = 128;

/// As many connections as Postgres can be told to allow (`MAX_BACKENDS` in postmaster.h).
const MAX_CONNECTIONS: i64 = 262_143;

/// What stands in the file before it means anything.
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

/// Why a value cannot be used.
#[derive(Default)]
pub(super) struct Complaint {
    /// In place of [`Value::EXPECTED`], where more can be said.
    pub(super) expected: Option<String>,
    /// What to write instead.
    pub(super) hint: Option<String>,
}

impl Complaint {
    fn hint(text: impl Into<String>) -> Self {
        Self { expected: None, hint: Some(text.into()) }
    }
}

/// A kind of value that an operator can write.
pub(super) trait Value: Sized {
    /// Ends the sentence "expected …".
    const EXPECTED: &'static str;

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint>;
}

/// A checked value of the raw form.
#[derive(Clone, Debug)]
pub(super) struct Val<T>(pub(super) T);

impl<'de, T: Value> Deserialize<'de> for Val<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor(std::marker::PhantomData))
    }
}

struct ScalarVisitor<T>(std::marker::PhantomData<T>);

impl<T: Value> ScalarVisitor<T> {
    fn take<E: Error>(scalar: Scalar<'_>) -> Result<Val<T>, E> {
        T::read(scalar).map(Val).map_err(|complaint| {
            let expected = complaint.expected.unwrap_or_else(|| T::EXPECTED.to_owned());
            let hint = complaint.hint.unwrap_or_default();
            E::custom(format!("{MARK}{expected}{MARK}{hint}"))
        })
    }
}

impl<T: Value> Visitor<'_> for ScalarVisitor<T> {
    type Value = Val<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Val<T>, E> {
        Self::take(Scalar::Text(text))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Val<T>, E> {
        Self::take(Scalar::Integer(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Val<T>, E> {
        Self::take(Scalar::Float(number))
    }

    fn visit_bool<E: Error>(self, boolean: bool) -> Result<Val<T>, E> {
        Self::take(Scalar::Boolean(boolean))
    }
}

/// A table. What serde derives for a struct would take a list too, its fields in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Table<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }

        deserializer.deserialize_map(TableVisitor(std::marker::PhantomData))
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Boolean(boolean) => Ok(boolean),
            _ => Err(Complaint::default()),
        }
    }
}

/// A part of what is usable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio(pub(super) f64);

impl Value for Ratio {
    const EXPECTED: &'static str = "a number between 0 and 1";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Float(number) if (0.0..=1.0).contains(&number) => Ok(Self(number)),
            Scalar::Integer(number @ 0..=1) => Ok(Self(number as f64)),
            Scalar::Float(number) if (2.0..=100.0).contains(&number) => Err(per_cent(number)),
            Scalar::Integer(number @ 2..=100) => Err(per_cent(number as f64)),
            Scalar::Text(text) => match text.trim_end_matches([' ', '%']).parse::<f64>() {
                Ok(number) if text.ends_with('%') => Err(per_cent(number)),
                Ok(_) => Err(Complaint::hint("write the number without quotes")),
                Err(_) => Err(Complaint::default()),
            },
            _ => Err(Complaint::default()),
        }
    }
}

fn per_cent(number: f64) -> Complaint {
    Complaint::hint(format!("{number} % is written {}", number / 100.0))
}

/// A part of one server core; none at all would be no reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget(pub(super) f64);

impl Value for Budget {
    const EXPECTED: &'static str = "a number above 0 and at most 1";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match Ratio::read(scalar)? {
            Ratio(number) if number > 0.0 => Ok(Self(number)),
            _ => Err(Complaint::default()),
        }
    }
}

/// A number of connections.
impl Value for u32 {
    const EXPECTED: &'static str = "a number of connections such as 90";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Integer(number @ 0..=MAX_CONNECTIONS) => Ok(number as u32),
            Scalar::Float(number) if number > 0.0 && number <= 1.0 => {
                Err(Complaint::hint("a part of all slots goes to `above` and `clear_below`"))
            }
            _ => Err(Complaint::default()),
        }
    }
}

/// A duration with its unit; zero is one too.
impl Value for Duration {
    const EXPECTED: &'static str = "a duration such as \"60s\" or \"10m\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text(text) => match humantime::parse_duration(text) {
                Ok(duration) if duration <= MAX_DURATION => Ok(duration),
                Ok(_) => Err(Complaint::hint("a year is the longest that can be meant")),
                Err(_) if text.trim().parse::<u64>().is_ok() => Err(unit(text.trim())),
                Err(_) => Err(Complaint::default()),
            },
            Scalar::Integer(number @ 0..) => Err(unit(&number.to_string())),
            _ => Err(Complaint::default()),
        }
    }
}

fn unit(number: &str) -> Complaint {
    Complaint::hint(format!("a duration needs its unit: \"{number}s\""))
}

/// A name: of a target, a receiver or an instance. It stands in dedup keys and in addresses of
/// the API, whose parts a slash divides.
#[derive(Clone, Debug)]
pub(super) struct Name(pub(super) String);

impl Value for Name {
    const EXPECTED: &'static str = "a name of 1 to 128 characters without `/`";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        let Scalar::Text(text) = scalar else { return Err(Complaint::default()) };
        name_fault(text)
            .map_or_else(|| Ok(Self(text.to_owned())), |hint| Err(Complaint::hint(hint)))
    }
}

/// What is wrong with a name, or with the key or value of a label.
pub(super) fn name_fault(text: &str) -> Option<String> {
    let length = text.chars().count();
    if length == 0 {
        return Some("it is empty".to_owned());
    }
    if length > MAX_NAME_CHARS {
        return Some(format!("it has {length} characters"));
    }
    if text.chars().any(char::is_control) {
        return Some("it contains a control character".to_owned());
    }
    if text.trim() != text {
        return Some("it begins or ends with a space".to_owned());
    }
    text.contains('/').then(|| "it contains `/`".to_owned())
}

/// The value of a label.
#[derive(Clone, Debug)]
pub(super) struct Label(pub(super) String);

impl Value for Label {
    const EXPECTED: &'static str = "text of at most 128 characters";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text(text) if text.chars().count() > MAX_NAME_CHARS => {
                Err(Complaint::hint(format!("it has {} characters", text.chars().count())))
            }
            Scalar::Text(text) if text.chars().any(char::is_control) => {
                Err(Complaint::hint("it contains a control character"))
            }
            Scalar::Text(text) => Ok(Self(text.to_owned())),
            Scalar::Integer(number) => Err(Complaint::hint(format!("write \"{number}\""))),
            _ => Err(Complaint::default()),
        }
    }
}

/// A file or folder.
impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text("") => Err(Complaint::hint("it is empty")),
            Scalar::Text(text) if text.contains('\0') => {
                Err(Complaint::hint("it contains a NUL character"))
            }
            Scalar::Text(text) => Ok(text.into()),
            _ => Err(Complaint::default()),
        }
    }
}

/// Where to listen.
impl Value for SocketAddr {
    const EXPECTED: &'static str = "an IP address and a port such as \"127.0.0.1:7546\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        let Scalar::Text(text) = scalar else { return Err(Complaint::default()) };
        text.parse().map_err(|_| {
            if text.parse::<std::net::IpAddr>().is_ok() {
                return Complaint::hint("the port is missing");
            }
            let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
            let Ok(port) = port.parse::<u16>() else { return Complaint::default() };
            match host {
                "" => Complaint::hint(format!(
                    "\"127.0.0.1:{port}\" is for this machine only, \"0.0.0.0:{port}\" for everyone"
                )),
                "localhost" => Complaint::hint(format!("write \"127.0.0.1:{port}\"")),
                _ => Complaint::hint("names are not looked up"),
            }
        })
    }
}

/// Text that must not be shown.
impl Value for Secret {
    const EXPECTED: &'static str = "text in quotes";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text("") => Err(Complaint::hint("it is empty")),
            Scalar::Text(text) => Ok(Self::new(text)),
            _ => Err(Complaint::default()),
        }
    }
}

/// Where a Postgres server is. Empty, all of it is left to the surroundings.
#[derive(Clone, Debug)]
pub(super) struct Address(pub(super) Secret);

impl Value for Address {
    const EXPECTED: &'static str = "text in quotes";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text(text) => Ok(Self(Secret::new(text))),
            _ => Err(Complaint::default()),
        }
    }
}

/// One word of a command.
#[derive(Clone, Debug)]
pub(super) struct Argument(pub(super) Secret);

impl Value for Argument {
    const EXPECTED: &'static str = "text in quotes";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text(text) if text.contains('\0') => {
                Err(Complaint::hint("it contains a NUL character"))
            }
            Scalar::Text(text) => Ok(Self(Secret::new(text))),
            _ => Err(Complaint::default()),
        }
    }
}

/// An address of a web server, without anything secret in it.
#[derive(Clone, Debug)]
pub(super) struct WebUrl(pub(super) String);

impl Value for WebUrl {
    const EXPECTED: &'static str = "a URL such as \"https://plimsoll.example.com\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        let Scalar::Text(text) = scalar else { return Err(Complaint::default()) };
        match super::url::fault(text) {
            None => Ok(Self(text.trim_end_matches('/').to_owned())),
            Some(fault) => Err(Complaint::hint(fault)),
        }
    }
}

/// From which severity on a receiver hears. Advice is no severity to hear from: it never opens
/// an incident.
impl Value for Severity {
    const EXPECTED: &'static str = "\"warning\" or \"critical\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text("warning") => Ok(Self::Warning),
            Scalar::Text("critical") => Ok(Self::Critical),
            Scalar::Text("info") => Err(Complaint::hint(
                "advice joins a message as evidence and is never sent alone; write \"warning\"",
            )),
            Scalar::Text(text) => Err(did_you_mean(text, &["warning", "critical"])),
            _ => Err(Complaint::default()),
        }
    }
}

/// What a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceiverType {
    Webhook,
    Pagerduty,
}

impl ReceiverType {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Pagerduty => "pagerduty",
        }
    }
}

/// Types that are designed and not built yet.
const LATER_TYPES: [&str; 6] = ["slack", "alertmanager", "discord", "teams", "exec", "heartbeat"];

impl Value for ReceiverType {
    const EXPECTED: &'static str = "\"webhook\" or \"pagerduty\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text("webhook") => Ok(Self::Webhook),
            Scalar::Text("pagerduty") => Ok(Self::Pagerduty),
            Scalar::Text(text) if LATER_TYPES.contains(&text) => {
                Err(Complaint::hint(format!("\"{text}\" is not in this version")))
            }
            Scalar::Text(text) => Err(did_you_mean(text, &["webhook", "pagerduty"])),
            _ => Err(Complaint::default()),
        }
    }
}

impl Value for Fallback {
    const EXPECTED: &'static str = "\"none\" or \"replication\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text("none") => Ok(Self::None),
            Scalar::Text("replication") => Ok(Self::Replication),
            Scalar::Text(text) => Err(did_you_mean(text, &["none", "replication"])),
            _ => Err(Complaint::default()),
        }
    }
}

/// Where PagerDuty keeps an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    Us,
    Eu,
}

impl Value for Region {
    const EXPECTED: &'static str = "\"us\" or \"eu\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text("us") => Ok(Self::Us),
            Scalar::Text("eu") => Ok(Self::Eu),
            _ => Err(Complaint::default()),
        }
    }
}

impl Value for RuleName {
    const EXPECTED: &'static str = "the name of a rule";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        let Scalar::Text(text) = scalar else { return Err(Complaint::default()) };
        Self::ALL.into_iter().find(|rule| rule.word() == text).ok_or_else(|| {
            let words = Self::ALL.map(Self::word);
            let guess = did_you_mean(text, &words);
            if guess.hint.is_some() {
                return guess;
            }
            Complaint::hint(format!("the rules are {}", words.join(", ")))
        })
    }
}

fn did_you_mean(text: &str, known: &[&str]) -> Complaint {
    let hint = closest(text, known.iter().copied());
    Complaint { expected: None, hint: hint.map(|word| format!("did you mean \"{word}\"?")) }
}
