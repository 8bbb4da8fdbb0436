//! How a command ends: one enum for all of them.

use std::process::ExitCode;

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: all is as it should be.
    Fine,
    /// 1: something failed: a port is taken, a drill's page did not come.
    Failure,
    /// 2: the command line was not understood.
    Usage,
    /// 3: the settings cannot be used.
    Settings,
    /// 4: a target is in trouble: it cannot be watched as it is.
    Target,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Fine => Self::from(0),
            Exit::Failure => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Settings => Self::from(3),
            Exit::Target => Self::from(4),
        }
    }
}
