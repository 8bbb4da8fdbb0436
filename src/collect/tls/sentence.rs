//! Refused certificates in words, with the way to issue them anew.
//!
//! The PostgreSQL manual's own recipes ("Creating Certificates") make certificates that libpq takes
//! and rustls does not: of version 1, with a name in the subject only, or one of an authority in
//! the place of a server's. No check of ours makes up for that; these sentences say what to do.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// A certificate can be for hundreds of names; so many of them are said.
const MAX_NAMES: usize = 5;

/// The part of a certificate's request that makes it one for this server.
fn extensions(host: &str) -> String {
    let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!("subjectAltName={kind}:{host}")
}

/// Whether TLS is what failed: a certificate, a protocol, an alert of the server's.
pub(in crate::collect) fn is_tls(error: &(dyn Error + 'static)) -> bool {
    tls_error(error).is_some()
}

/// What is wrong and what mends it, if TLS is what failed. `authorities` says whose certificates
/// are accepted.
pub(in crate::collect) fn about(
    error: &(dyn Error + 'static),
    host: &str,
    authorities: &str,
) -> Option<String> {
    let said = match tls_error(error)? {
        rustls::Error::InvalidCertificate(wrong) => about_certificate(wrong, host, authorities),
        rustls::Error::AlertReceived(alert) => about_alert(*alert),
        other => format!("the TLS handshake failed: {other}"),
    };
    Some(said)
}

/// What is wrong with our own certificate.
pub(super) fn about_own(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "its key is another's".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("UnsupportedCertVersion") =>
        {
            "it is of X.509 version 1; issue it again as version 3, with openssl x509 -req … \
             -extfile"
                .to_owned()
        }
        other => other.to_string(),
    }
}

fn about_certificate(wrong: &CertificateError, host: &str, authorities: &str) -> String {
    let extensions = extensions(host);
    match wrong {
        CertificateError::NotValidForName => not_for(host, &[]),
        CertificateError::NotValidForNameContext { presented, .. } => not_for(host, presented),
        CertificateError::UnknownIssuer => format!(
            "the server's certificate is not of {authorities}; name the certificate of its \
             authority in sslrootcert"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired; issue it again".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; is this machine's clock right?".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not for servers; issue it again with \
             extendedKeyUsage=serverAuth, or without that extension"
                .to_owned()
        }
        CertificateError::Other(other) if other.to_string() == "UnsupportedCertVersion" => format!(
            "the server's certificate is of X.509 version 1, which says of nobody what it may be \
             used for; issue it again as version 3: openssl x509 -req … -extfile FILE, with \
             {extensions} in FILE"
        ),
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => format!(
            "the server shows the certificate of an authority as its own; issue it again: openssl \
             req -x509 … -addext basicConstraints=critical,CA:FALSE -addext {extensions}"
        ),
        other => format!("the server's certificate is not accepted: {other}"),
    }
}

fn not_for(host: &str, presented: &[String]) -> String {
    let extensions = extensions(host);
    if presented.is_empty() {
        return format!(
            "the server's certificate has no subjectAltName, and a name in the subject does not \
             count; issue it again with {extensions}, or use sslmode=verify-ca"
        );
    }
    // They come as `DnsName("db.example")` and `IpAddress(10.0.0.7)`.
    let plain = |name: &String| {
        let inside = name.split_once('(').map_or(name.as_str(), |(_, inside)| inside);
        inside.trim_end_matches(')').trim_matches('"').to_owned()
    };
    let names: Vec<String> = presented.iter().take(MAX_NAMES).map(plain).collect();
    let names = names.join(", ");
    format!(
        "the server's certificate is for {names} and not for {host}; connect by one of its names \
         (hostaddr takes an address beside it), or issue it again with {extensions} as well"
    )
}

fn about_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => {
            "the server does not know the authority of our certificate (its ssl_ca_file)".to_owned()
        }
        AlertDescription::CertificateExpired => "our certificate has expired".to_owned(),
        AlertDescription::CertificateRequired => {
            "the server wants a certificate of ours; set sslcert and sslkey".to_owned()
        }
        other => format!("the server ended the TLS handshake: {other:?}"),
    }
}

/// The error of TLS somewhere below this one; an `io::Error` keeps it where `source` does not look.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}
