//! What targets mean: names that no other has, addresses that the driver takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Checker, ParsedTarget};
use crate::settings::mistake::Mistake;
use crate::settings::place::join;
use crate::settings::raw::{Raw, RawTarget};
use crate::settings::value::{Address, Argument, Val, name_fault};
use crate::settings::{PasswordFrom, Secret, Surroundings, TargetSettings};

/// One daemon is for some hundreds of servers; beyond that several share them.
const MAX_TARGETS: usize = 1000;

/// Each is in every message and on every metric of its target.
const MAX_LABELS: usize = 32;

/// The files that targets name, each with the path of its key.
pub(super) fn secret_files(raw: &Raw) -> Vec<(String, PathBuf)> {
    let targets = raw.targets.iter().flatten().enumerate();
    targets
        .filter_map(|(index, target)| {
            let Val(file) = target.0.password_file.as_ref()?;
            Some((format!("targets[{index}].password_file"), file.clone()))
        })
        .collect()
}

impl Checker<'_> {
    /// One for each that was written; `None` for those that cannot be used.
    pub(super) fn targets(&mut self, raw: &Raw) -> Vec<Option<TargetSettings>> {
        let written = raw.targets.as_deref().unwrap_or_default();
        if written.is_empty() {
            self.missing(
                Mistake::new("targets", "no target is set, so there is nothing to watch").hint(
                    "run with --postgres URL, set DATABASE_URL or PGHOST, or write [[targets]]",
                ),
            );
        }
        if written.len() > MAX_TARGETS {
            let message =
                format!("expected at most {MAX_TARGETS} targets, found {}", written.len());
            self.mistake(Mistake::new("targets", message));
            return vec![None];
        }
        let mut names = BTreeSet::new();
        let targets = written.iter().enumerate();
        targets.map(|(index, target)| self.target(raw, index, &target.0, &mut names)).collect()
    }

    fn target(
        &mut self,
        raw: &Raw,
        index: usize,
        target: &RawTarget,
        names: &mut BTreeSet<String>,
    ) -> Option<TargetSettings> {
        let path = format!("targets[{index}]");
        let rules = self.rules(raw, target.rules.as_ref().map(|own| (&own.0, path.as_str())));
        let labels = self.labels(&path, target);
        let file = target.password_file.as_ref();
        let password = self.password(&path, file, target.password_command.as_deref());
        let log = self.log(&path, target);
        let probes = self.probes(raw, &path, target);
        let poolers = self.poolers(raw, &path, target);
        let app_pools = self.app_pools(raw, &path, target);
        let address = self.postgres(&path, target);
        let parsed = address.as_ref().map(|(_, parsed)| parsed);
        let name = self.target_name(&path, target, parsed)?;
        if !names.insert(name.clone()) {
            self.doubled_name(&path, &name, target.name.is_none());
        }
        let (postgres, _) = address?;
        Some(TargetSettings {
            name,
            named_by_default: target.name.is_none(),
            postgres,
            password,
            fallback: target.fallback.as_ref().map(|Val(fallback)| *fallback).unwrap_or_default(),
            log,
            probes,
            poolers,
            app_pools,
            labels,
            rules: rules?,
        })
    }

    fn postgres(&mut self, path: &str, target: &RawTarget) -> Option<(Secret, ParsedTarget)> {
        let Some(Val(Address(postgres))) = &target.postgres else {
            let key = format!("{path}.postgres");
            self.missing(
                Mistake::new(key, "missing")
                    .hint("the address of the server: \"postgresql://plimsoll@db:5432/postgres\""),
            );
            return None;
        };
        let around = &self.outside.surroundings;
        let parsed = self.parsed(&format!("{path}.postgres"), postgres, around);
        parsed.map(|parsed| (postgres.clone(), parsed))
    }

    /// What the driver makes of the address at this key; a mistake in it is noted.
    pub(super) fn parsed(
        &mut self,
        key: &str,
        address: &Secret,
        around: &Surroundings,
    ) -> Option<ParsedTarget> {
        let why = match (self.outside.parse_postgres)(address, around) {
            Ok(parsed) => return Some(parsed),
            Err(why) => why,
        };
        let (why, hint) = match why.split_once("hint: ") {
            Some((why, hint)) => (why.trim_end(), Some(hint.trim_end())),
            None => (why.trim_end(), None),
        };
        let mistake = Mistake::new(key, why);
        self.mistake(match hint {
            Some(hint) => mistake.hint(hint),
            None => mistake,
        });
        None
    }

    /// Where a password is looked up, of whatever stands at this path; a mistake in it is noted.
    pub(super) fn password(
        &mut self,
        path: &str,
        file: Option<&Val<PathBuf>>,
        command: Option<&[Val<Argument>]>,
    ) -> Option<PasswordFrom> {
        let key = format!("{path}.password_command");
        let file = file.map(|Val(written)| {
            let key = format!("{path}.password_file");
            self.secret_file(&key, written);
            PasswordFrom::File(self.places.resolve(&key, written))
        });
        let Some(words) = command else { return file };
        if file.is_some() {
            let both = "set beside password_file; a password has one source";
            self.mistake(Mistake::new(&key, both).hint("take one of the two out"));
        }
        let mut words: Vec<Secret> = words.iter().map(|Val(word)| word.0.clone()).collect();
        let Some(program) = words.first_mut().filter(|program| !program.expose().is_empty()) else {
            let mistake = Mistake::new(&key, "names no program");
            self.mistake(mistake.hint("[\"program\", \"argument\", …]"));
            return None;
        };
        // One without a slash is looked up in PATH; others are found as every other file is.
        if program.expose().contains('/') {
            let resolved = self.places.resolve(&key, program.expose().as_ref());
            *program = Secret::new(resolved.to_string_lossy());
        }
        Some(PasswordFrom::Command(words))
    }

    fn target_name(
        &mut self,
        path: &str,
        target: &RawTarget,
        parsed: Option<&ParsedTarget>,
    ) -> Option<String> {
        if let Some(Val(name)) = &target.name {
            return Some(name.0.clone());
        }
        let host = &parsed?.default_name;
        let Some(fault) = name_fault(host) else { return Some(host.clone()) };
        let message = format!("the host of `postgres` cannot be the target's name: {fault}");
        self.missing(Mistake::new(format!("{path}.name"), message).hint("set `name`"));
        None
    }

    fn doubled_name(&mut self, path: &str, name: &str, by_default: bool) {
        let message = format!("two targets are called \"{name}\"");
        let mistake = Mistake::new(join(path, "name"), message);
        if by_default {
            self.missing(mistake.hint("it is the host of `postgres`; set `name` for each of them"));
        } else {
            self.mistake(mistake.hint("alerts, keys and metrics are told apart by it"));
        }
    }

    fn labels(&mut self, path: &str, target: &RawTarget) -> BTreeMap<String, String> {
        let path = join(path, "labels");
        let labels = target.labels.clone().unwrap_or_default();
        if labels.len() > MAX_LABELS {
            let message = format!("expected at most {MAX_LABELS} labels, found {}", labels.len());
            self.mistake(Mistake::new(&path, message));
        }
        for key in labels.keys() {
            if let Some(fault) = name_fault(key) {
                let path = join(&path, key);
                self.mistake(Mistake::new(path, format!("cannot be a label's name: {fault}")));
            }
        }
        labels.into_iter().map(|(key, Val(label))| (key, label.0)).collect()
    }
}
