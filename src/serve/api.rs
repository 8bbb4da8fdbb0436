//! The JSON of `/api/v1`: the wire types of `plimsoll_core::status`, found and cut, not changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::StatusCode;
use plimsoll_core::status::{IncidentStatus, TargetStatus};
use serde::Serialize;
use tokio::time::timeout;

use super::limits::{INCIDENT_READ_LIMIT, INCIDENTS_SHOWN, MAX_INCIDENTS_SHOWN};
use super::{Answer, IncidentQuery, Shared, json, refusal};

/// The answer of `/api/v1/targets`.
#[derive(Serialize)]
struct TargetsStatus<'a> {
    targets: Vec<&'a TargetStatus>,
}

/// The answer of `/api/v1/incidents`.
#[derive(Serialize)]
struct IncidentsStatus {
    incidents: Vec<IncidentStatus>,
    /// Why those of the record are missing; then only open ones are here, and the code is 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn targets(shared: &Shared) -> Answer {
    let published = shared.published();
    let targets = published.iter().map(|target| &target.status).collect();
    json(StatusCode::OK, &TargetsStatus { targets })
}

pub(super) fn target(shared: &Shared, escaped: &str) -> Answer {
    let Some(name) = unescape(escaped, false) else { return not_text() };
    let target = shared.targets.borrow().get(&name).map(|target| Arc::clone(&target.borrow()));
    match target {
        Some(target) => json(StatusCode::OK, &target.status),
        None => refusal(StatusCode::NOT_FOUND, &format!("no target is named {name:?}")),
    }
}

pub(super) async fn incidents(shared: &Shared, query: Option<&str>) -> Answer {
    let (target, limit) = match parse(query.unwrap_or_default()) {
        Ok(parsed) => parsed,
        Err(mistake) => return refusal(StatusCode::BAD_REQUEST, &mistake),
    };
    let mut incidents = open(shared);
    let recorded = read(shared, IncidentQuery::Newest { target: target.clone(), limit }).await;
    let error = match recorded {
        Ok(recorded) => {
            // An open incident is newer as it was published than as it was recorded.
            let ids: BTreeSet<String> = incidents.iter().map(|i| i.id.clone()).collect();
            incidents.extend(recorded.into_iter().filter(|i| !ids.contains(&i.id)));
            None
        }
        Err(error) => Some(error),
    };
    incidents.retain(|incident| target.as_ref().is_none_or(|target| incident.target == *target));
    incidents.sort_by(|a, b| b.opened_at.cmp(&a.opened_at).then_with(|| a.id.cmp(&b.id)));
    incidents.truncate(limit);
    let code = if error.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    json(code, &IncidentsStatus { incidents, error })
}

pub(super) async fn incident(shared: &Shared, escaped: &str) -> Answer {
    let Some(id) = unescape(escaped, false) else { return not_text() };
    let open = open(shared).into_iter().find(|incident| incident.id == id);
    let recorded = read(shared, IncidentQuery::One { id: id.clone() }).await;
    let recorded = recorded.map(|found| found.into_iter().find(|incident| incident.id == id));
    match (open, recorded) {
        // An open incident is newer as it was published; what became of its messages is recorded.
        (Some(open), recorded) => {
            let deliveries = recorded.ok().flatten().map(|i| i.deliveries).unwrap_or_default();
            json(StatusCode::OK, &IncidentStatus { deliveries, ..open })
        }
        (None, Ok(Some(incident))) => json(StatusCode::OK, &incident),
        (None, Ok(None)) => {
            refusal(StatusCode::NOT_FOUND, &format!("no incident has the id {id:?}"))
        }
        (None, Err(error)) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

/// Open incidents as they were published: they are known even while the disk stalls.
fn open(shared: &Shared) -> Vec<IncidentStatus> {
    shared.published().iter().filter_map(|target| target.status.incident.clone()).collect()
}

async fn read(shared: &Shared, query: IncidentQuery) -> Result<Vec<IncidentStatus>, String> {
    match timeout(INCIDENT_READ_LIMIT, (shared.incidents)(query)).await {
        Ok(read) => read,
        Err(_) => Err(format!(
            "reading the recorded incidents took longer than {} s",
            INCIDENT_READ_LIMIT.as_secs()
        )),
    }
}

fn not_text() -> Answer {
    refusal(StatusCode::BAD_REQUEST, "the path is not percent-encoded UTF-8")
}

/// The parameters of `/api/v1/incidents`. One that is not known is a mistake and not ignored: a
/// misspelt `target` would show the incidents of all.
fn parse(query: &str) -> Result<(Option<String>, usize), String> {
    let (mut target, mut limit) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = unescape(value, true)
            .ok_or_else(|| "the query is not percent-encoded UTF-8".to_owned())?;
        match key {
            "target" if target.is_none() => target = Some(value),
            "limit" if limit.is_none() => limit = Some(parse_limit(&value)?),
            "target" | "limit" => return Err(format!("`{key}` is given twice")),
            _ => return Err("unknown parameter; `limit` and `target` are known".to_owned()),
        }
    }
    Ok((target, limit.unwrap_or(INCIDENTS_SHOWN)))
}

fn parse_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=MAX_INCIDENTS_SHOWN).contains(&limit) => Ok(limit),
        _ => Err(format!("`limit` is not a number from 1 to {MAX_INCIDENTS_SHOWN}")),
    }
}

/// Undoes percent-encoding; `None` when it is broken or the bytes are no UTF-8.
fn unescape(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        bytes.push(match first {
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                rest = tail;
                let [high, low] = [digits[0], digits[1]].map(|d| char::from(d).to_digit(16));
                u8::try_from(high? * 16 + low?).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescapes_names() {
        let check = |text, name: Option<&str>| {
            assert_eq!(unescape(text, false).as_deref(), name, "{text}");
        };
        check("payment-db", Some("payment-db"));
        check("a%2Fb%20c+d", Some("a/b c+d"));
        check("%C3%A9", Some("é"));
        check("%c3", None);
        check("%4", None);
        check("%+1", None);
        check("100%", None);
        assert_eq!(unescape("a+b%2B", true).as_deref(), Some("a b+"));
    }

    #[test]
    fn reads_the_query_or_says_what_is_wrong() {
        let check = |query, expected: Result<(Option<&str>, usize), &str>| {
            let expected = expected.map(|(t, l)| (t.map(str::to_owned), l)).map_err(str::to_owned);
            assert_eq!(parse(query), expected, "{query}");
        };
        check("", Ok((None, 50)));
        check("limit=7&target=a%20b", Ok((Some("a b"), 7)));
        check("limit=500&", Ok((None, 500)));
        check("limit=501", Err("`limit` is not a number from 1 to 500"));
        check("limit=0", Err("`limit` is not a number from 1 to 500"));
        check("limit=-1", Err("`limit` is not a number from 1 to 500"));
        check("limit", Err("`limit` is not a number from 1 to 500"));
        check("limit=1&limit=2", Err("`limit` is given twice"));
        check("targte=a", Err("unknown parameter; `limit` and `target` are known"));
        check("target=%ff", Err("the query is not percent-encoded UTF-8"));
    }
}
