//! Files, environment and secrets → settings. The only part that reads them, at the start and at
//! every reload; what they mean is decided in `plimsoll_core::settings`.
//!
//! Later layers win, key by key; a list replaces the list below it: defaults, the target that
//! `PGHOST` and its like make, `DATABASE_URL`, files in the order given, `PLIMSOLL_…` variables,
//! flags. Every layer is read strictly by itself before they are merged, so that each mistake is
//! found where it was made.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use config::{Config, FileFormat};
use plimsoll_core::settings::{
    Layer, Mistake, Origin, Outside, ParsedTarget, Raw, Secret, ServiceFile, Settings,
    Surroundings, check, secret_files,
};

/// Read when no file is given and this one is there.
pub const DEFAULT_FILE: &str = "/etc/plimsoll/plimsoll.toml";

/// Where Debian's libpq looks for the system's services; others set `PGSYSCONFDIR`.
const SYSTEM_SERVICE_FOLDER: &str = "/etc/postgresql-common";

/// A thousand targets with rules of their own fit; a log file given by mistake does not.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A URL with a token, a key, a password: none is near this.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where to look. Nothing else is read: the environment comes in as a value.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// The files, in the order given.
    pub files: Vec<PathBuf>,
    /// Read instead if no file is given and this one is there; see [`DEFAULT_FILE`].
    pub default_file: Option<PathBuf>,
    /// What the flags of the command line set.
    pub flags: Overrides,
    /// The environment.
    pub env: BTreeMap<String, String>,
}

