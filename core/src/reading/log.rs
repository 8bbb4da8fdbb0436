//! What the server's log said since the reading before.

use serde::{Deserialize, Serialize};

use super::{Happened, Refusal};

/// Where the log is read, and how well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The file that is read now.
    pub file: String,
}

/// Lines that were read, by what they say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// How many of each kind, by whom they are about.
    pub counts: Vec<LineCount>,
}

/// Lines of one kind about one role, database and application; each empty where the line does not
/// tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCount {
    /// What they say.
    pub kind: LineKind,
    /// The role.
    pub role: String,
    /// The database.
    pub database: String,
    /// `application_name`.
    pub application: String,
    /// How many.
    pub count: u64,
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// A login was refused for want of a slot.
    Refused(Refusal),
}

impl Happened for Lines {
    fn add(&mut self, later: Self) {
        self.counts.extend(later.counts);
    }
}
