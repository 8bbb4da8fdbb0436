//! The password of one login: of the connection string, of a file, of a program, of `.pgpass`.
//!
//! All but the first are looked up anew at every login: passwords rotate, and the tokens of managed
//! services live for minutes. This is the one place outside of drills that starts a process. No
//! error shows what a file holds or what a program printed.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use plimsoll_core::settings::{PasswordFrom, Secret};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::Access;
use crate::collect::conninfo::passfile::{Whose, look_up};
use crate::collect::conninfo::{ConnInfo, Host};

/// What the server takes at most (`PG_MAX_AUTH_TOKEN_LENGTH` in libpq/auth.h); tokens have some
/// thousands.
const MAX_PASSWORD_BYTES: usize = 65_535;

/// A program says what is wrong in a line or two.
const MAX_STDERR_BYTES: usize = 64 * 1024;

/// So much of that line is passed on.
const MAX_SAID_CHARS: usize = 200;

/// A `.pgpass` of thousands of lines fits.
const MAX_PASSFILE_BYTES: usize = 1024 * 1024;

/// The command-line tools of clouds take one to three seconds for a token. Of its own and not
/// `poll.timeout`, which some set to less than that.
const COMMAND_AT_MOST: Duration = Duration::from_secs(10);

/// Why there is no password. The text is for people and holds none.
#[derive(Debug, thiserror::Error)]
pub(in crate::collect) enum PasswordError {
    #[error("reading the password from {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("getting the password from {program}: {why}")]
    Command { program: String, why: String },
}

/// The password, as far as it is known before it is known which host answers.
pub(in crate::collect) enum Password {
    /// It is the same for each host.
    Known(Vec<u8>),
    /// What stands in `.pgpass`.
    Passfile { path: PathBuf, text: Vec<u8> },
    /// There is none; why, if there might have been one.
    None(Option<String>),
}

impl Password {
    /// Looks it up.
    pub(in crate::collect) async fn of(access: &Access) -> Result<Self, PasswordError> {
        let info = &access.conninfo;
        match &access.password {
            Some(PasswordFrom::File(path)) => from_file(path).await.map(Self::Known),
            Some(PasswordFrom::Command(words)) => {
                from_command(words, COMMAND_AT_MOST).await.map(Self::Known)
            }
            None => match (&info.password, &info.passfile) {
                (Some(password), _) => Ok(Self::Known(password.expose().as_bytes().to_vec())),
                (None, Some(path)) => Ok(from_passfile(path).await),
                (None, None) => Ok(Self::None(None)),
            },
        }
    }

    /// The one for this host.
    pub(in crate::collect) fn at(
        &self,
        host: &Host,
        info: &ConnInfo,
        user: &str,
    ) -> Option<Vec<u8>> {
        match self {
            Self::Known(password) => Some(password.clone()),
            Self::None(_) => None,
            Self::Passfile { text, .. } => {
                let (host, port) = (&host.name_in_passfile(), host.port);
                look_up(text, &Whose { host, port, database: &info.dbname, user })
            }
        }
    }

    /// Said where the server asks for a password and there is none.
    pub(in crate::collect) fn why_none(&self) -> String {
        match self {
            Self::Known(_) => String::new(),
            Self::Passfile { path, .. } => {
                format!("{} has none for this host, port, database and user", path.display())
            }
            Self::None(Some(why)) => why.clone(),
            Self::None(None) => {
                "set password_file or password_command, or write it into ~/.pgpass".to_owned()
            }
        }
    }
}

async fn from_file(path: &Path) -> Result<Vec<u8>, PasswordError> {
    let wrong = |source| PasswordError::File { path: path.to_owned(), source };
    let text = read_some(path, MAX_PASSWORD_BYTES).await.map_err(wrong)?;
    first_line(&text).map_err(|why| wrong(io::Error::new(ErrorKind::InvalidData, why)))
}

async fn read_some(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    tokio::fs::File::open(path).await?.take(most as u64 + 1).read_to_end(&mut text).await?;
    Ok(text)
}

