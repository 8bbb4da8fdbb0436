//! What surrounds a connection string: the `PG…` variables, the home folder, the service files.
//!
//! Values only: `load` reads them at the start and at every reload, and whoever takes a connection
//! string apart looks up there what it leaves out. Everything in it can hold a password.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Secret;

/// What a connection string can leave to its surroundings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The environment variables that begin with `PG`.
    pub variables: BTreeMap<String, Secret>,
    /// The home folder of the user that runs Plimsoll, if the environment names one.
    pub home: Option<PathBuf>,
    /// The files in which services are looked up, the first first.
    pub service_files: Vec<ServiceFile>,
}

impl Surroundings {
    /// The same without the variables. They are for whoever watches: an address with which an
    /// application logs in, or a pooler is asked, must not silently take the watcher's user,
    /// password or certificate from them.
    pub fn without_variables(&self) -> Self {
        Self { variables: BTreeMap::new(), ..self.clone() }
    }
}

/// A file of connection services (the manual, "The Connection Service File").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFile {
    /// Its path.
    pub path: PathBuf,
    /// What stands in it; `None` if there is no such file; or why it cannot be read.
    pub text: Result<Option<Secret>, String>,
}
