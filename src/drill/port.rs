//! Ports of 127.0.0.1 for what a drill starts.

use std::net::{TcpListener, UdpSocket};

use super::DrillError;

/// Below the ports that Linux (32768) and macOS (49152) hand out to outgoing connections, so that
/// a port is still free when the server that had it starts again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port that nobody else listens at. While this lives no other drill is given it, in
/// whatever process: it is theirs alone who have bound the UDP port of the same number.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    /// None of a port that another has and shares.
    _taken: Option<UdpSocket>,
}

impl Port {
    pub(super) fn free() -> Result<Self, DrillError> {
        let tried = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(1_000);
        tried.into_iter().find_map(Self::take).ok_or_else(|| DrillError::Missing {
            what: format!("a free TCP port of 127.0.0.1 in {PORTS:?}"),
            hint: "end what listens there".to_owned(),
        })
    }

    fn take(number: u16) -> Option<Self> {
        let taken = UdpSocket::bind(("127.0.0.1", number)).ok()?;
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        Some(Self { number, _taken: Some(taken) })
    }

    /// The port of another, who shares it (`SO_REUSEPORT`).
    pub(super) fn shared(number: u16) -> Self {
        Self { number, _taken: None }
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_given_is_given_to_nobody_else_before_anybody_listens() {
        let port = Port::free().unwrap();
        assert!(Port::take(port.number()).is_none());
        let number = port.number();
        drop(port);
        let again = Port::take(number).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", number)).unwrap();
        drop(again);
        assert!(Port::take(number).is_none());
        drop(listener);
    }
}