fn first_line(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err("its first line is empty");
    }
    if line.len() > MAX_PASSWORD_BYTES {
        return Err("its first line is longer than any password");
    }
    if line.contains(&0) {
        return Err("its first line holds a NUL character");
    }
    Ok(line.to_vec())
}

/// As libpq: a file that is not there is none, and one that others may read is not used.
async fn from_passfile(path: &Path) -> Password {
    let shown = path.display();
    let found = match tokio::fs::metadata(path).await {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Password::None(Some(format!(
                "set password_file or password_command, or write it into {shown}"
            )));
        }
        Err(error) => {
            return Password::None(Some(format!(
                "{shown} was not used: it cannot be read: {error}"
            )));
        }
    };
    let unused = |why: &str| Password::None(Some(format!("{shown} was not used: {why}")));
    if !found.is_file() {
        return unused("it is no ordinary file");
    }
    if found.mode() & 0o077 != 0 {
        return unused("others may read it; chmod 0600 it");
    }
    match read_some(path, MAX_PASSFILE_BYTES).await {
        Ok(text) if text.len() > MAX_PASSFILE_BYTES => unused("it is longer than 1 MB"),
        Ok(text) => Password::Passfile { path: path.to_owned(), text },
        Err(error) => unused(&format!("it cannot be read: {error}")),
    }
}

/// Runs a program and takes the first line that it prints. It has no input, our environment, a
/// process group of its own that is killed when it takes too long or the login is given up, and
/// its output is read up to a bound.
async fn from_command(words: &[Secret], at_most: Duration) -> Result<Vec<u8>, PasswordError> {
    let program = words.first().map(Secret::expose).unwrap_or_default();
    let wrong = |why: String| PasswordError::Command { program: program.to_owned(), why };
    let mut command = Command::new(program);
    command.args(words.iter().skip(1).map(Secret::expose));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.process_group(0).kill_on_drop(true).spawn();
    let child = child.map_err(|error| wrong(why_not_started(&error)))?;
    let mut running = Running { group: child.id(), child };
    match tokio::time::timeout(at_most, running.output()).await {
        Err(_) => Err(wrong(format!("it took longer than {} s", at_most.as_secs_f64()))),
        Ok(Err(error)) => Err(wrong(error.to_string())),
        Ok(Ok((status, printed, said))) => {
            running.group = None;
            if status.success() {
                first_line(&printed).map_err(|why| wrong(format!("of what it printed, {why}")))
            } else {
                Err(wrong(format!("{status}{}", last_words(&said, &printed))))
            }
        }
    }
}

fn why_not_started(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such program (password_command)".to_owned(),
        ErrorKind::PermissionDenied => {
            "it may not be run by the user that runs plimsoll (password_command)".to_owned()
        }
        _ => format!("it cannot be started: {error}"),
    }
}

/// The first line that was said, unless it repeats what was printed: that may be the password.
fn last_words(said: &[u8], printed: &[u8]) -> String {
    let (said, printed) = (String::from_utf8_lossy(said), String::from_utf8_lossy(printed));
    let Some(line) = said.lines().map(str::trim).find(|line| !line.is_empty()) else {
        return String::new();
    };
    let words = printed.split_whitespace();
    if words.clone().any(|word| line.contains(word)) {
        return "; what it said is not shown, because it repeats what it printed".to_owned();
    }
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = line.chars().take(MAX_SAID_CHARS).map(clean).collect();
    format!(": {line}")
}

/// A program that runs. Dropped before its end, its whole group is killed.
struct Running {
    child: Child,
    /// The process group, until it has ended by itself.
    group: Option<u32>,
}

impl Running {
    /// What it printed and said, and how it ended.
    async fn output(&mut self) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let printed = read_all(stdout, MAX_PASSWORD_BYTES);
        let said = read_all(stderr, MAX_STDERR_BYTES);
        let (printed, said) = tokio::try_join!(printed, said)?;
        // Not before both are closed: as long as anybody of its group is left, the group's number
        // is nobody else's.
        Ok((self.child.wait().await?, printed, said))
    }
}

