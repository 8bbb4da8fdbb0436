//! Takes the text of a connection string apart, without knowing what its parameters mean.

use super::ConnInfoError;

/// A parameter and its value.
pub(super) type Pair = (String, String);

/// Takes `[user[:password]@][host][:port][,…][/dbname][?parameters]` apart.
pub(super) fn url_pairs(rest: &str) -> Result<Vec<Pair>, ConnInfoError> {
    let (front, query) = rest.split_once('?').unwrap_or((rest, ""));
    if query.contains('@') || front.split_once('/').is_some_and(|(_, path)| path.contains('@')) {
        return Err(ConnInfoError::Url(
            "an '@' stands behind a '/' or '?'; in a user or password they are written %40, %2F \
             and %3F",
        ));
    }
    let (authority, dbname) = front.split_once('/').unwrap_or((front, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = hosts_and_ports(hosts)?;
    let parts = [
        ("user", user),
        ("password", password),
        ("host", &host),
        ("port", &port),
        ("dbname", dbname),
    ];
    let mut pairs = Vec::new();
    for (key, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
        pairs.push((key.to_owned(), percent_decoded(part)?));
    }
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(ConnInfoError::Url("a parameter behind '?' has no '='"));
        };
        pairs.push((percent_decoded(key)?, percent_decoded(value)?));
    }
    Ok(pairs)
}

/// The lists of hosts and of ports; ports are left out if no host has one.
fn hosts_and_ports(hosts: &str) -> Result<(String, String), ConnInfoError> {
    let each = hosts.split(',').map(host_and_port).collect::<Result<Vec<_>, _>>()?;
    let (hosts, ports): (Vec<_>, Vec<_>) = each.into_iter().unzip();
    let has_ports = ports.iter().any(|port| !port.is_empty());
    Ok((hosts.join(","), if has_ports { ports.join(",") } else { String::new() }))
}

fn host_and_port(host: &str) -> Result<(&str, &str), ConnInfoError> {
    if let Some(bracketed) = host.strip_prefix('[') {
        let (host, after) = bracketed
            .split_once(']')
            .ok_or(ConnInfoError::Url("an IPv6 address has no closing ']'"))?;
        let port = after.strip_prefix(':').unwrap_or(after);
        return Ok((host, port));
    }
    match host.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            Err(ConnInfoError::Url("an IPv6 address stands in '[' and ']'"))
        }
        Some(both) => Ok(both),
        None => Ok((host, "")),
    }
}

fn percent_decoded(text: &str) -> Result<String, ConnInfoError> {
    let wrong = ConnInfoError::Url("a '%' is not followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(byte.filter(|byte| *byte != 0).ok_or_else(|| wrong.clone())?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| ConnInfoError::Url("it is not UTF-8 when decoded"))
}

/// Takes `key = value` and `key = 'a \'quoted\' value'` apart.
pub(super) fn key_value_pairs(text: &str) -> Result<Vec<Pair>, ConnInfoError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) =
            rest.split_once('=').ok_or(ConnInfoError::Pairs("a word stands without '='"))?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(ConnInfoError::Pairs("a word stands without '='"));
        }
        let (value, after) = one_value(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn one_value(text: &str) -> Result<(String, &str), ConnInfoError> {
    let quoted = text.strip_prefix('\'');
    let body = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted.is_some() => return Ok((value, &body[at + 1..])),
            c if quoted.is_none() && c.is_whitespace() => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    match quoted {
        Some(_) => Err(ConnInfoError::Pairs("a quoted value has no closing quote")),
        None => Ok((value, "")),
    }
}
