//! The page at `/`: where everything is, and how the targets stand. Plain HTML without scripts;
//! it is made again at every request.

use std::fmt::Write as _;
use std::sync::Arc;

use plimsoll_core::judge::rule::words::percent;
use plimsoll_core::status::{Published, TargetStatus};

use super::metrics::printable;
use crate::health::Values;

/// The paths that a person can follow.
const LINKS: [(&str, &str); 5] = [
    ("/api/v1/targets", "every target: slots, sources, holders, alerts, incident"),
    ("/api/v1/incidents", "incidents, newest first; <code>?target=</code>, <code>?limit=</code>"),
    ("/metrics", "for Prometheus"),
    ("/healthz", "whether Plimsoll itself does its work"),
    ("/readyz", "whether every target was read at least once"),
];

pub(super) fn page(targets: &[Arc<Published>], health: &Values) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Plimsoll</title>\n\
         </head>\n<body>\n<h1>Plimsoll</h1>\n",
    );
    page.push_str(
        "<table>\n<tr><th>target</th><th>severity</th><th>used</th><th>usable</th><th>free</th>\
         <th>in use</th><th>sources</th><th>bottleneck</th><th>read at</th><th>incident</th></tr>\n",
    );
    for target in targets {
        row(&mut page, &target.status);
    }
    page.push_str("</table>\n");
    receivers(&mut page, health);
    page.push_str("<ul>\n");
    for (path, what) in LINKS {
        line(&mut page, format_args!("<li><a href=\"{path}\">{path}</a>: {what}</li>"));
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    page
}

/// Who is owed something, and who refused what; nothing without receivers.
fn receivers(page: &mut String, health: &Values) {
    if health.receivers.is_empty() {
        return;
    }
    page.push_str(
        "<table>\n<tr><th>receiver</th><th>owed</th><th>oldest since</th><th>last failure</th>\
         <th>parked: refused for good</th></tr>\n",
    );
    for (name, receiver) in &health.receivers {
        let oldest = receiver.oldest_owed_at.map_or_else(String::new, |at| at.to_string());
        let parked: Vec<String> = receiver.parked.iter().map(|text| escape(text)).collect();
        line(
            page,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{oldest}</td><td>{}</td><td>{}</td></tr>",
                escape(name),
                receiver.owed,
                escape(receiver.last_error.as_deref().unwrap_or("")),
                parked.join("<br>"),
            ),
        );
    }
    page.push_str("</table>\n");
}

fn row(page: &mut String, target: &TargetStatus) {
    let slots = match &target.slots {
        Some(slots) => format!(
            "<td>{}</td><td>{}</td><td>{}</td><td>{} %</td>",
            slots.used,
            slots.usable,
            slots.free,
            percent(slots.utilization)
        ),
        None => "<td>unknown</td>".repeat(4),
    };
    let sources: Vec<String> = target
        .sources
        .iter()
        .map(|source| {
            let stands = match (&source.error, &source.fallback) {
                (Some(error), _) => format!("{}: {}", escape(&source.state), escape(error)),
                (None, Some(refused)) => format!(
                    "{}, over a replication connection; ordinary logins are refused ({})",
                    escape(&source.state),
                    escape(refused)
                ),
                (None, None) => escape(&source.state),
            };
            format!("{}: {stands}", escape(&source.source))
        })
        .collect();
    let bottleneck = target.bottleneck.as_ref().map_or_else(String::new, |found| {
        format!("{}: {}", escape(&found.at.replace('_', " ")), escape(&found.figures))
    });
    let read_at = target.read_at.map_or_else(|| "not yet".to_owned(), |at| at.to_string());
    let incident = target.incident.as_ref().map_or_else(String::new, |incident| {
        let (id, summary) = (path_segment(&incident.id), escape(&incident.summary));
        format!("<a href=\"/api/v1/incidents/{id}\">{summary}</a>")
    });
    line(
        page,
        format_args!(
            "<tr><td><a href=\"/api/v1/targets/{}\">{}</a></td><td>{}</td>{slots}<td>{}</td>\
             <td>{bottleneck}</td><td>{read_at}</td><td>{incident}</td></tr>",
            path_segment(&target.name),
            escape(&target.name),
            escape(&target.severity),
            sources.join("<br>"),
        ),
    );
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to a string cannot fail");
}

/// Text as text, whatever it holds.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in printable(text, usize::MAX).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Text as one segment of a path.
fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            write!(segment, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    segment
}
