//! Bad configurations, each with the whole message that a person receives, and good ones with
//! what they come to.

mod accepted;
mod rejected;
mod secrecy;
mod sources;

use std::collections::BTreeMap;
use std::path::Path;

use plimsoll::collect::conninfo::ConnInfo;
use plimsoll::load::{LoadError, LoadRequest, Overrides, load};
use plimsoll_core::settings::{ParsedTarget, Secret, Settings, Surroundings};

/// A folder with files in it, and the request that reads `plimsoll.toml` there.
struct Case {
    folder: tempfile::TempDir,
    request: LoadRequest,
}

impl Case {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env = BTreeMap::from([("HOME".to_owned(), "/home/op".to_owned())]);
        let case = Self { folder, request: LoadRequest { env, ..LoadRequest::default() } };
        case.file("plimsoll.toml", text)
    }

    fn without_file() -> Self {
        let mut case = Self::new("");
        case.request.files.clear();
        case
    }

    /// Another file, which is read after the first.
    fn file(mut self, name: &str, text: &str) -> Self {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        self.request.files.push(file);
        self
    }

    /// A file that is only referred to.
    fn secret(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.request.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flags(mut self, flags: Overrides) -> Self {
        self.request.flags = flags;
        self
    }

    fn load(&self) -> Result<Settings, LoadError> {
        load(&self.request, &driver)
    }

    fn settings(&self) -> Settings {
        self.load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// What is printed, with the folder's name left out.
    fn mistakes(&self) -> String {
        let folder = self.folder.path().display().to_string();
        match self.load() {
            Ok(_) => "no mistake".to_owned(),
            Err(error) => {
                error.to_string().replace(&format!("{folder}/"), "").replace(&folder, "folder")
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The driver's own view of an address, as the daemon has it.
fn driver(postgres: &Secret, around: &Surroundings) -> Result<ParsedTarget, String> {
    let info = ConnInfo::parse_in(postgres, around).map_err(|error| error.to_string())?;
    Ok(ParsedTarget { default_name: info.default_name(), user: info.user().map(str::to_owned) })
}
