//! psql as it asks the bare query once a second: what the rhythm alone costs a client on this
//! machine, one that reads the rows, prints them, and does nothing else.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use plimsoll::drill::server::Server;

use super::Measured;
use super::meter::backend_ms;

/// One psql and its connection. It ends at the end of its input: when this is dropped, or with us.
#[derive(Debug)]
pub(super) struct Psql {
    child: Child,
    input: ChildStdin,
    last: f64,
}

impl Psql {
    pub(super) fn start(server: &Server) -> Measured<Self> {
        let program = server.programs().join("psql");
        let mut child = Command::new(&program)
            .env_clear()
            .args(["--no-psqlrc", "--quiet", "--dbname", &server.url("bench", "postgres")])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("starting {}: {error}", program.display()))?;
        let input = child.stdin.take().ok_or("psql has no input")?;
        Ok(Self { child, input, last: 0.0 })
    }

    /// Milliseconds on a processor since this was asked before, and the next question.
    pub(super) fn ask(&mut self, statement: &str) -> Measured<f64> {
        let gone = "psql is gone, or was refused";
        let now = backend_ms(self.child.id().cast_signed()).ok_or(gone)?;
        let spent = now - std::mem::replace(&mut self.last, now);
        // It reads until a line ends in a semicolon.
        writeln!(self.input, "{};", statement.replace('\n', " ")).map_err(|_| gone)?;
        Ok(spent)
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
