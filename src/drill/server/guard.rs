//! Lets nothing outlive us: a small shell that waits for our end, however it comes.
//!
//! The shell reads from a pipe whose other end only we hold. When we are killed, by whatever, the
//! kernel closes it, the shell reads the end of file and cleans up. (`PR_SET_PDEATHSIG` would need
//! unsafe code, is Linux's alone, and fires when a thread ends.) Used by drills only.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::drill::DrillError;

/// Runs a script once we are gone; when it is dropped, the script is never run.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// `script` is POSIX shell and finds `arguments` as `$1`, `$2`…
    pub fn new<I>(script: &str, arguments: I) -> Result<Self, DrillError>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        // Ctrl-C goes to us alone: the guard has its own process group, and ignores the rest.
        let waiting = format!("trap '' HUP INT TERM; read -r _; {script}");
        let shell = Command::new("/bin/sh")
            .args(["-c", &waiting, "plimsoll-drill-guard"])
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| DrillError::Spawn { program: "/bin/sh".to_owned(), source })?;
        Ok(Self(shell))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only if the shell is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
