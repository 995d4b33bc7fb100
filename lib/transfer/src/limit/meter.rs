//! One rate, held exactly.
//!
//! Two rules. In no 100 ms, wherever they begin, is a byte more spent than a tenth of the rate: every spending of the last
//! 100 ms is remembered, and so is what is held and not yet spent. And within that bytes go evenly: a bucket that fills at
//! the rate holds 10 ms of it, so that nobody waits for the burst of another. Pure: time is an argument, and whole numbers.

use std::collections::VecDeque;
use std::time::Duration;

use shoal_swarm::Moment;

/// A rate that is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

/// What of a rate is taken.
#[derive(Debug)]
pub(super) struct Meter {
    rate: Rate,
    window: Window,
    bucket: Bucket,
}

/// The bytes of the last [`Rate::WINDOW`].
#[derive(Debug)]
struct Window {
    /// The most at a time, in bytes.
    capacity: u64,
    /// In the order of time.
    spent: VecDeque<Spent>,
    /// The sum of `spent`, in bytes.
    spent_bytes: u64,
    /// Bytes that were given out and are not spent yet: they may be at any moment, so they count.
    held: u64,
}

/// Bytes that were spent within [`Window::GRAIN`], as if all were at its end.
#[derive(Clone, Copy, Debug)]
struct Spent {
    since: u64,
    until: u64,
    bytes: u64,
}

/// Fills at the rate, up to its depth. In billionths of a byte, which a rate in bytes a second earns each nanosecond.
#[derive(Debug)]
struct Bucket {
    depth: u128,
    level: u128,
    /// When `level` was right, in nanoseconds.
    at: u64,
}

impl Rate {
    /// The least, in bytes a second. With it a piece of 16 MiB (the largest) takes 56 s of the 60 s that an upload may take
    /// by default; with less it would be given up each time.
    pub const LEAST: u64 = 300_000;

    /// Any such stretch of time is exact.
    pub const WINDOW: Duration = Duration::from_millis(100);

    /// Nothing if it is less than [`Self::LEAST`].
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Option<Self> {
        (bytes_per_second >= Self::LEAST).then_some(Self(bytes_per_second))
    }

    /// Bytes a second.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }

    /// The most that is spent in any [`Self::WINDOW`], in bytes: a tenth of the rate, rounded down.
    #[must_use]
    pub fn window_bytes(self) -> u64 {
        self.0 / 10
    }
}

impl Meter {
    pub(super) fn new(rate: Rate) -> Self {
        let window =
            Window { capacity: rate.window_bytes(), spent: VecDeque::new(), spent_bytes: 0, held: 0 };
        let depth = Bucket::billionths(rate.0 / Self::BUCKET_SHARE);
        Self { rate, window, bucket: Bucket { depth, level: depth, at: 0 } }
    }

    /// How many of the bytes that are wanted may be held now; none if it is worth to wait for more.
    pub(super) fn room(&mut self, now: Moment, wanted: u64) -> u64 {
        let now = nanos(now);
        self.window.forget(now);
        self.bucket.fill(now, self.rate);
        let (bucket, window) = (self.bucket.bytes(), self.window.room());
        let is_worth = bucket >= wanted.min(self.portion()) && window >= wanted.min(self.crumb());
        if is_worth { wanted.min(bucket).min(window) } else { 0 }
    }

    /// When there is room, if nothing else is held by then; nothing if what is held has to be spent or given back first.
    pub(super) fn ready_at(&self, wanted: u64) -> Option<Moment> {
        let window = self.window.ready_at(wanted.min(self.crumb()))?;
        let bucket = self.bucket.ready_at(wanted.min(self.portion()), self.rate);
        Some(Moment(Duration::from_nanos(window.max(bucket))))
    }

    /// Half a bucket, which is waited for: so bytes go together, and there is room for what comes in while a timer is late.
    fn portion(&self) -> u64 {
        self.rate.0 / Self::BUCKET_SHARE / 2
    }

    /// What is worth to be taken of a window that is nearly full. What is left there until more comes is lost for the rate,
    /// so it must be less than a thousandth.
    fn crumb(&self) -> u64 {
        self.window.capacity / 2_000
    }

    /// Bytes for which there is room.
    pub(super) fn hold(&mut self, bytes: u64) {
        self.window.held += bytes;
        self.bucket.level -= Bucket::billionths(bytes);
    }

    /// Of bytes that were held, `spent` are spent now, and the others never.
    pub(super) fn settle(&mut self, now: Moment, held: u64, spent: u64) {
        self.window.held -= held;
        self.window.spend(nanos(now), spent);
        let returned = Bucket::billionths(held - spent);
        self.bucket.level = (self.bucket.level + returned).min(self.bucket.depth);
    }

    /// The bucket is that part of a second of the rate: 10 ms, a tenth of the window.
    const BUCKET_SHARE: u64 = 100;
}

impl Window {
    /// Spendings that are no further apart are remembered as one: so there are 2,000 at most (48 KB), and a byte counts for
    /// that much too long, a twentieth of a percent of the window.
    const GRAIN: u64 = 50_000;

    const SPAN: u64 = Rate::WINDOW.as_nanos() as u64;

    fn room(&self) -> u64 {
        self.capacity - self.spent_bytes - self.held
    }

    fn forget(&mut self, now: u64) {
        while let Some(oldest) = self.spent.front()
            && oldest.until + Self::SPAN <= now
        {
            self.spent_bytes -= oldest.bytes;
            self.spent.pop_front();
        }
    }

    fn spend(&mut self, now: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.forget(now);
        self.spent_bytes += bytes;
        match self.spent.back_mut() {
            Some(last) if now < last.since + Self::GRAIN => {
                last.until = last.until.max(now);
                last.bytes += bytes;
            }
            _ => self.spent.push_back(Spent { since: now, until: now, bytes }),
        }
    }

    fn ready_at(&self, bytes: u64) -> Option<u64> {
        let mut room = self.room();
        let mut at = 0;
        let mut spent = self.spent.iter();
        while room < bytes {
            let oldest = spent.next()?;
            room += oldest.bytes;
            at = oldest.until + Self::SPAN;
        }
        Some(at)
    }
}

impl Bucket {
    const BILLION: u128 = 1_000_000_000;

    fn billionths(bytes: u64) -> u128 {
        u128::from(bytes) * Self::BILLION
    }

    fn bytes(&self) -> u64 {
        u64::try_from(self.level / Self::BILLION).expect("it is as deep as a part of a rate of 64 bits")
    }

    fn fill(&mut self, now: u64, rate: Rate) {
        let passed = now.saturating_sub(self.at);
        self.level = (self.level + u128::from(passed) * u128::from(rate.0)).min(self.depth);
        self.at = self.at.max(now);
    }

    fn ready_at(&self, bytes: u64, rate: Rate) -> u64 {
        let missing = Self::billionths(bytes).saturating_sub(self.level);
        let wait = missing.div_ceil(u128::from(rate.0));
        self.at + u64::try_from(wait).expect("a bucket fills in 10 ms")
    }
}

/// 64 bits last for 584 years.
fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.0.as_nanos()).unwrap_or(u64::MAX)
}
