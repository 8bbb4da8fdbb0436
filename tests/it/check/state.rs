//! What `check` says of settings and of the machine; and that it may run beside a daemon.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::{run, server, url};
use crate::daemon::{Home, settings};

#[tokio::test]
async fn every_mistake_in_the_settings_and_nothing_else() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "[poll]\nintervall = \"1s\"\n[rules.slots]\nwarning = { above = true }\n\
                [[targets]]\npostgres = \"postgresql://127.0.0.1:1/postgres\"\n";
    std::fs::write(file.path(), text).unwrap();
    let config = file.path().to_str().unwrap();
    let arguments = ["check", "--config", config, "--state-dir", "/tmp"];
    let ended = run(&arguments, &[]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (3, ""));
    insta::assert_snapshot!(ended.stdout.replace(config, "FILE"), @r"
    settings
      wrong    settings: FILE:2:1: poll.intervall: unknown key
                 hint: did you mean `interval`?
      wrong    settings: FILE:4:21: rules.slots.warning.above: expected a number between 0 and 1, found true
    0 ok, 0 warning, 2 wrong
    ");
    let ended = run(&[&arguments[..], &["--format", "json"]].concat(), &[]).await;
    assert_eq!(ended.code, 3);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["settings"].as_array().unwrap().len(), 2);
    assert_eq!(json["settings"][0]["hint"], "did you mean `interval`?");
}

/// Everything that there is to see of a folder's files: name, length, time of change.
fn files(folder: &Path) -> Vec<(String, u64, std::time::SystemTime)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let seen = entry.metadata().unwrap();
            (entry.file_name().to_string_lossy().into_owned(), seen.len(), seen.modified().unwrap())
        })
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_daemon_it_takes_no_lock_and_alters_no_file() {
    let server = server(20).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, ""));
    let daemon = home.start();
    daemon.until("a first reading", |target| target["severity"] == "ok").await;
    let state = home.state();
    let names = |files: &[(String, u64, std::time::SystemTime)]| -> Vec<String> {
        files.iter().map(|file| file.0.clone()).collect()
    };
    let before = files(&state);
    let (config, folder) = (home.config().display().to_string(), state.display().to_string());
    let arguments = ["check", "--config", &config, "--state-dir", &folder];
    let ended = run(&arguments, &[]).await;
    assert_eq!(ended.code, 0, "{}", ended.stdout);
    let line = ended.stdout.lines().find(|line| line.contains("state_dir:")).unwrap();
    assert!(line.contains("can be written; the daemon ") && line.ends_with(" uses it"), "{line}");
    assert_eq!(names(&files(&state)), names(&before));
    assert!(receiver.received().is_empty());
    let (status, log) = daemon.end();
    assert!(status.success() && !log.contains("WARN"), "{log}");

    // With nobody there it is as it was left, to the last byte.
    let before = files(&state);
    let ended = run(&arguments, &[]).await;
    assert_eq!(ended.code, 0, "{}", ended.stdout);
    assert_eq!(files(&state), before);
}

#[tokio::test]
async fn a_folder_that_cannot_be_is_wrong_and_one_that_is_not_there_is_not_made() {
    let server = server(20).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let check = async |state: &Path| {
        let state = state.display().to_string();
        run(&["check", "--postgres", &url(&server), "--state-dir", &state], &[]).await
    };
    let ended = check(&file.join("state")).await;
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(
        ended.stdout.contains("wrong    state_dir: nothing can be written in"),
        "{}",
        ended.stdout
    );
    let ended = check(&folder.path().join("a/b")).await;
    assert_eq!(ended.code, 0, "{}", ended.stdout);
    assert!(ended.stdout.contains("a/b is not there, and can be made"), "{}", ended.stdout);
    assert!(!folder.path().join("a").exists());
}

#[tokio::test]
async fn a_password_that_everybody_may_read_is_told() {
    let server = server(20).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "canary\n").unwrap();
    let config = folder.path().join("plimsoll.toml");
    let text = format!(
        "state_dir = \"state\"\n[[targets]]\nname = \"db\"\npostgres = \"{}\"\npassword_file = \
         \"password\"\n",
        url(&server)
    );
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    for (mode, is_told) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&password, PermissionsExt::from_mode(mode)).unwrap();
        let ended = run(&["check", "--config", &config], &[]).await;
        assert_eq!(ended.code, 0, "{}", ended.stdout);
        assert_eq!(ended.stdout.contains("password_file:"), is_told, "{}", ended.stdout);
    }
}
