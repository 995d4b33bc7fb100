//! Whether to ask again, and when: exponential, jittered, at most so often; what a registry asks for is obeyed, within a bound.

use std::time::{Duration, SystemTime};

use http::StatusCode;

/// How an attempt ended that may be worth another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection failed or broke, or nothing came in time.
    Connection,
    /// The registry answered so, and asked to wait that long.
    Status(StatusCode, Option<Duration>),
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Ask again after that time.
    After(Duration),
    /// It would not help, or was tried often enough.
    GiveUp,
}

/// Decides after attempt `attempt` (from 0). `jitter`: 0 to 1, drawn by the caller.
pub(crate) fn decide(attempt: u32, failure: Failure, jitter: f64) -> Decision {
    if attempt.saturating_add(1) >= MAX_ATTEMPTS {
        return Decision::GiveUp;
    }
    match failure {
        Failure::Status(status, _) if !is_temporary(status) => Decision::GiveUp,
        // Who is asked to come back much later had better say so than hang.
        Failure::Status(_, Some(asked)) if asked > MAX_ASKED => Decision::GiveUp,
        Failure::Status(_, Some(asked)) => Decision::After(asked + FIRST.mul_f64(jitter.clamp(0.0, 1.0))),
        Failure::Connection | Failure::Status(_, None) => Decision::After(pause(attempt, jitter)),
    }
}

/// The pause after failure `attempt` (from 0): between half of its length and all of it.
pub(crate) fn pause(attempt: u32, jitter: f64) -> Duration {
    let whole = FIRST.saturating_mul(1 << attempt.min(16)).min(LONGEST);
    whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// Whether the same request may be answered otherwise soon.
pub(crate) fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// `RateLimit-Remaining` as registries write it: a number, and what it is about behind a semicolon.
pub(crate) fn pulls_left(value: &str) -> Option<u32> {
    value.split([';', ',']).next()?.trim().parse().ok()
}

/// With the pauses between them some 6 s: longer than a fail-over, shorter than somebody's patience.
pub(crate) const MAX_ATTEMPTS: u32 = 5;
const FIRST: Duration = Duration::from_millis(400);
const LONGEST: Duration = Duration::from_secs(10);
/// The longest that a registry may have us wait.
const MAX_ASKED: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_get_better_is_not_asked_again() {
        for (status, again) in
            [(400, false), (401, false), (404, false), (429, true), (501, false), (503, true)]
        {
            let failure = Failure::Status(StatusCode::from_u16(status).unwrap(), None);
            assert_eq!(decide(0, failure, 0.5) != Decision::GiveUp, again, "{status}");
        }
    }

    #[test]
    fn a_registry_is_obeyed_within_a_bound() {
        let asks =
            |seconds| Failure::Status(StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_secs(seconds)));
        assert_eq!(decide(0, asks(7), 0.0), Decision::After(Duration::from_secs(7)));
        assert_eq!(decide(0, asks(61), 0.0), Decision::GiveUp);
    }

    #[test]
    fn what_is_left_is_the_number_in_front() {
        for (value, left) in
            [("76;w=21600", Some(76)), (" 3 ", Some(3)), ("-1", None), ("", None), ("w=3", None)]
        {
            assert_eq!(pulls_left(value), left, "{value}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sat, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("99999999999999", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    proptest! {
        #[test]
        fn pauses_are_bounded_and_there_are_few(attempt: u32, jitter in -1.0..2.0_f64) {
            let pause = pause(attempt, jitter);
            prop_assert!(pause >= FIRST / 2 && pause <= LONGEST);
            if attempt >= MAX_ATTEMPTS - 1 {
                prop_assert_eq!(decide(attempt, Failure::Connection, jitter), Decision::GiveUp);
            }
        }
    }
}
