//! Puts saved tables where people read them: between `<!-- bench:NAME -->` and
//! `<!-- /bench:NAME -->` of README.md and docs/benchmarks.md.

use std::fs;
use std::path::Path;

use super::Measured;
use super::parameters::Parameters;
use super::report::Report;

const PAGES: [&str; 2] = ["README.md", "docs/benchmarks.md"];

const BEGIN: &str = "<!-- bench:";

pub(super) fn publish(parameters: &Parameters) -> Measured<Report> {
    let mut said = Vec::new();
    for page in PAGES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let before = fs::read_to_string(&path)?;
        let (after, replaced) = filled(&before, &parameters.out)?;
        if after != before {
            fs::write(&path, after)?;
        }
        said.push(format!("{page}: {}", replaced.join(", ")));
    }
    Ok(Report::said("publish", said.join("\n")))
}

/// The text with each saved table in its place, and what was replaced. A table that was never
/// measured leaves its place as it is.
fn filled(text: &str, saved: &Path) -> Measured<(String, Vec<String>)> {
    let (mut filled, mut replaced) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some((before, from)) = rest.split_once(BEGIN) {
        let (name, from) = from.split_once(" -->").ok_or("a mark of a table does not end")?;
        let end = format!("<!-- /bench:{name} -->");
        let (old, after) =
            from.split_once(&end).ok_or_else(|| format!("the place of {name} does not end"))?;
        let table = fs::read_to_string(saved.join(format!("{name}.md"))).ok();
        if table.is_some() {
            replaced.push(name.to_owned());
        }
        let inside = table.map_or_else(|| old.to_owned(), |table| format!("\n{}\n", table.trim()));
        filled.extend([before, BEGIN, name, " -->", &inside, &end]);
        rest = after;
    }
    filled.push_str(rest);
    Ok((filled, replaced))
}
