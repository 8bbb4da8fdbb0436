//! A log that we may not read: which right is missing is said, by the daemon, as an ordinary user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::daemon::launch::{Daemon, plimsoll, until};

/// Nobody's: what the test runs as, if it is root.
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A daemon that follows this path, and is not root.
fn daemon(home: &Path, path: &Path) -> Daemon {
    let settings = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [[targets]]\nname = \"db\"\npostgres = \"postgresql://127.0.0.1:1/postgres\"\n\
         [targets.log]\npath = \"{}\"\n",
        path.display()
    );
    let config = home.join("plimsoll.toml");
    fs::write(&config, settings).unwrap();
    let state = home.join("state");
    fs::create_dir_all(&state).unwrap();
    let mut command = plimsoll();
    command.arg("run").arg("--config").arg(&config).arg("--state-dir").arg(&state);
    if rustix::process::geteuid().is_root() {
        for path in [home, &config, &state] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    Daemon::start(command)
}

#[tokio::test]
async fn the_right_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    mode(folder.path(), 0o755);
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let file = logs.join("postgresql.json");
    fs::write(&file, "").unwrap();
    let pattern = logs.join("postgresql*.json");
    let cases = [
        // The mode of the folder and of the file, what is followed, and what is said.
        (0o755, 0o000, &file, format!("we may not read {}: \\\"r\\\" is missing", file.display())),
        (0o755, 0o000, &pattern, "\\\"r\\\" is missing".to_owned()),
        (0o000, 0o644, &file, format!("pass through {}: \\\"x\\\" is missing", logs.display())),
        (0o000, 0o644, &pattern, format!("we may not list {}", logs.display())),
    ];
    for (of_folder, of_file, path, expected) in cases {
        mode(&file, of_file);
        mode(&logs, of_folder);
        let home = tempfile::tempdir().unwrap();
        let daemon = daemon(home.path(), path);
        let said = until("what is wrong", || {
            let log = daemon.log();
            log.lines()
                .find(|line| line.contains("cannot be read") && line.contains("logs"))
                .map(str::to_owned)
        });
        let said = said.await;
        mode(&logs, 0o755);
        mode(&file, 0o644);
        assert!(said.contains("not_allowed"), "{said}");
        assert!(said.contains(&expected), "{said}\nhas not: {expected}");
        assert!(said.contains("we are uid ") && said.contains("mode 0000"), "{said}");
        // Once it is given, it is read; nothing has to be started again.
        until("a reading", || daemon.log().contains("readable again").then_some(())).await;
        let (status, _) = daemon.end();
        assert!(status.success());
    }
}
