//! What `plimsoll check` found, and how it is shown: as text for people, as JSON for programs.
//!
//! What is found is decided in the files beside this one; here nothing is.

use std::fmt;

use serde::Serialize;

use crate::cli::exit::Exit;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Grade {
    /// As it should be.
    Ok,
    /// It works, and will hurt some day.
    Warning,
    /// It does not work.
    Wrong,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at. In JSON as it is: fields are added, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Finding {
    /// What was looked at; a word that stays.
    pub(in crate::cli) check: &'static str,
    pub(in crate::cli) grade: Grade,
    /// What was seen, in words that stand alone.
    pub(in crate::cli) text: String,
    /// What can be done about it, where no statement says all of it.
    pub(in crate::cli) hint: Option<String>,
    /// SQL that mends it, one statement each, in this order.
    pub(in crate::cli) statements: Vec<String>,
    /// The statements take effect when the server is started anew.
    pub(in crate::cli) needs_restart: bool,
}

impl Finding {
    pub(super) fn new(check: &'static str, grade: Grade, text: impl Into<String>) -> Self {
        Self {
            check,
            grade,
            text: text.into(),
            hint: None,
            statements: Vec::new(),
            needs_restart: false,
        }
    }

    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Grade::Ok, text)
    }

    pub(super) fn warning(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Grade::Warning, text)
    }

    pub(super) fn wrong(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Grade::Wrong, text)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn run(mut self, statement: impl Into<String>) -> Self {
        self.statements.push(statement.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (grade, check) = (self.grade.word(), self.check);
        writeln!(f, "  {grade:<7}  {check}: {}", on_one_line(&self.text))?;
        for statement in &self.statements {
            writeln!(f, "             run: {}", on_one_line(statement))?;
        }
        if self.needs_restart {
            writeln!(f, "             then start the server anew")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "             hint: {}", on_one_line(hint))?;
        }
        Ok(())
    }
}

/// Names come from servers: none of them may begin a line of its own, or move the cursor.
fn on_one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.trim_end().chars().map(shown).collect()
}

/// What was found of one target or receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Subject {
    pub(super) name: String,
    /// Where it is, as far as that may be shown.
    pub(super) address: String,
    pub(super) findings: Vec<Finding>,
}

/// How many there are of each grade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Summary {
    ok: usize,
    warning: usize,
    wrong: usize,
}

/// Everything that was found. In JSON as it is: fields are added, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Findings {
    version: &'static str,
    summary: Summary,
    settings: Vec<Finding>,
    targets: Vec<Subject>,
    receivers: Vec<Subject>,
    machine: Vec<Finding>,
}

impl Findings {
    /// Settings that cannot be used: nothing else was looked at.
    pub(super) fn of_settings(mistakes: Vec<Finding>) -> Self {
        Self::new(mistakes, Vec::new(), Vec::new(), Vec::new())
    }

    pub(super) fn new(
        settings: Vec<Finding>,
        targets: Vec<Subject>,
        receivers: Vec<Subject>,
        machine: Vec<Finding>,
    ) -> Self {
        let mut all = Self {
            version: "1",
            summary: Summary::default(),
            settings,
            targets,
            receivers,
            machine,
        };
        let count = |grade: Grade| all.all().filter(|finding| finding.grade == grade).count();
        let (ok, warning, wrong) = (count(Grade::Ok), count(Grade::Warning), count(Grade::Wrong));
        all.summary = Summary { ok, warning, wrong };
        all
    }

    fn all(&self) -> impl Iterator<Item = &Finding> {
        let subjects = self.targets.iter().chain(&self.receivers);
        let of_subjects = subjects.flat_map(|subject| &subject.findings);
        self.settings.iter().chain(of_subjects).chain(&self.machine)
    }

    /// What the command ends with. Warnings are fine; of several kinds of trouble the one that is
    /// met first when the daemon starts.
    pub(super) fn exit(&self) -> Exit {
        let is_wrong = |findings: &[Finding]| findings.iter().any(|f| f.grade == Grade::Wrong);
        let any = |subjects: &[Subject]| subjects.iter().any(|s| is_wrong(&s.findings));
        if is_wrong(&self.settings) {
            Exit::Settings
        } else if any(&self.targets) {
            Exit::Target
        } else if any(&self.receivers) || is_wrong(&self.machine) {
            Exit::Failure
        } else {
            Exit::Fine
        }
    }

    pub(super) fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .expect("strings, numbers and lists can be written as JSON");
        text.push('\n');
        text
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section = |f: &mut fmt::Formatter<'_>, title: &str, findings: &[Finding]| {
            if findings.is_empty() {
                return Ok(());
            }
            writeln!(f, "{}", on_one_line(title))?;
            findings.iter().try_for_each(|finding| finding.fmt(f))
        };
        section(f, "settings", &self.settings)?;
        for target in &self.targets {
            section(f, &format!("target {} at {}", target.name, target.address), &target.findings)?;
        }
        for receiver in &self.receivers {
            let title = format!("receiver {} at {}", receiver.name, receiver.address);
            section(f, &title, &receiver.findings)?;
        }
        section(f, "this machine", &self.machine)?;
        let Summary { ok, warning, wrong } = self.summary;
        writeln!(f, "{ok} ok, {warning} warning, {wrong} wrong")
    }
}
