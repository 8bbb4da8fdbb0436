//! What `check` says of the machine that it runs on: the state folder, the address to listen at,
//! files that hold secrets.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use plimsoll_core::settings::{PasswordFrom, Settings};

use super::finding::Finding;
use crate::store::{Look, look};

/// Anybody on the machine may read it.
const READ_BY_OTHERS: u32 = 0o004;

/// Everything that there is to say.
pub(super) fn find(settings: &Settings) -> Vec<Finding> {
    let seen = look(&settings.state_dir);
    let folder = settings.state_dir.display();
    let listen = Finding::ok("listen", format!("{} is an address", settings.server.listen));
    let mut findings = vec![state_dir(&folder.to_string(), &seen), listen];
    findings.extend(settings.targets.iter().filter_map(|target| {
        let Some(PasswordFrom::File(file)) = &target.password else { return None };
        read_by_others(&target.name, file)
    }));
    findings
}

fn state_dir(folder: &str, seen: &Look) -> Finding {
    const CHECK: &str = "state_dir";
    const MEND: &str = "the user who runs the daemon must own the folder and what is in it";
    if let Err(error) = &seen.writable {
        return Finding::wrong(CHECK, format!("nothing can be written in {folder}: {error}"))
            .hint(MEND);
    }
    if let Err(error) = &seen.file {
        let text = format!("the file in {folder} cannot be written: {error}");
        return Finding::wrong(CHECK, text).hint(MEND);
    }
    match (seen.daemon, seen.writer) {
        (daemon, Some(writer)) if daemon != Some(writer) => {
            let text = format!("{folder} can be written, and process {writer} has it locked");
            Finding::warning(CHECK, text)
                .hint("a transaction that stays open keeps pages in memory only; end it")
        }
        (Some(daemon), _) => {
            Finding::ok(CHECK, format!("{folder} can be written; the daemon {daemon} uses it"))
        }
        _ if seen.exists => Finding::ok(CHECK, format!("{folder} can be written")),
        _ => Finding::ok(CHECK, format!("{folder} is not there, and can be made")),
    }
}

fn read_by_others(target: &str, file: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    let shown = file.display();
    (mode & READ_BY_OTHERS != 0).then(|| {
        let text = format!("everybody on this machine may read {shown}, the password of {target}");
        Finding::warning("password_file", text).hint(format!("chmod o-r {shown}"))
    })
}
