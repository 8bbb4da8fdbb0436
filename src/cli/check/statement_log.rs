//! Which settings make a server log our statements: a poll a second is more than two million
//! statements a week. `check` judges those of our session, `setup-sql` sets them for the role.

use std::time::Duration;

use super::finding::Finding;
use crate::cli::sql;
use crate::collect::postgres::inspect::Inspection;

/// A setting, and the value of it that logs none of our statements.
pub(in crate::cli) struct Quiet {
    pub(in crate::cli) setting: &'static str,
    pub(in crate::cli) value: &'static str,
    /// Whether a value of it has our statements logged.
    is_loud: fn(&Inspection, &str) -> bool,
    /// It is there only while some library is loaded.
    pub(in crate::cli) of_library: bool,
}

/// A poll takes some milliseconds, on a server with thousands of sessions some ten: statements that
/// are logged from here on are not ours.
const LONGER_THAN_A_POLL: Duration = Duration::from_millis(100);

/// All of them may be set by superusers only, or on 15 and later by whom they grant it to
/// (guc_tables.c: `PGC_SUSET`).
pub(in crate::cli) const QUIET: [Quiet; 11] = [
    Quiet {
        setting: "log_statement",
        value: "none",
        is_loud: |_, v| v == "all",
        of_library: false,
    },
    Quiet {
        setting: "log_min_duration_statement",
        value: "-1",
        is_loud: |_, v| is_below_a_poll(v),
        of_library: false,
    },
    Quiet { setting: "log_duration", value: "off", is_loud: |_, v| v == "on", of_library: false },
    Quiet {
        setting: "log_min_duration_sample",
        value: "-1",
        is_loud: |seen, v| is_below_a_poll(v) && is_sampled(seen, "log_statement_sample_rate"),
        of_library: false,
    },
    Quiet {
        setting: "log_transaction_sample_rate",
        value: "0",
        is_loud: |seen, _| is_sampled(seen, "log_transaction_sample_rate"),
        of_library: false,
    },
    Quiet {
        setting: "log_parser_stats",
        value: "off",
        is_loud: |_, v| v == "on",
        of_library: false,
    },
    Quiet {
        setting: "log_planner_stats",
        value: "off",
        is_loud: |_, v| v == "on",
        of_library: false,
    },
    Quiet {
        setting: "log_executor_stats",
        value: "off",
        is_loud: |_, v| v == "on",
        of_library: false,
    },
    Quiet {
        setting: "log_statement_stats",
        value: "off",
        is_loud: |_, v| v == "on",
        of_library: false,
    },
    Quiet {
        setting: "auto_explain.log_min_duration",
        value: "-1",
        is_loud: |seen, v| is_below_a_poll(v) && is_sampled(seen, "auto_explain.sample_rate"),
        of_library: true,
    },
    // Reads are what polls are; DDL and writes are not done.
    Quiet {
        setting: "pgaudit.log",
        value: "none",
        is_loud: |_, v| {
            let classes = v.to_lowercase();
            let of_ours = ["all", "read", "function", "misc"];
            classes.split(',').any(|class| of_ours.contains(&class.trim()))
        },
        of_library: true,
    },
];

fn is_below_a_poll(milliseconds: &str) -> bool {
    let longest = LONGER_THAN_A_POLL.as_millis() as f64;
    milliseconds.parse::<f64>().is_ok_and(|at| (0.0..longest).contains(&at))
}

/// A rate that is not there is 1.
fn is_sampled(seen: &Inspection, rate: &str) -> bool {
    seen.setting(rate).is_none_or(|rate| rate.parse() != Ok(0.0))
}

/// Whether polls are logged, and what ends that.
pub(super) fn find(seen: &Inspection) -> Finding {
    const CHECK: &str = "statement_log";
    let mut loud = Vec::new();
    for quiet in &QUIET {
        let Some(setting) = seen.settings.get(quiet.setting) else { continue };
        if (quiet.is_loud)(seen, &setting.value) {
            loud.push((quiet, setting));
        }
    }
    if loud.is_empty() {
        return Finding::ok(CHECK, "the server does not log our statements");
    }
    let named: Vec<String> =
        loud.iter().map(|(quiet, set)| format!("{} = {}", quiet.setting, set.value)).collect();
    let text = format!(
        "the server logs our statements ({}): with a poll a second some millions of lines a week",
        named.join(", ")
    );
    let mut finding = Finding::warning(CHECK, text);
    for (quiet, setting) in loud {
        if setting.source == "client" {
            finding.hint = Some("`options` of the address set it: take that out".to_owned());
            continue;
        }
        // What is set for the role in this database wins over what is set for the role.
        let place = if setting.source == "database user" {
            format!(" IN DATABASE {}", sql::name(&seen.role.database))
        } else {
            String::new()
        };
        let (role, value) = (sql::name(&seen.role.name), sql::text(quiet.value));
        finding = finding.run(format!("ALTER ROLE {role}{place} SET {} = {value};", quiet.setting));
    }
    finding
}
