//! How much may be asked for at all peers together.

use crate::config::Config;
use crate::event::Priority;
use crate::peer::Ask;

/// What is asked for and has not come.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    pub(crate) requests: usize,
    pub(crate) bytes: u64,
    /// Of the requests, those for what nobody reads.
    pub(crate) background: usize,
}

impl InFlight {
    /// Whether a piece of at most that many bytes may be asked for; one always may.
    pub(crate) fn has_room(&self, bytes: u64, config: &Config) -> bool {
        self.requests == 0
            || (self.requests < config.max_requests && self.bytes + bytes <= config.max_bytes_in_flight)
    }

    /// Whether so little is under way that the link may soon be idle.
    pub(crate) fn is_hungry(&self, bytes: u64, config: &Config) -> bool {
        self.requests == 0 || (self.requests + 1) * 100 <= most(bytes, config) * config.hungry_percent
    }

    /// Whether what nobody reads has its share of the budget, while something is read.
    pub(crate) fn is_background_full(&self, bytes: u64, config: &Config) -> bool {
        self.background > 0 && (self.background + 1) * 100 > most(bytes, config) * config.background_percent
    }

    pub(crate) fn add(&mut self, ask: &Ask) {
        self.requests += 1;
        self.bytes += u64::from(ask.bytes);
        self.background += usize::from(ask.is_background());
    }

    pub(crate) fn give_back(&mut self, ask: &Ask) {
        self.requests -= 1;
        self.bytes -= u64::from(ask.bytes);
        self.background -= usize::from(ask.is_background());
    }
}

impl Ask {
    pub(crate) fn is_background(&self) -> bool {
        self.fetch_priority != Priority::Reader
    }
}

/// How many pieces of that length fit.
fn most(bytes: u64, config: &Config) -> usize {
    let pieces = config.max_bytes_in_flight / bytes.max(1);
    usize::try_from(pieces).unwrap_or(usize::MAX).min(config.max_requests).min(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunger_is_a_share_of_what_fits() {
        let config =
            Config { max_requests: 8, max_bytes_in_flight: 100, hungry_percent: 50, ..Config::default() };
        let hungry = |requests, bytes| InFlight { requests, ..InFlight::default() }.is_hungry(bytes, &config);
        assert!(hungry(0, 1000), "one piece is always allowed");
        assert!(hungry(3, 1) && !hungry(4, 1), "half of eight");
        assert!(hungry(1, 25) && !hungry(2, 25), "half of the four that fit");
    }
}
