//! What can be written of a server's log: `targets[].log`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::reading::log::Format;
use crate::settings::suggest::closest;
use crate::settings::value::{Complaint, Scalar, Val, Value};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::settings) struct RawLog {
    pub(in crate::settings) path: Option<Val<PathBuf>>,
    pub(in crate::settings) format: Option<Val<Format>>,
    pub(in crate::settings) line_prefix: Option<Val<LinePrefix>>,
    pub(in crate::settings) slower_than: Option<Val<Duration>>,
}

impl Value for Format {
    const EXPECTED: &'static str = "\"jsonlog\", \"csvlog\" or \"stderr\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        let Scalar::Text(text) = scalar else { return Err(Complaint::default()) };
        let all = [Self::Jsonlog, Self::Csvlog, Self::Stderr];
        all.into_iter().find(|format| format.word() == text).ok_or_else(|| Complaint {
            hint: closest(text, all.into_iter().map(Self::word))
                .map(|word| format!("did you mean \"{word}\"?")),
            expected: None,
        })
    }
}

/// A `log_line_prefix`; an empty one is one, too.
#[derive(Clone, Debug)]
pub(in crate::settings) struct LinePrefix(pub(in crate::settings) String);

impl Value for LinePrefix {
    const EXPECTED: &'static str = "text in quotes such as \"%m [%p] %q%u@%d \"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text(text) => Ok(Self(text.to_owned())),
            _ => Err(Complaint::default()),
        }
    }
}
