//! What goes wrong, and how it is written: `crash:10%@5s+3s`.

use std::str::FromStr;
use std::time::Duration;

/// How many hosts something happens to: those that many of a hundred, chosen by the seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

/// From when until when, since the beginning; without an end it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The beginning.
    pub from: Duration,
    /// The end.
    pub until: Option<Duration>,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// `crash:10%@5s` or `crash:10%@5s+3s`: hosts lose power 5 s after their start; they come back 3 s later with
    /// what is on their disk, or never. Their peers hear nothing: connections die by silence.
    Crash {
        /// How many hosts.
        share: Share,
        /// After their start.
        after: Duration,
        /// How long until they are back.
        back: Option<Duration>,
    },
    /// `churn:1%@2s`: each second, hosts restart, and are back 2 s later. Their peers see the connection close.
    Churn {
        /// How many hosts a second.
        share: Share,
        /// How long until each is back.
        back: Duration,
    },
    /// `slow:5%/10`: hosts whose link has a tenth of the rate.
    Slow {
        /// How many hosts.
        share: Share,
        /// The divisor.
        factor: u32,
    },
    /// `slow-disk:5%/50`: hosts that check and write pieces at a fiftieth of the rate.
    SlowDisk {
        /// How many hosts.
        share: Share,
        /// The divisor.
        factor: u32,
    },
    /// `corrupt:5%`: hosts each of whose pieces arrives corrupt.
    Corrupt {
        /// How many hosts.
        share: Share,
    },
    /// `tracker:2s..` or `tracker:2s..10s`: no tracker answers.
    Tracker(Span),
    /// `cut:1@3s..6s`: zone 1 can neither reach the others nor be reached.
    Cut {
        /// The zone's number, from 0.
        zone: u32,
        /// When.
        span: Span,
    },
}

/// A fault that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no fault: write crash:10%@5s, crash:10%@5s+3s, churn:1%@2s, slow:5%/10, slow-disk:5%/50, corrupt:5%, \
     tracker:2s.., tracker:2s..10s or cut:1@3s..6s"
)]
pub struct FaultError(String);

impl Share {
    /// That many of a hundred, from 0 to 100.
    #[must_use]
    pub fn percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then_some(Self(percent / 100.0))
    }

    /// That share of `count`, rounded.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32 is one")]
    pub fn of(self, count: u32) -> u32 {
        (self.0 * f64::from(count)).round() as u32
    }
}

impl Span {
    /// Whether it is going on `at` that time.
    #[must_use]
    pub fn contains(&self, at: Duration) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }
}

impl Fault {
    /// The hosts that it is meant for, if it is meant for some.
    #[must_use]
    pub fn share(&self) -> Option<Share> {
        match *self {
            Self::Crash { share, .. }
            | Self::Slow { share, .. }
            | Self::SlowDisk { share, .. }
            | Self::Corrupt { share } => Some(share),
            Self::Churn { .. } | Self::Tracker(_) | Self::Cut { .. } => None,
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| FaultError(text.into()))?;
        parse(kind, rest).ok_or_else(|| FaultError(text.into()))
    }
}

fn parse(kind: &str, rest: &str) -> Option<Fault> {
    match kind {
        "crash" => {
            let (hosts, times) = rest.split_once('@')?;
            let (after, back) =
                times.split_once('+').map_or((times, None), |(after, back)| (after, Some(back)));
            let back = back.map(duration).map_or(Some(None), |back| back.map(Some))?;
            Some(Fault::Crash { share: share(hosts)?, after: duration(after)?, back })
        }
        "churn" => {
            let (hosts, back) = rest.split_once('@')?;
            Some(Fault::Churn { share: share(hosts)?, back: duration(back)? })
        }
        "slow" | "slow-disk" => {
            let (hosts, factor) = rest.split_once('/')?;
            let (share, factor) = (share(hosts)?, factor.parse().ok().filter(|factor| *factor > 0)?);
            Some(if kind == "slow" {
                Fault::Slow { share, factor }
            } else {
                Fault::SlowDisk { share, factor }
            })
        }
        "corrupt" => Some(Fault::Corrupt { share: share(rest)? }),
        "tracker" => Some(Fault::Tracker(span(rest)?)),
        "cut" => {
            let (zone, times) = rest.split_once('@')?;
            Some(Fault::Cut { zone: zone.parse().ok()?, span: span(times)? })
        }
        _ => None,
    }
}

fn share(text: &str) -> Option<Share> {
    Share::percent(text.strip_suffix('%')?.parse().ok()?)
}

fn span(text: &str) -> Option<Span> {
    let (from, until) = text.split_once("..")?;
    let until = if until.is_empty() { None } else { Some(duration(until)?) };
    let span = Span { from: duration(from)?, until };
    span.until.is_none_or(|until| until > span.from).then_some(span)
}

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn every_fault_can_be_written() {
        let ten = Share(0.1);
        for (text, fault) in [
            ("crash:10%@5s", Fault::Crash { share: ten, after: seconds(5), back: None }),
            ("crash:10%@5s+3s", Fault::Crash { share: ten, after: seconds(5), back: Some(seconds(3)) }),
            ("churn:10%@2s", Fault::Churn { share: ten, back: seconds(2) }),
            ("slow:10%/4", Fault::Slow { share: ten, factor: 4 }),
            ("slow-disk:10%/50", Fault::SlowDisk { share: ten, factor: 50 }),
            ("corrupt:10%", Fault::Corrupt { share: ten }),
            ("tracker:2s..", Fault::Tracker(Span { from: seconds(2), until: None })),
            (
                "cut:1@3s..6s",
                Fault::Cut { zone: 1, span: Span { from: seconds(3), until: Some(seconds(6)) } },
            ),
        ] {
            assert_eq!(text.parse(), Ok(fault), "{text}");
        }
    }

    #[test]
    fn what_is_no_fault_is_refused_with_what_is() {
        for text in [
            "",
            "crash",
            "crash:10@5s",
            "slow:5%/0",
            "corrupt:101%",
            "corrupt:NaN%",
            "cut:1@6s..3s",
            "fire:1%",
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains("crash:10%@5s+3s"), "{text}: {error}");
        }
    }

    #[test]
    fn a_share_is_rounded_and_a_span_excludes_its_end() {
        assert_eq!(Share(0.05).of(2600), 130);
        let span = Span { from: seconds(3), until: Some(seconds(6)) };
        assert!(span.contains(seconds(3)) && !span.contains(seconds(6)) && !span.contains(seconds(2)));
    }
}
