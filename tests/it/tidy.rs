//! The house, checked as text: what the compiler and clippy do not see.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file with its tests stays under about so many lines; a reader holds no more in mind.
const MAX_LINES: usize = 550;

/// Wider than this a line does not fit beside another. URLs and expected text may be wider.
const MAX_COLUMNS: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that belongs to the project, as git sees it.
fn files(ending: &str) -> Vec<(PathBuf, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    let named = names.lines().filter(|name| name.ends_with(ending) && root().join(name).exists());
    named
        .map(|name| (PathBuf::from(name), std::fs::read_to_string(root().join(name)).unwrap()))
        .collect()
}

fn report(mistakes: &[String]) {
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is_for_and_is_not_long() {
    let mut mistakes = Vec::new();
    let files = files(".rs");
    assert!(files.len() > 50, "only {} files were found", files.len());
    for (name, text) in files {
        let name = name.display();
        if !text.starts_with("//! ") {
            mistakes.push(format!("{name} does not open with //!"));
        }
        let lines = text.lines().count();
        if MAX_LINES < lines {
            mistakes.push(format!("{name} has {lines} lines; split it"));
        }
    }
    report(&mistakes);
}

#[test]
fn lines_are_not_wide() {
    let mut mistakes = Vec::new();
    for (name, text) in files(".rs") {
        for (number, line) in text.lines().enumerate() {
            let is_text = line.contains("http") || line.contains('"') || line.contains(": ");
            if MAX_COLUMNS < line.chars().count() && !is_text {
                mistakes.push(format!("{}:{} is too wide", name.display(), number + 1));
            }
        }
    }
    report(&mistakes);
}

#[test]
fn nothing_is_left_to_be_done() {
    // In two parts, so that this file does not find itself.
    let marks =
        [("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("unimple", "mented!"), ("#[ig", "nore")]
            .map(|(a, b)| format!("{a}{b}"));
    let mut mistakes = Vec::new();
    for (name, text) in files(".rs") {
        for mark in marks.iter().filter(|mark| text.contains(*mark)) {
            mistakes.push(format!("{} has {mark}", name.display()));
        }
    }
    report(&mistakes);
}

#[test]
fn core_can_name_no_runtime_socket_file_or_database() {
    let manifest = std::fs::read_to_string(root().join("core/Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    let (dependencies, _) = dependencies.split_once("[dev-dependencies]").unwrap();
    // Values and their forms; nothing that can open anything.
    let named: Vec<_> = dependencies
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()))
        .collect();
    assert_eq!(named, ["jiff", "serde", "sha2", "toml", "humantime"]);
    let forbidden =
        ["std::fs", "TcpStream", "UdpSocket", "std::env", "std::process", "std::thread", "std::io"];
    let mut mistakes = Vec::new();
    for (name, text) in files(".rs") {
        if !name.starts_with("core/src") {
            continue;
        }
        for path in forbidden.iter().filter(|path| text.contains(*path)) {
            mistakes.push(format!("{} names {path}", name.display()));
        }
    }
    report(&mistakes);
}

#[test]
fn verbs_do_not_import_each_other() {
    let verbs = ["collect", "store", "notify", "serve", "drill", "load"];
    let mut mistakes = Vec::new();
    for (name, text) in files(".rs") {
        let Ok(inside) = name.strip_prefix("src") else { continue };
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let own = first.trim_end_matches(".rs");
        if !verbs.contains(&own) {
            continue;
        }
        // What tests use is not what the program is made of.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for other in verbs.iter().filter(|other| **other != own) {
            let is_wired = (own, *other) == ("notify", "store");
            if !is_wired && code.contains(&format!("crate::{other}")) {
                mistakes.push(format!("{} imports {other}", name.display()));
            }
        }
    }
    report(&mistakes);
}

#[test]
fn each_kind_of_io_has_its_place() {
    let places = [
        ("tokio_postgres", vec!["src/collect", "src/drill"]),
        ("rusqlite", vec!["src/store"]),
        ("TcpListener", vec!["src/serve", "src/drill", "src/run"]),
        ("hyper_util::client", vec!["src/notify", "src/drill"]),
        // A password may come from a program: that one file, and the drills.
        ("process::Command", vec!["src/drill", "src/collect/login/password.rs"]),
        ("clippy::disallowed_methods", vec!["src/clock.rs"]),
    ];
    let mut mistakes = Vec::new();
    for (name, text) in files(".rs") {
        if !name.starts_with("src") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (word, allowed) in &places {
            if code.contains(word) && !allowed.iter().any(|place| name.starts_with(place)) {
                mistakes.push(format!("{} names {word}", name.display()));
            }
        }
    }
    report(&mistakes);
}

#[test]
fn no_more_packages_than_we_can_know() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let packages = lock.matches("[[package]]").count();
    assert!(packages <= 220, "{packages} packages in the lock file");
}
