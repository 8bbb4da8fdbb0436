//! Whether text is a secret of Standard Webhooks. Signing itself is `notify`'s.

/// What the specification asks of a secret, in bytes (Standard Webhooks 1.0.0).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What is wrong with it, without a character of it.
pub(super) fn fault(secret: &str) -> Option<String> {
    let Some(base64) = secret.strip_prefix("whsec_") else {
        return Some("it does not begin with \"whsec_\"".to_owned());
    };
    let Some(bytes) = decoded_length(base64) else {
        return Some("what follows \"whsec_\" is no Base64".to_owned());
    };
    (!SECRET_BYTES.contains(&bytes)).then(|| format!("it has {bytes} bytes"))
}

/// How many bytes the text encodes, if it is the standard form: padded, no stray bits.
fn decoded_length(base64: &str) -> Option<usize> {
    let digits = base64.trim_end_matches('=');
    let padding = base64.len() - digits.len();
    let values: Option<Vec<u8>> = digits.bytes().map(value).collect();
    let last = values?.last().copied().unwrap_or_default();
    let stray_bits = match padding {
        0 => 0,
        1 => last & 0b11,
        2 => last & 0b1111,
        _ => return None,
    };
    (base64.len().is_multiple_of(4) && stray_bits == 0).then(|| base64.len() / 4 * 3 - padding)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_signing_secret() {
        // The secret of the specification's own test vector.
        assert_eq!(fault("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), None);
        for (secret, why) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin"),
            ("whsec_", "0 bytes"),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "no Base64"),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa*w", "no Base64"),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS=", "no Base64"),
            ("whsec_MfKQ9r8G", "6 bytes"),
        ] {
            let said = fault(secret).unwrap_or_default();
            assert!(said.contains(why), "{secret}: {said}");
        }
    }
}
