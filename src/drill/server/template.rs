//! The template cluster: made by `initdb` once a user and version, copied for each server.
//!
//! `initdb` takes about a second, a copy some hundredths of one. The template lies under the
//! temporary folder, appears by one rename, and is never changed after it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::binaries::{Binaries, Owner};
use crate::drill::DrillError;

/// Part of the template's name: counted up when `initdb` is called with other arguments.
const TEMPLATE_VERSION: u32 = 1;

/// Puts a fresh cluster at `data`, which must not exist, owned by whoever will run it.
pub(super) fn copy_to(
    data: &Path,
    binaries: &Binaries,
    owner: Option<Owner>,
) -> Result<(), DrillError> {
    let template = ready(binaries, owner)?;
    copy_folder(&template, data, owner).map_err(|source| DrillError::File {
        doing: "copying a cluster to",
        path: data.into(),
        source,
    })
}

/// The template, made now if there is none.
fn ready(binaries: &Binaries, owner: Option<Owner>) -> Result<PathBuf, DrillError> {
    let place = place(binaries, owner);
    if is_whole(&place, owner) {
        return Ok(place);
    }
    let parent = std::env::temp_dir();
    let beside = tempfile::Builder::new().prefix("plimsoll-initdb-").tempdir_in(&parent).map_err(
        |source| DrillError::File { doing: "creating a folder in", path: parent, source },
    )?;
    give(beside.path(), owner)?;
    initdb(beside.path(), binaries, owner)?;
    // What stands there is half: cleaned away by age, or another's. It is moved, not overwritten.
    if place.exists() && !is_whole(&place, owner) {
        let aside = beside.path().join("aside");
        fs::rename(&place, &aside).map_err(|source| DrillError::File {
            doing: "moving aside",
            path: place.clone(),
            source,
        })?;
    }
    match fs::rename(beside.path().join("data"), &place) {
        Ok(()) => Ok(place),
        // Another test made it in the meantime.
        Err(_) if is_whole(&place, owner) => Ok(place),
        Err(source) => Err(DrillError::File { doing: "moving a template to", path: place, source }),
    }
}

fn place(binaries: &Binaries, owner: Option<Owner>) -> PathBuf {
    let uid = uid(owner);
    let mut hash = Sha256::new();
    hash.update(binaries.folder.as_os_str().as_encoded_bytes());
    hash.update(binaries.version.as_bytes());
    let hash = hash.finalize();
    let hash = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let major = binaries.major;
    let name = format!("plimsoll-cluster-{TEMPLATE_VERSION}-{major}-{uid}-{hash:08x}");
    std::env::temp_dir().join(name)
}

fn uid(owner: Option<Owner>) -> u32 {
    owner.map_or_else(|| rustix::process::geteuid().as_raw(), |owner| owner.uid)
}

/// Whether a cluster is there that we made: the temporary folder belongs to everybody, and
/// is cleaned of old files while folders stay.
fn is_whole(place: &Path, owner: Option<Owner>) -> bool {
    let ours = fs::symlink_metadata(place).is_ok_and(|m| m.is_dir() && m.uid() == uid(owner));
    ours && place.join("PG_VERSION").is_file() && place.join("global/pg_control").is_file()
}

fn initdb(beside: &Path, binaries: &Binaries, owner: Option<Owner>) -> Result<(), DrillError> {
    let program = binaries.program("initdb");
    let mut command = Command::new(&program);
    command.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
    // Segments of 1 MB: a copy is half as large.
    command.args(["--username=postgres", "--wal-segsize=1"]);
    command.arg("--pgdata").arg(beside.join("data"));
    prepare(&mut command, beside, owner);
    let said = command
        .output()
        .map_err(|source| DrillError::Spawn { program: program.display().to_string(), source })?;
    if said.status.success() {
        return Ok(());
    }
    Err(DrillError::Ended {
        program: program.display().to_string(),
        status: said.status.to_string(),
        said: String::from_utf8_lossy(&said.stderr).into_owned(),
    })
}

/// Sets what every program of a server needs: its user, a folder that it may stand in, and
/// none of our own `PG…` variables.
pub(super) fn prepare(command: &mut Command, folder: &Path, owner: Option<Owner>) {
    if let Some(Owner { uid, gid }) = owner {
        command.uid(uid).gid(gid);
    }
    command.current_dir(folder).env("LC_ALL", "C").env("TZ", "UTC");
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
}

/// Gives a file or folder to the server's user.
pub(super) fn give(path: &Path, owner: Option<Owner>) -> Result<(), DrillError> {
    give_quietly(path, owner).map_err(|source| DrillError::File {
        doing: "giving to the user postgres",
        path: path.into(),
        source,
    })
}

fn give_quietly(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    owner.map_or(Ok(()), |Owner { uid, gid }| chown(path, Some(uid), Some(gid)))
}

fn copy_folder(from: &Path, to: &Path, owner: Option<Owner>) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy, owner)?;
        } else {
            fs::copy(entry.path(), &copy)?;
            give_quietly(&copy, owner)?;
        }
    }
    // The server refuses a data folder that others may enter.
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    give_quietly(to, owner)
}
