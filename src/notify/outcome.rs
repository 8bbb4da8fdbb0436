//! What an answer means for the notification that it answers: accepted, tried again, or parked.
//! The same for every receiver but where its own file says otherwise. Pure.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderMap, LOCATION, RETRY_AFTER};
use jiff::Timestamp;

use super::endpoint::origin;
use super::http::Answer;

/// So much of what a receiver says is shown.
const MAX_SAID: usize = 300;

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Accepted,
    /// Another attempt may succeed.
    Retry {
        /// Not before this long; the receiver as a whole is left alone meanwhile.
        after: Option<Duration>,
        /// What went wrong. May hold what the receiver said, and so is not yet fit to be shown.
        why: String,
    },
    /// No further attempt can succeed: a person must look.
    Park {
        /// What went wrong, as above.
        why: String,
    },
}

/// What the status of an answer says. `throttle` is the pause after a 429 that names none.
pub fn by_status(answer: &Answer, now: Timestamp, throttle: Duration) -> Outcome {
    let status = answer.status;
    if status.is_success() {
        return Outcome::Accepted;
    }
    let why = in_words(answer);
    if may_pass(status) {
        let asked = retry_after(&answer.headers, &answer.body, now);
        let throttled = (status == StatusCode::TOO_MANY_REQUESTS).then_some(throttle);
        return Outcome::Retry { after: asked.or(throttled), why };
    }
    Outcome::Park { why }
}

/// Whether the same request may succeed later. Other 4xx are about the request itself, and a
/// redirect is a mistake in settings.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || status.is_informational()
        || matches!(
            status,
            StatusCode::PROXY_AUTHENTICATION_REQUIRED
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::MISDIRECTED_REQUEST
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS
        )
}

/// `answered 404 Not Found: no such hook`.
fn in_words(answer: &Answer) -> String {
    let mut words = format!("answered {}", answer.status);
    if answer.status.is_redirection() {
        // The path of where it leads may hold a token, and is not followed anyway.
        let to = answer.headers.get(LOCATION).and_then(|l| l.to_str().ok()?.parse().ok());
        let to = to.map_or("elsewhere".to_owned(), |uri| origin(&uri));
        return format!("{words}: it redirects to {to}, and redirects are not followed");
    }
    let said = said(&answer.body);
    if !said.is_empty() {
        words.push_str(": ");
        words.push_str(&said);
    }
    words
}

/// What the receiver said, as one bounded line without control characters.
pub fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let line = words.filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
    cut(&line, MAX_SAID)
}

/// The text, or so many characters of it of which the last is `…`.
pub fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    text.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
}

/// How long the receiver wants to be left alone: the header in seconds (whole, as RFC 9110 says,
/// or broken, as some do) or as a date, else `retry_after` in a JSON body (Discord, Slack).
pub fn retry_after(headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    if let Some(asked) = header.and_then(|value| seconds(value).or_else(|| until(value, now))) {
        return Some(asked);
    }
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    match body.get("retry_after")? {
        serde_json::Value::String(text) => seconds(text),
        number => of_seconds(number.as_f64()?),
    }
}

fn seconds(text: &str) -> Option<Duration> {
    of_seconds(text.trim().parse().ok()?)
}

/// Years are as good as for ever: what is too long is cut by whoever waits.
fn of_seconds(seconds: f64) -> Option<Duration> {
    const TEN_YEARS: f64 = 10.0 * 365.0 * 86_400.0;
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(TEN_YEARS)))
}

fn until(text: &str, now: Timestamp) -> Option<Duration> {
    let date = Timestamp::try_from(httpdate::parse_http_date(text.trim()).ok()?).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn now() -> Timestamp {
        "2024-03-15T14:39:00Z".parse().unwrap()
    }

    #[test]
    fn every_status_has_an_outcome() {
        let check = |status, expected: &str| {
            let outcome = match by_status(&answer(status, &[], ""), now(), Duration::ZERO) {
                Outcome::Accepted => "accepted",
                Outcome::Retry { .. } => "retry",
                Outcome::Park { .. } => "park",
            };
            assert_eq!(outcome, expected, "{status}");
        };
        for status in 100..=599 {
            let expected = match status {
                200..=299 => "accepted",
                100..=199 | 407 | 408 | 421 | 425 | 429 | 500..=599 => "retry",
                _ => "park",
            };
            check(status, expected);
        }
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        let check = |headers: &[(&str, &str)], body, expected: Option<f64>| {
            let answer = answer(429, headers, body);
            let asked = retry_after(&answer.headers, &answer.body, now());
            assert_eq!(asked.map(|d| d.as_secs_f64()), expected, "{headers:?} {body}");
        };
        check(&[], "", None);
        check(&[("retry-after", "7")], "", Some(7.0));
        check(&[("retry-after", " 1.5 ")], "", Some(1.5));
        check(&[("retry-after", "Fri, 15 Mar 2024 14:40:30 GMT")], "", Some(90.0));
        check(&[("retry-after", "Fri, 15 Mar 2024 14:38:00 GMT")], "", Some(0.0));
        check(&[], r#"{"retry_after": 64.57, "global": false}"#, Some(64.57));
        check(&[], r#"{"retry_after": "3"}"#, Some(3.0));
        check(&[("retry-after", "65")], r#"{"retry_after": 64.57}"#, Some(65.0));
        check(&[("retry-after", "soon")], r#"{"retry_after": 2}"#, Some(2.0));
        check(&[("retry-after", "-1")], "", None);
        check(&[("retry-after", "NaN")], "", None);
        check(&[("retry-after", "inf")], "", Some(315_360_000.0));
        check(&[("retry-after", "1e300")], "", Some(315_360_000.0));
        check(&[], "message_limit_exceeded", None);
    }

    #[test]
    fn a_throttle_without_a_time_has_the_receivers_own() {
        let outcome = by_status(&answer(429, &[], ""), now(), Duration::from_secs(30));
        let why = "answered 429 Too Many Requests".to_owned();
        assert_eq!(outcome, Outcome::Retry { after: Some(Duration::from_secs(30)), why });
    }

    #[test]
    fn words_are_one_bounded_line_and_a_redirect_shows_no_path() {
        let body = format!("no\r\n\x1b[31msuch hook{}", "x".repeat(1000));
        let Outcome::Park { why } = by_status(&answer(404, &[], &body), now(), Duration::ZERO)
        else {
            panic!("not parked");
        };
        assert!(why.starts_with("answered 404 Not Found: no [31msuch hookxxx"), "{why}");
        assert!(why.chars().count() < MAX_SAID + 50 && why.ends_with('…'));

        let redirect = answer(302, &[("location", "https://other.example/token")], "");
        let why = "answered 302 Found: it redirects to https://other.example, \
                   and redirects are not followed";
        let parked = Outcome::Park { why: why.to_owned() };
        assert_eq!(by_status(&redirect, now(), Duration::ZERO), parked);
    }
}
