//! Whether text is a URL that a message can be posted to. Not a parser: `notify` has one, and
//! takes all that passes here.

/// Longer ones are refused by many servers and proxies.
const MAX_URL_BYTES: usize = 2048;

/// What is wrong with it, without a word of it: a webhook's URL is often its password.
pub(super) fn fault(url: &str) -> Option<&'static str> {
    if url.len() > MAX_URL_BYTES {
        return Some("it is longer than 2048 bytes");
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)) {
        return Some("it contains a space or another character that must be written as %XX");
    }
    if !percent_escapes_are_whole(url) {
        return Some("it contains a `%` without two hexadecimal digits behind it");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some("it begins with neither http:// nor https://");
    };
    if scheme != "http" && scheme != "https" {
        return Some("it begins with neither http:// nor https://");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if rest.contains('#') {
        return Some("it contains a `#`, and what follows one is never sent");
    }
    if authority.contains('@') {
        return Some("it contains a user name; a token belongs into its path or query");
    }
    host_fault(authority)
}

fn percent_escapes_are_whole(url: &str) -> bool {
    url.split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

fn host_fault(authority: &str) -> Option<&'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let Some((host, port)) = rest.split_once(']') else {
                return Some("it has an IPv6 address without its `]`");
            };
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Some("what stands in `[…]` is no IPv6 address");
            }
            (host, port)
        }
        None => match authority.find(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        },
    };
    if host.is_empty() {
        return Some("it names no host");
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if !host.bytes().all(is_name) {
        return Some("its host is no name and no address");
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if digits.parse::<u16>().is_ok_and(|port| port > 0) => None,
        _ => Some("its port is no number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_and_says_what_is_wrong_with_others() {
        for good in [
            "http://127.0.0.1:9000/plimsoll",
            "https://hooks.example.com/a/b?token=x%20y&z=1",
            "http://[::1]:80/",
            "https://events.eu.pagerduty.com",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for (bad, why) in [
            ("hooks.example.com/x", "neither http"),
            ("ftp://example.com", "neither http"),
            ("http://", "no host"),
            ("http://:80/", "no host"),
            ("http://exa mple.com", "a space"),
            ("http://example.com:99999/", "port"),
            ("http://example.com:/", "port"),
            ("http://[::1/", "IPv6"),
            ("http://[zz]/", "IPv6"),
            ("http://u:p@example.com/", "user name"),
            ("http://example.com/#x", "#"),
            ("http://example.com/%2", "%"),
            ("http://ex$ample.com/", "no name"),
        ] {
            let said = fault(bad).unwrap_or_default();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
