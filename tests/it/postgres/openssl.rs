//! Certificates made by the `openssl` program, as administrators make them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder in which certificates are made.
pub(super) struct Workshop(tempfile::TempDir);

impl Workshop {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs it in the folder; the words are separated by spaces.
    pub(super) fn openssl(&self, words: &str) -> String {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).current_dir(self.0.path());
        let ran = command.output().unwrap_or_else(|error| {
            panic!(
                "openssl: {error}; install it: apt-get install openssl (or scripts/need openssl)"
            )
        });
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "openssl {words}: {said}");
        String::from_utf8(ran.stdout).unwrap()
    }

    /// A key and a request for this name: `NAME.key`, `NAME.csr`.
    fn request(&self, name: &str, subject: &str, algorithm: &str) {
        self.openssl(&format!(
            "req -new -nodes -newkey {algorithm} -keyout {name}.key -out {name}.csr -subj {subject}"
        ));
    }

    /// An authority: `NAME.key`, `NAME.crt`.
    pub(super) fn authority(&self, name: &str) {
        self.openssl(&format!(
            "req -new -x509 -nodes -newkey {EC} -keyout {name}.key -out {name}.crt -subj /CN={name}"
        ));
    }

    /// A certificate of the authority `root`: `NAME.key`, `NAME.crt`. Without extensions it is
    /// made as the manual's "Creating Certificates" makes it.
    pub(super) fn signed(&self, name: &str, subject: &str, algorithm: &str, extensions: &str) {
        self.request(name, subject, algorithm);
        let mut words = format!(
            "x509 -req -in {name}.csr -days 30 -CA root.crt -CAkey root.key -CAcreateserial \
             -out {name}.crt"
        );
        if !extensions.is_empty() {
            std::fs::write(self.path("extensions"), extensions).unwrap();
            words.push_str(" -extfile extensions");
        }
        self.openssl(&words);
    }
}

pub(super) const EC: &str = "ec -pkeyopt ec_paramgen_curve:prime256v1";

/// Gives a file the permissions of a secret of its owner.
pub(super) fn only_for_owner(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
