//! Where a receiver is, taken apart once: the URL to post to, and all of it that must never be
//! shown. Webhook URLs hold tokens.

use hyper::Uri;
use plimsoll_core::settings::Secret;

/// Shorter parts of a path are words, not tokens, and hiding them would make messages unreadable.
const SHORTEST_TOKEN: usize = 8;

/// A URL that can be posted to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    uri: Uri,
    hidden: Hidden,
}

impl Endpoint {
    /// Takes an `http` or `https` URL apart; `None` if it is none. One with a user and a password
    /// is none: settings refuse it, and nothing here would send them.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.trim().parse().ok()?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return None;
        }
        let authority = uri.authority()?.as_str();
        if authority.contains('@') || uri.host().is_none_or(str::is_empty) {
            return None;
        }
        let mut hidden = Hidden::default();
        if let Some(path) = uri.path_and_query() {
            hidden.add_path(path.as_str());
        }
        Some(Self { uri, hidden })
    }

    /// The URL to post to.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// What must not be shown of it.
    pub fn hidden(&self) -> &Hidden {
        &self.hidden
    }
}

/// All of a URL that may be shown.
pub fn origin(uri: &Uri) -> String {
    match (uri.scheme_str(), uri.host(), uri.port_u16()) {
        (Some(scheme), Some(host), Some(port)) => format!("{scheme}://{host}:{port}"),
        (Some(scheme), Some(host), None) => format!("{scheme}://{host}"),
        _ => "elsewhere on the same host".to_owned(),
    }
}

/// Undoes percent-encoding; `None` if it is broken.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Texts that are replaced wherever a message of others repeats them.
#[derive(Clone, Default)]
pub struct Hidden(Vec<Secret>);

impl Hidden {
    /// Hides a text, but for one so short that it would be found everywhere.
    pub fn add(&mut self, text: &str) {
        if text.len() >= 4 && !self.0.iter().any(|h| h.expose() == text) {
            self.0.push(Secret::new(text));
            // The longest first, so that none is left in part.
            self.0.sort_by_key(|h| std::cmp::Reverse(h.expose().len()));
        }
    }

    /// Hides a path and its query, as a whole and whatever in it may be a token.
    fn add_path(&mut self, path: &str) {
        self.add(path);
        for part in path.split(['/', '?', '&', '=', '#']) {
            if part.len() >= SHORTEST_TOKEN {
                self.add(part);
                if let Some(decoded) = decoded(part) {
                    self.add(&decoded);
                }
            }
        }
    }

    /// The text with `***` in place of all that is hidden.
    pub fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, hidden| text.replace(hidden.expose(), "***"))
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_once() {
        let check = |url: &str, expected: Option<&str>| {
            let found = Endpoint::parse(url).map(|e| e.uri().to_string());
            assert_eq!(found.as_deref(), expected, "{url}");
        };
        check("http://127.0.0.1:9000/plimsoll", Some("http://127.0.0.1:9000/plimsoll"));
        check("https://hooks.example\n", Some("https://hooks.example/"));
        check("https://[::1]:8/x?y=z#f", Some("https://[::1]:8/x?y=z"));
        check("HTTPS://h.example/", Some("https://h.example/"));
        check("https://u:p@h.example/x", None);
        check("ftp://h.example/", None);
        check("h.example/x", None);
        check("http://", None);
        check("http:///x", None);
        check("http://h.example/a b", None);
    }

    #[test]
    fn what_others_repeat_of_a_url_is_hidden() {
        let url = "https://h.example/services/T0/B1234567/very%21secret?token=abcd1234";
        let endpoint = Endpoint::parse(url).unwrap();
        let check = |text: &str, expected: &str| {
            assert_eq!(endpoint.hidden().scrub(text), expected);
        };
        check("no /services/T0/B1234567/very%21secret?token=abcd1234 here", "no *** here");
        check("unknown very%21secret, abcd1234", "unknown ***, ***");
        check("very!secret of services", "*** of ***");
        assert_eq!(origin(endpoint.uri()), "https://h.example");
        assert_eq!(format!("{:?}", endpoint.hidden()), "***");
    }
}
