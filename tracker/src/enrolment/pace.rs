//! How often an address may try to join: pure, with time as an argument.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

/// The attempts of many addresses; the ones that were quiet for longest are forgotten.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    /// Until when an address has used up what it may.
    spent: LruCache<IpAddr, Instant>,
}

impl Pace {
    pub(crate) fn new(per_minute: u32) -> Self {
        let interval = Duration::from_secs(60) / per_minute.max(1);
        Self { interval, spent: LruCache::sparse(MAX_ADDRESSES) }
    }

    /// Whether one more attempt is admitted. An attempt that is not costs nothing.
    pub(crate) fn admits(&mut self, now: Instant, source: IpAddr) -> bool {
        let source = network(source);
        let until = self.spent.get(&source).map_or(now, |until| (*until).max(now)) + self.interval;
        let admitted = until <= now + self.interval * BURST;
        if admitted {
            self.spent.put(source, until);
        }
        admitted
    }
}

/// Whoever has one address of a /64 has them all.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
        ip @ IpAddr::V4(_) => ip,
    }
}

/// At once: the machines of a rack that start together, behind one address.
const BURST: u32 = 20;
/// Some hundred KiB. Who has more addresses than that is held by the limit of connections.
const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_a_burst_and_then_its_rate() {
        let (mut pace, now) = (Pace::new(60), Instant::now());
        let admitted = |pace: &mut Pace, at| (0..100).filter(|_| pace.admits(at, ip("10.0.0.1"))).count();
        assert_eq!(admitted(&mut pace, now), 20);
        assert_eq!(admitted(&mut pace, now + Duration::from_secs(5)), 5);
        assert!(pace.admits(now, ip("10.0.0.2")), "another address waits for the first");
    }

    #[test]
    fn addresses_of_one_network_count_together() {
        let (mut pace, now) = (Pace::new(60), Instant::now());
        let many = (0..100).filter(|host| pace.admits(now, ip(&format!("2001:db8::{host:x}")))).count();
        assert_eq!(many, 20);
        assert!(pace.admits(now, ip("2001:db8:0:1::1")));
    }

    #[test]
    fn a_million_addresses_take_no_more_memory() {
        let (mut pace, now) = (Pace::new(60), Instant::now());
        for number in 0..100_000u32 {
            pace.admits(now, IpAddr::from(number.to_be_bytes()));
        }
        assert!(pace.spent.len() <= 4096);
    }
}
