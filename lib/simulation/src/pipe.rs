//! A pipe of a fixed rate: what enters leaves in order, each byte at the rate, none sooner than it came in.

use crate::agenda::Time;

/// One direction of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pipe {
    /// Bytes a second; never 0.
    rate: u64,
    /// When what entered has left.
    free_at: Time,
}

/// When a run of bytes passes a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    pub(crate) first: Time,
    pub(crate) last: Time,
}

impl Pipe {
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), free_at: 0 }
    }

    /// How long that many bytes take.
    pub(crate) fn duration(&self, bytes: u64) -> Time {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        Time::try_from(nanos).unwrap_or(Time::MAX / 4)
    }

    /// Lets bytes pass that come in as `incoming` says: they wait for those before them, and cut through otherwise.
    pub(crate) fn pass(&mut self, incoming: Passage, bytes: u64) -> Passage {
        let first = incoming.first.max(self.free_at);
        let last = (first + self.duration(bytes)).max(incoming.last);
        self.free_at = last;
        Passage { first, last }
    }
}

impl Passage {
    /// The same, `delay` later.
    pub(crate) fn later(self, delay: Time) -> Self {
        Self { first: self.first + delay, last: self.last + delay }
    }

    /// All bytes at once.
    pub(crate) fn at(time: Time) -> Self {
        Self { first: time, last: time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: u64 = 1_000_000;
    const MILLI: Time = 1_000_000;

    #[test]
    fn the_slower_of_two_pipes_decides_and_bytes_cut_through() {
        let (mut up, mut down) = (Pipe::new(100 * MEGABYTE), Pipe::new(50 * MEGABYTE));
        let sent = up.pass(Passage::at(0), MEGABYTE);
        assert_eq!(sent.last, 10 * MILLI);
        let received = down.pass(sent.later(MILLI), MEGABYTE);
        assert_eq!(received, Passage { first: MILLI, last: 21 * MILLI });
        let mut fast = Pipe::new(1000 * MEGABYTE);
        assert_eq!(fast.pass(sent, MEGABYTE).last, 10 * MILLI, "not sooner than it came");
    }

    #[test]
    fn what_enters_waits_for_what_is_before_it() {
        let mut pipe = Pipe::new(100 * MEGABYTE);
        pipe.pass(Passage::at(0), MEGABYTE);
        assert_eq!(pipe.pass(Passage::at(0), MEGABYTE).last, 20 * MILLI);
        assert_eq!(pipe.pass(Passage::at(100 * MILLI), MEGABYTE).last, 110 * MILLI);
    }
}
