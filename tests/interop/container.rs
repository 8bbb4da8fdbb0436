//! The image, and containers of it: made by buildah, run as a runtime runs them.
//!
//! A container here is the image's root, read-only, in a mount namespace of its own, with what
//! every runtime puts there (/proc, the names of hosts), entered by chroot as the image's own user
//! with its own environment and command. The network is this machine's, as with `--network host`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use plimsoll::drill::server::guard::Guard;
use serde_json::Value;

use crate::root;

/// What `scripts/image` is told to call it.
const NAME: &str = "localhost/plimsoll:test";

/// Mounts, then becomes the program: the process that was started is the one that runs.
/// `$1` is the root, `$2` the user; pairs of folders to mount; `--`; the program.
const ENTER: &str = r#"
root=$1 user=$2; shift 2
mount --bind "$root" "$root"
mkdir -p "$root/proc" "$root/etc"
mount -t proc proc "$root/proc"
for name in hosts resolv.conf; do
  : > "$root/etc/$name"
  if [ -e "/etc/$name" ]; then mount --bind "/etc/$name" "$root/etc/$name"; fi
done
while [ "$1" != -- ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  shift 2
done
shift
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" --groups= "$root" "$@"
"#;

/// The image, built of what lies in the repository now.
pub(crate) struct Image {
    /// Its configuration, as the OCI's specification has it.
    pub(crate) config: Value,
}

/// Builds it, once in a run of these tests.
pub(crate) fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let built = Command::new(root().join("scripts/image")).arg(NAME).status().unwrap();
        assert!(built.success(), "scripts/image: {built}");
        let said = builder(&["inspect", "--type", "image", NAME]);
        let said: Value = serde_json::from_str(&said).unwrap();
        Image { config: said["OCIv1"]["config"].clone() }
    })
}

/// Buildah; what it says.
pub(crate) fn builder(arguments: &[&str]) -> String {
    let said = Command::new(root().join("scripts/builder")).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{arguments:?}: {}\n{errors}", said.status);
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// A container: a fresh copy of the image's root. It goes with the test.
pub(crate) struct Container {
    pub(crate) name: String,
    root: PathBuf,
    _guard: Guard,
}

impl Container {
    /// Makes one.
    pub(crate) fn new() -> Self {
        image();
        let name = builder(&["from", "--pull-never", NAME]);
        let script = root().join("scripts/builder");
        let script = script.to_str().unwrap();
        let guard = Guard::new(r#""$1" rm "$2""#, [script, &name]).unwrap();
        let root = PathBuf::from(builder(&["mount", &name]));
        Self { name, root, _guard: guard }
    }

    /// What runs the image's command, with these folders of this machine mounted in it.
    pub(crate) fn command(&self, mounts: &[(&Path, &str)], env: &[(&str, &str)]) -> Command {
        let config = &image().config;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", ENTER, "enter"]);
        command.arg(&self.root).arg(config["User"].as_str().unwrap());
        for (here, inside) in mounts {
            command.arg(here).arg(inside);
        }
        command.arg("--").args(texts(&config["Entrypoint"])).args(texts(&config["Cmd"]));
        command.env_clear();
        for variable in texts(&config["Env"]) {
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, value);
        }
        command.envs(env.iter().copied());
        command
    }

    /// Every file and folder in it, with its mode, owner and size.
    pub(crate) fn files(&self) -> Vec<Entry> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let seen = path.symlink_metadata().unwrap();
                if seen.is_dir() {
                    folders.push(path.clone());
                }
                let inside = path.strip_prefix(&self.root).unwrap().to_str().unwrap();
                found.push(Entry {
                    path: format!("/{inside}"),
                    mode: seen.permissions().mode() & 0o7777,
                    owner: (seen.uid(), seen.gid()),
                    bytes: if seen.is_file() { seen.len() } else { 0 },
                });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let script = root().join("scripts/builder");
        // Left over, it is some MB in a cache that may be deleted.
        let _removed = Command::new(script).args(["rm", &self.name]).output();
    }
}

/// A file or folder of the image.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) bytes: u64,
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}
