//! Tests that run themselves again in a namespace of their own (`unshare`): one in which they can
//! take the network away, or say which names the machine knows.
//!
//! As an ordinary user that needs a kernel that allows user namespaces.

use std::path::Path;
use std::process::Command;

/// Set in the run within.
const WITHIN: &str = "PLIMSOLL_TEST_WITHIN";

/// Where `ip` and `mount` are; not in everybody's `PATH`.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// What is a test's own within.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own {
    /// A network in which there is nothing yet.
    Network,
    /// What is mounted.
    Mounts,
}

/// Whether this is the run within.
pub(crate) fn is_within() -> bool {
    std::env::var_os(WITHIN).is_some()
}

/// Runs the test of this name again, within, and passes if that does.
pub(crate) fn pass_within(own: Own, test: &str) {
    let mut command = Command::new("unshare");
    let (what, user) = match own {
        // Still the same user, whom Postgres runs as, and allowed to see to this namespace.
        Own::Network => ("--net", ["--user", "--map-current-user", "--keep-caps"].as_slice()),
        // `mount` asks for root.
        Own::Mounts => ("--mount", ["--user", "--map-root-user"].as_slice()),
    };
    if !rustix::process::geteuid().is_root() {
        command.args(user);
    }
    command.arg(what).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(WITHIN, "1");
    let said = command.output().expect("unshare (Debian: util-linux) is needed");
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(
        said.status.success() && text.contains("1 passed"),
        "{text}\nhint: `unshare {what}` must be allowed; in a container, with --privileged"
    );
}

/// Takes the network away, or gives it: `up` or `down`.
pub(crate) fn link(state: &str) {
    assert!(is_within(), "not the machine's own network");
    run("ip", "scripts/need ip", &["link", "set", "lo", state]);
}

/// Makes this file the one that says which names the machine knows. The resolver reads it anew at
/// each call.
pub(crate) fn know_the_names_of(hosts: &Path) {
    assert!(is_within(), "not the machine's own names");
    run("mount", "Debian: mount", &["--bind", hosts.to_str().unwrap(), "/etc/hosts"]);
}

fn run(program: &str, hint: &str, arguments: &[&str]) {
    let said = Command::new(program).env("PATH", PATH).args(arguments).output();
    let said = said.unwrap_or_else(|error| panic!("{program} is needed ({hint}): {error}"));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
