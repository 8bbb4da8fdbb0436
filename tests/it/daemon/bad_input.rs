//! What the command says of settings and places that cannot be used.

use std::process::{Command, Stdio};

use super::*;

fn refused(mut command: Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.stdout.is_empty(), "talk goes to stderr");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_port_that_is_taken_is_said_and_ends_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let home = Home::new(&format!(
        "[server]\nlisten = \"{address}\"\n[[targets]]\npostgres = \"postgresql://127.0.0.1:1/\"\n"
    ));
    let (code, said) = refused(home.command());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address.to_string()) && said.contains("hint: "), "{said}");
}

#[test]
fn a_state_folder_in_use_is_said_and_ends_with_1() {
    let home = Home::new(
        "[server]\nlisten = \"127.0.0.1:0\"\n[[targets]]\npostgres = \"postgresql://127.0.0.1:1/\"\n",
    );
    let _first = home.start();
    let (code, said) = refused(home.command());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use by another plimsoll"), "{said}");
}

#[test]
fn every_mistake_is_listed_with_its_place_and_ends_with_3() {
    let home = Home::new(
        "[pol]\ninterval = \"1s\"\n[rules.slots]\ncritical = { above = true, for = \"60\" }\n",
    );
    let (code, said) = refused(home.command());
    assert_eq!(code, Some(3), "{said}");
    for place in ["plimsoll.toml:1:2", "plimsoll.toml:4:22", "plimsoll.toml:4:34"] {
        assert!(said.contains(place), "{place} is not in\n{said}");
    }
}

#[test]
fn a_command_that_is_not_there_ends_with_2() {
    let mut command = plimsoll();
    command.arg("wach");
    let (code, said) = refused(command);
    assert_eq!(code, Some(2), "{said}");
}