async fn read_all(stream: Option<impl AsyncRead + Unpin>, most: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(stream) = stream {
        stream.take(most as u64 + 1).read_to_end(&mut all).await?;
    }
    if all.len() > most {
        return Err(io::Error::other("it prints more than any password has"));
    }
    Ok(all)
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = self.group.and_then(|group| Pid::from_raw(group.cast_signed()));
        if let Some(group) = group {
            // It fails only if everybody in it is gone already.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten times what any of these programs takes.
    const LONG: Duration = Duration::from_mins(1);

    fn run(script: &str) -> Result<String, String> {
        let words = ["/bin/sh", "-c", script].map(Secret::new);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let password = runtime.block_on(from_command(&words, LONG));
        password.map(|p| String::from_utf8(p).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_line_that_a_program_prints_is_the_password() {
        assert_eq!(run("echo token; echo more"), Ok("token".to_owned()));
        assert_eq!(run("printf 'a b\\r\\n'; echo warning >&2"), Ok("a b".to_owned()));
        // It has no input to wait for, and our environment.
        assert_eq!(run("read line; test -n \"$PATH\" && echo token"), Ok("token".to_owned()));
        let long = "x".repeat(5_000);
        assert_eq!(run(&format!("echo {long}")), Ok(long));
    }

    #[test]
    fn what_a_program_does_wrong_is_said_without_what_it_printed() {
        let cases = [
            ("exit 3", "getting the password from /bin/sh: exit status: 3"),
            ("echo 'token expired' >&2; exit 1", "exit status: 1: token expired"),
            ("printf '\\n  a\\033b\\n' >&2; exit 1", "exit status: 1: a b"),
            ("echo canary; exit 1", "exit status: 1"),
            ("echo canary; echo no canary >&2; exit 1", "it repeats what it printed"),
            ("printf 'my canary'; echo got my canary >&2; exit 1", "it repeats what it printed"),
            ("kill -9 $$", "signal: 9"),
            ("true", "its first line is empty"),
            ("echo; echo canary", "its first line is empty"),
            ("printf 'canary\\0'", "a NUL character"),
            ("yes canary", "prints more than any password has"),
            ("yes canary >&2", "prints more than any password has"),
        ];
        for (script, expected) in cases {
            let said = run(script).unwrap_err();
            assert!(said.contains(expected), "{script}: {said}");
            assert!(!said.contains("canary"), "{script}: {said}");
        }
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_run_is_said_to_be_missing() {
        let said = |words: &[&str]| {
            let words: Vec<Secret> = words.iter().map(|word| Secret::new(*word)).collect();
            async move { from_command(&words, LONG).await.unwrap_err().to_string() }
        };
        let missing = said(&["no-such-program-here", "canary"]).await;
        assert!(missing.contains("no-such-program-here: there is no such program"), "{missing}");
        let folder = said(&["/", "canary"]).await;
        assert!(folder.contains("it may not be run by the user"), "{folder}");
        assert!(!format!("{missing}{folder}").contains("canary"));
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_not_waited_for() {
        let words = ["/bin/sh", "-c", "echo canary; exec sleep 600"].map(Secret::new);
        let said = from_command(&words, Duration::from_millis(100)).await.unwrap_err().to_string();
        assert!(said.ends_with("it took longer than 0.1 s"), "{said}");
    }

    /// Whoever it started holds the pipe: it is closed when they are all gone.
    #[tokio::test]
    async fn a_program_whose_login_is_given_up_is_killed_with_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let script = format!("(echo here; exec sleep 600) > {} & sleep 600", pipe.display());
        let words = ["/bin/sh", "-c", &script].map(Secret::new);
        let mut reader = tokio::select! {
            opened = tokio::fs::File::open(&pipe) => opened.unwrap(),
            password = from_command(&words, LONG) => panic!("it ended: {password:?}"),
        };
        let mut all = String::new();
        reader.read_to_string(&mut all).await.unwrap();
        assert!(["", "here\n"].contains(&all.as_str()), "{all:?}");
    }
}
