//! Values of `targets[].app_pools[]`: presets, metrics and their units, the path of metrics.

use std::time::Duration;

use super::{Complaint, Scalar, Value, did_you_mean};
use crate::reading::app_pool::presets::{PRESETS, Preset, preset};
use crate::reading::exposition::Selector;

/// The name of a preset.
impl Value for &'static Preset {
    const EXPECTED: &'static str = "the name of a preset";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        let Scalar::Text(text) = scalar else { return Err(Complaint::default()) };
        preset(text).ok_or_else(|| {
            let names = PRESETS.map(|preset| preset.name);
            let guess = did_you_mean(text, &names);
            if guess.hint.is_some() {
                return guess;
            }
            Complaint::hint(format!("the presets are {}", names.join(", ")))
        })
    }
}

/// A metric, with the labels that it must have.
impl Value for Selector {
    const EXPECTED: &'static str = "a metric such as 'pool_connections{state=\"busy\"}'";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        let Scalar::Text(text) = scalar else { return Err(Complaint::default()) };
        Self::parse(text).map_err(Complaint::hint)
    }
}

/// The name of a label.
#[derive(Clone, Debug)]
pub(in crate::settings) struct LabelName(pub(in crate::settings) String);

impl Value for LabelName {
    const EXPECTED: &'static str = "the name of a label such as \"pool\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            Scalar::Text(text) if !text.trim().is_empty() => Ok(Self(text.trim().to_owned())),
            _ => Err(Complaint::default()),
        }
    }
}

/// The unit of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Unit(pub(in crate::settings) Duration);

impl Value for Unit {
    const EXPECTED: &'static str = "\"s\", \"ms\", \"us\" or \"ns\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        let unit = match scalar {
            Scalar::Text("s") => Duration::from_secs(1),
            Scalar::Text("ms") => Duration::from_millis(1),
            Scalar::Text("us") => Duration::from_micros(1),
            Scalar::Text("ns") => Duration::from_nanos(1),
            _ => return Err(Complaint::default()),
        };
        Ok(Self(unit))
    }
}

/// Where an instance shows its metrics.
#[derive(Clone, Debug)]
pub(in crate::settings) struct MetricsPath(pub(in crate::settings) String);

impl Value for MetricsPath {
    const EXPECTED: &'static str = "a path such as \"/actuator/prometheus\"";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        let Scalar::Text(text) = scalar else { return Err(Complaint::default()) };
        if !text.starts_with('/') {
            return Err(Complaint::hint("it begins with `/`"));
        }
        match crate::settings::url::fault(&format!("http://host{text}")) {
            None => Ok(Self(text.to_owned())),
            Some(fault) => Err(Complaint::hint(fault)),
        }
    }
}

/// Who asks, where an instance wants to know.
#[derive(Clone, Debug)]
pub(in crate::settings) struct Username(pub(in crate::settings) String);

impl Value for Username {
    const EXPECTED: &'static str = "the name of a user";

    fn read(scalar: Scalar<'_>) -> Result<Self, Complaint> {
        match scalar {
            // RFC 7617: a colon would end it.
            Scalar::Text(text) if text.contains(':') => Err(Complaint::hint("it contains `:`")),
            Scalar::Text(text) if text.is_empty() || text.chars().any(char::is_control) => {
                Err(Complaint::default())
            }
            Scalar::Text(text) => Ok(Self(text.to_owned())),
            _ => Err(Complaint::default()),
        }
    }
}
