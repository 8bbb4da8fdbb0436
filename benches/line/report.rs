//! Tables: what was measured, each limit beside its figure, and the machine that it was measured
//! on. Markdown, ready to be published.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::Measured;
use super::machine;

/// A figure that has a limit.
#[derive(Clone, Debug)]
pub(super) struct Line {
    what: String,
    limit: String,
    figure: String,
    met: bool,
}

/// What a part found.
#[derive(Clone, Debug)]
pub(super) struct Report {
    name: &'static str,
    text: String,
    lines: Vec<Line>,
}

impl Report {
    /// An empty one. `versions` are those of everything that is compared in it.
    pub(super) fn new(name: &'static str, versions: &[String]) -> Self {
        let text = format!("{}; {}.\n", machine::described_now(), versions.join("; "));
        Self { name, text, lines: Vec::new() }
    }

    /// One with nothing to save but a sentence.
    pub(super) fn said(name: &'static str, text: String) -> Self {
        Self { name, text, lines: Vec::new() }
    }

    /// Adds a table: its head, then its rows.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.text.extend(["\n| ", &head.join(" | "), " |\n|", &"---|".repeat(head.len()), "\n"]);
        for row in rows {
            self.text.extend(["| ", &row.join(" | "), " |\n"]);
        }
    }

    /// Adds a sentence.
    pub(super) fn note(&mut self, text: &str) {
        self.text.extend(["\n", text, "\n"]);
    }

    /// Adds a figure that must not be above its limit.
    pub(super) fn line(&mut self, what: impl Into<String>, figure: f64, limit: f64, unit: &str) {
        self.lines.push(Line {
            what: what.into(),
            limit: format!("≤ {}", number(limit, unit)),
            figure: number(figure, unit),
            met: figure <= limit,
        });
    }

    /// All of it.
    pub(super) fn markdown(&self) -> String {
        let lines =
            if self.lines.is_empty() { String::new() } else { format!("\n{}", lines(&self.lines)) };
        format!("## {}\n\n{}{lines}", self.name, self.text)
    }

    /// Saves it, to be published.
    pub(super) fn save(&self, out: &Path) -> Measured<()> {
        if self.name == "publish" {
            return Ok(());
        }
        fs::create_dir_all(out)?;
        let limits =
            if self.lines.is_empty() { String::new() } else { format!("\n{}", lines(&self.lines)) };
        fs::write(out.join(format!("{}.md", self.name)), format!("{}{limits}", self.text))?;
        let rows: String = self.lines.iter().map(row).collect();
        fs::write(out.join(format!("{}.lines", self.name)), rows)?;
        Ok(())
    }
}

const HEAD: &str = "| | limit | measured | |\n|---|---|---|---|\n";

fn row(line: &Line) -> String {
    let met = if line.met { "met" } else { "**missed**" };
    format!("| {} | {} | {} | {met} |\n", line.what, line.limit, line.figure)
}

fn lines(lines: &[Line]) -> String {
    let rows: String = lines.iter().map(row).collect();
    format!("{HEAD}{rows}")
}

/// Every limit of these reports, in one table.
pub(super) fn summary(reports: &[Report]) -> String {
    let all: Vec<Line> = reports.iter().flat_map(|report| report.lines.clone()).collect();
    format!("## all limits\n\n{}.\n\n{}", machine::described(), lines(&all))
}

/// The parts whose limits are in the summary, in its order.
const SUMMED_UP: [&str; 9] =
    ["poll", "scrape", "memory", "size", "latency", "commit", "burst", "pooler", "instances"];

/// Saves one table of all limits that were measured so far, in this run or before.
pub(super) fn save_summary(out: &Path) -> Measured<()> {
    let mut text = format!("{}.\n\n{HEAD}", machine::described());
    let mut any = false;
    for part in SUMMED_UP {
        if let Ok(rows) = fs::read_to_string(out.join(format!("{part}.lines"))) {
            any = true;
            text.push_str(&rows);
        }
    }
    if any {
        fs::write(out.join("summary.md"), text)?;
    }
    Ok(())
}

/// A number with as many digits as are worth reading, and its unit.
pub(super) fn number(number: f64, unit: &str) -> String {
    let mut text = String::new();
    let written = match number.abs() {
        n if n >= 100.0 => write!(text, "{number:.0}"),
        n if n >= 10.0 => write!(text, "{number:.1}"),
        n if n >= 0.1 => write!(text, "{number:.2}"),
        _ => write!(text, "{number:.4}"),
    };
    // A String takes whatever it is given.
    written.unwrap_or_default();
    if unit.is_empty() { text } else { format!("{text} {unit}") }
}

/// The value below which this part of the sample lies; 0 for none.
pub(super) fn quantile(sample: &[f64], part: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = ((sorted.len() as f64 * part).ceil() as usize).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

/// The middle of a sample.
pub(super) fn median(sample: &[f64]) -> f64 {
    quantile(sample, 0.5)
}

/// The mean of a sample; 0 for none.
pub(super) fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / (sample.len().max(1) as f64)
}
