//! What poolers and probes have in common, the sources that log in: each has a name of its own and
//! an address that names its user.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Checker;
use crate::settings::Secret;
use crate::settings::mistake::Mistake;
use crate::settings::raw::Raw;
use crate::settings::value::{Name, Val};

/// The files that poolers and probes name, each with the path of its key.
pub(super) fn secret_files(raw: &Raw) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for (at, target) in raw.targets.iter().flatten().enumerate() {
        let poolers = target.0.poolers.iter().flatten().map(|pooler| &pooler.0.password_file);
        let probes = target.0.probes.iter().flatten().map(|probe| &probe.0.password_file);
        let poolers = poolers.enumerate().map(|(index, file)| ("poolers", index, file));
        let probes = probes.enumerate().map(|(index, file)| ("probes", index, file));
        for (kind, index, file) in poolers.chain(probes) {
            let Some(Val(file)) = file else { continue };
            files.push((format!("targets[{at}].{kind}[{index}].password_file"), file.clone()));
        }
    }
    files
}

impl Checker<'_> {
    /// Its name, which no other of its kind has at this target. `kind` is what several are called.
    pub(super) fn own_name(
        &mut self,
        path: &str,
        name: Option<&Val<Name>>,
        taken: &mut BTreeSet<String>,
        kind: &str,
        example: &str,
    ) -> Option<String> {
        let key = format!("{path}.name");
        let Some(Val(name)) = name else {
            self.missing(Mistake::new(key, "missing").hint(format!("such as \"{example}\"")));
            return None;
        };
        if !taken.insert(name.0.clone()) {
            let message = format!("two {kind} of this target are called \"{}\"", name.0);
            let mistake = Mistake::new(key, message);
            self.mistake(mistake.hint("alerts and metrics are told apart by it"));
        }
        Some(name.0.clone())
    }

    /// The address, without what surrounds the watcher: see
    /// [`crate::settings::Surroundings::without_variables`]. The hints are for one that is missing,
    /// and for one that names no user.
    pub(super) fn login_url(
        &mut self,
        path: &str,
        url: Option<&Val<Secret>>,
        missing: String,
        without_user: String,
    ) -> Option<Secret> {
        let key = format!("{path}.url");
        let Some(Val(url)) = url else {
            self.missing(Mistake::new(key, "missing").hint(missing));
            return None;
        };
        let around = self.outside.surroundings.without_variables();
        let parsed = self.parsed(&key, url, &around)?;
        if parsed.user.is_none() {
            self.mistake(Mistake::new(key, "names no user").hint(without_user));
            return None;
        }
        Some(url.clone())
    }
}
