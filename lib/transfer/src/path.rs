//! Which transport a peer is reached by first. Pure.
//!
//! TCP carries most where the path is short; QUIC stands losses, long ways and translated addresses better. Zones say what
//! to expect; what was measured of the peer says more.

use std::time::Duration;

use shoal_core::Zone;

use crate::config::TransportChoice;
use crate::link::Transport;

/// What the last connection with a peer taught about the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// By what it was reached.
    pub(crate) transport: Transport,
    /// Whether another transport was tried before, and gave nothing.
    pub(crate) is_fallback: bool,
    /// How long a packet and its answer took.
    pub(crate) round_trip: Option<Duration>,
}

/// What to try, in order.
pub(crate) fn transports(
    choice: TransportChoice,
    same_zone: bool,
    known: Option<Path>,
) -> &'static [Transport] {
    let first = match choice {
        TransportChoice::Quic => return &[Transport::Quic],
        TransportChoice::Tcp => return &[Transport::Tcp],
        TransportChoice::Auto => preferred(same_zone, known),
    };
    match first {
        Transport::Quic => &[Transport::Quic, Transport::Tcp],
        Transport::Tcp => &[Transport::Tcp, Transport::Quic],
    }
}

fn preferred(same_zone: bool, known: Option<Path>) -> Transport {
    match known {
        Some(Path { transport, is_fallback: true, .. }) => transport,
        Some(Path { round_trip: Some(round_trip), .. }) if round_trip <= SHORT => Transport::Tcp,
        Some(Path { round_trip: Some(round_trip), .. }) if round_trip >= LONG => Transport::Quic,
        _ if same_zone => Transport::Tcp,
        _ => Transport::Quic,
    }
}

/// Whether two nodes say to be in one data centre; two that say nothing are.
pub(crate) fn is_same_zone(own: &Zone, peer: &Zone) -> bool {
    own.is_near(peer)
}

/// Halls next to each other: a lost packet is there again before a window has run out.
const SHORT: Duration = Duration::from_millis(2);

/// Countries: whatever the zones are called, a loss costs more than QUIC's processor time. A busy host answers late too, and
/// is not to be given the dearer transport for it.
const LONG: Duration = Duration::from_millis(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn path(transport: Transport, is_fallback: bool, milliseconds: u64) -> Option<Path> {
        Some(Path { transport, is_fallback, round_trip: Some(Duration::from_millis(milliseconds)) })
    }

    #[test]
    fn one_that_is_chosen_is_the_only_one() {
        assert_eq!(transports(TransportChoice::Quic, true, None), [Transport::Quic]);
        assert_eq!(
            transports(TransportChoice::Tcp, false, path(Transport::Quic, true, 90)),
            [Transport::Tcp]
        );
    }

    #[test]
    fn zones_decide_until_something_is_measured() {
        let auto = |same_zone, known| transports(TransportChoice::Auto, same_zone, known)[0];
        assert_eq!(auto(true, None), Transport::Tcp);
        assert_eq!(auto(false, None), Transport::Quic);
        assert_eq!(auto(false, path(Transport::Quic, false, 1)), Transport::Tcp);
        assert_eq!(auto(true, path(Transport::Tcp, false, 40)), Transport::Quic);
        assert_eq!(auto(true, path(Transport::Tcp, false, 5)), Transport::Tcp);
        assert_eq!(auto(false, path(Transport::Quic, false, 5)), Transport::Quic);
    }

    #[test]
    fn what_failed_is_not_tried_first_again() {
        let auto = |known| transports(TransportChoice::Auto, true, known);
        assert_eq!(auto(path(Transport::Quic, true, 1)), [Transport::Quic, Transport::Tcp]);
        assert_eq!(auto(path(Transport::Tcp, true, 40)), [Transport::Tcp, Transport::Quic]);
    }
}