/// What the flags of the command line set.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--postgres`: the addresses of all targets.
    pub postgres: Vec<Secret>,
    /// `--instance`.
    pub instance: Option<String>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--state-dir`.
    pub state_dir: Option<String>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The operator must change something; all of it is listed. Exit code 3.
    Mistakes(Vec<Mistake>),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Mistakes(mistakes) = self;
        for (index, mistake) in mistakes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}error: {mistake}")?;
        }
        Ok(())
    }
}

/// Reads and checks everything. `parse_postgres` is the driver's view of an address among its
/// surroundings, see [`Outside::parse_postgres`].
pub fn load(
    request: &LoadRequest,
    parse_postgres: &dyn Fn(&Secret, &Surroundings) -> Result<ParsedTarget, String>,
) -> Result<Settings, LoadError> {
    let layers = layers(request);
    let raw = merge(&layers)?;
    let files = secret_files(&raw, &layers);
    let secrets = files.into_iter().map(|file| (file.clone(), read_secret(&file))).collect();
    let surroundings = surroundings(&request.env);
    let outside =
        Outside { secrets, parse_postgres, surroundings, state_dir: state_dir(&request.env) };
    check(&raw, &layers, &outside).map_err(LoadError::Mistakes)
}

fn layers(request: &LoadRequest) -> Vec<Layer> {
    let mut layers = vec![Layer::defaults()];
    // A variable that says where a server is makes a target; one that only says how does not.
    let is_set = |name: &&str| request.env.get(*name).is_some_and(|value| !value.is_empty());
    if let Some(name) = ["PGHOST", "PGHOSTADDR", "PGSERVICE"].into_iter().find(is_set) {
        let origin = Origin::Variable(name.to_owned());
        layers.push(Layer::addresses(origin, &[Secret::new("")]));
    }
    if let Some(url) = request.env.get("DATABASE_URL").filter(|url| !url.is_empty()) {
        let origin = Origin::Variable("DATABASE_URL".to_owned());
        layers.push(Layer::addresses(origin, &[Secret::new(url)]));
    }
    // One that is there and cannot be read is said, not passed over.
    let is_absent = |file: &PathBuf| matches!(file.try_exists(), Ok(false));
    let default_file = request.default_file.iter().filter(|file| !is_absent(file));
    let files: Vec<&PathBuf> = if request.files.is_empty() {
        default_file.collect()
    } else {
        request.files.iter().collect()
    };
    layers.extend(files.into_iter().map(|file| read_file(file)));
    layers.extend(request.env.iter().filter_map(|(name, value)| Layer::variable(name, value)));
    layers.extend(flags(&request.flags));
    layers
}

fn flags(flags: &Overrides) -> Vec<Layer> {
    let mut layers = Vec::new();
    if !flags.postgres.is_empty() {
        let origin = Origin::Flag("--postgres".to_owned());
        layers.push(Layer::addresses(origin, &flags.postgres));
    }
    let single: [(&str, &[&str], &Option<String>); 3] = [
        ("--instance", &["instance"], &flags.instance),
        ("--listen", &["server", "listen"], &flags.listen),
        ("--state-dir", &["state_dir"], &flags.state_dir),
    ];
    for (flag, path, value) in single {
        layers.extend(value.iter().map(|value| Layer::flag(flag, path, value)));
    }
    layers
}

/// The layers laid over each other. Each was read strictly, so nothing of what `config` would
/// take for something else (`true` for 1.0) is left in them.
fn merge(layers: &[Layer]) -> Result<Raw, LoadError> {
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(config::File::from_str(layer.text(), FileFormat::Toml));
    }
    let merged = builder.build().and_then(Config::try_deserialize::<toml::Table>).ok();
    let merged = merged.and_then(|merged| Raw::of_toml(&merged.to_string()).ok());
    merged.ok_or_else(|| {
        let said = "the files and variables cannot be merged, though each of them can be read";
        LoadError::Mistakes(vec![Mistake::new("", said)])
    })
}

fn read_file(file: &Path) -> Layer {
    let name = file.display().to_string();
    match read_text(file, MAX_FILE_BYTES) {
        Ok(text) => Layer::file(&name, &text),
        Err(why) => Layer::unreadable_file(&name, &why),
    }
}

/// What stands in a file that holds one secret; an editor's newline at its end is not part of it.
fn read_secret(file: &Path) -> Result<Secret, String> {
    let text = read_text(file, MAX_SECRET_BYTES)?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if secret.contains(['\n', '\r', '\0']) {
        return Err("holds more than one line".to_owned());
    }
    Ok(Secret::new(secret))
}

/// What connection strings may leave out, as it is now.
fn surroundings(env: &BTreeMap<String, String>) -> Surroundings {
    let named = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = named("HOME");
    // As libpq: one file of the user's, then the system's.
    let of_user =
        named("PGSERVICEFILE").or_else(|| home.as_ref().map(|home| home.join(".pg_service.conf")));
    let of_system = named("PGSYSCONFDIR").unwrap_or_else(|| PathBuf::from(SYSTEM_SERVICE_FOLDER));
    let files = of_user.into_iter().chain([of_system.join("pg_service.conf")]);
    let variables = env.iter().filter(|(name, _)| name.starts_with("PG"));
    Surroundings {
        variables: variables.map(|(name, value)| (name.clone(), Secret::new(value))).collect(),
        home,
        service_files: files.map(service_file).collect(),
    }
}

/// What cannot be read is said only if a service is asked for.
fn service_file(path: PathBuf) -> ServiceFile {
    let text = match path.try_exists() {
        Ok(false) => Ok(None),
        _ => read_text(&path, MAX_FILE_BYTES).map(|text| Some(Secret::new(text))),
    };
    ServiceFile { path, text }
}

fn read_text(file: &Path, most: u64) -> Result<String, String> {
    let opened = File::open(file).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    opened
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("is longer than {} kB", most / 1024));
    }
    String::from_utf8(bytes).map_err(|_| "is no UTF-8 text".to_owned())
}

/// Where a program of this user keeps its state: systemd's folder for the service, or the XDG
/// one. Relative paths in the XDG variables are invalid, says their specification.
fn state_dir(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let folder = |name: &str| {
        let folder = env.get(name).map(PathBuf::from);
        folder.filter(|folder| folder.is_absolute())
    };
    // systemd separates several with a colon; the first is the service's own.
    let of_service = env.get("STATE_DIRECTORY").and_then(|folders| folders.split(':').next());
    of_service
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| folder("XDG_STATE_HOME").map(|folder| folder.join("plimsoll")))
        .or_else(|| folder("HOME").map(|home| home.join(".local/state/plimsoll")))
}
