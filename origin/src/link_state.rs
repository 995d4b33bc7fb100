//! What an origin knows of a link, as one of several that put and delete it. Pure; who changes it keeps it before he answers.
//!
//! Each put has a version greater than all that came before it. A deletion names the last put that it has seen, and undoes that
//! and older ones, never a newer one. So whatever order changes come in, all origins end with the same; and whoever decides by an
//! older look that a link is of no use does no harm to somebody who has put it since.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shoal_control::cluster::message::{LinkState, LinkVersion};
use shoal_core::Digest;

/// What a change does to what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is to be written.
    Write,
    /// It is so already.
    Known,
    /// It is older than this.
    Refused(LinkVersion),
}

/// Whether one replaces the other. Of one version the deletion.
pub(crate) fn is_newer(one: &LinkState, other: &LinkState) -> bool {
    let order = |state: &LinkState| {
        let target = state.target.map(|target| target.as_bytes().to_vec());
        (state.version, state.target.is_none(), target)
    };
    order(one) > order(other)
}

/// The newest of what origins know.
pub(crate) fn newest<'a>(states: impl IntoIterator<Item = &'a Option<LinkState>>) -> Option<LinkState> {
    states
        .into_iter()
        .flatten()
        .copied()
        .reduce(|one, other| if is_newer(&other, &one) { other } else { one })
}

/// A put comes, `now` in microseconds.
///
/// Where nothing is known one that is far older than this moment is refused: a deletion may have undone it that every origin has
/// forgotten since. Whoever is only behind with his clock puts it again.
pub(crate) fn put(known: Option<&LinkState>, target: Digest, version: LinkVersion, now: u64) -> Change {
    match known {
        None if age(version, now) > STRAY_AFTER => Change::Refused(LinkVersion { stamp: now, by: None }),
        None => Change::Write,
        Some(known) if known.version == version && known.target == Some(target) => Change::Known,
        Some(known) if known.version >= version => Change::Refused(known.version),
        Some(_) => Change::Write,
    }
}

/// A deletion of everything up to `version` comes.
pub(crate) fn delete(known: Option<&LinkState>, version: LinkVersion) -> Change {
    match known {
        Some(LinkState { target: Some(_), version: put }) if *put > version => Change::Refused(*put),
        Some(LinkState { target: None, version: deleted }) if *deleted >= version => Change::Known,
        _ => Change::Write,
    }
}

/// How long ago a link was put, by a clock that shows `now` in microseconds; not at all if that is to come.
pub(crate) fn age(version: LinkVersion, now: u64) -> Duration {
    Duration::from_micros(now.saturating_sub(version.stamp))
}

/// Whether nobody has put it after `since`.
pub(crate) fn is_unchanged(version: LinkVersion, since: SystemTime) -> bool {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    u128::from(version.stamp) <= since
}

/// A put that is older than this is none that is on its way. 5 minutes: a request lasts seconds, and deletions are kept for twice
/// as long at least.
const STRAY_AFTER: Duration = Duration::from_secs(300);

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(stamp: u64) -> LinkVersion {
        LinkVersion { stamp, by: None }
    }

    fn apply(known: &mut Option<LinkState>, change: (Option<Digest>, u64)) -> Change {
        let (target, stamp) = change;
        let done = match target {
            Some(target) => put(known.as_ref(), target, version(stamp), stamp),
            None => delete(known.as_ref(), version(stamp)),
        };
        if done == Change::Write {
            *known = Some(LinkState { target, version: version(stamp) });
        }
        done
    }

    proptest! {
        #[test]
        fn in_whatever_order_changes_come_the_end_is_the_same(
            changes in prop::collection::vec((any::<bool>(), 0u64..6), 0..8), order in any::<prop::sample::Index>()
        ) {
            let target = Digest::sha256(b"layer");
            let changes: Vec<_> = changes.into_iter().map(|(put, stamp)| (put.then_some(target), stamp)).collect();
            let mut turned = changes.clone();
            if !turned.is_empty() {
                turned.rotate_left(order.index(changes.len()));
                turned.reverse();
            }
            let (mut one, mut other) = (None, None);
            changes.iter().for_each(|change| _ = apply(&mut one, *change));
            turned.iter().for_each(|change| _ = apply(&mut other, *change));
            prop_assert_eq!(one, other);
        }

        #[test]
        fn a_put_is_undone_by_a_deletion_that_has_seen_it_and_by_no_other(put_at in 0u64..9, deleted in 0u64..9, first: bool) {
            let (mut known, target) = (None, Digest::sha256(b"layer"));
            let changes = [(Some(target), put_at), (None, deleted)];
            let order = if first { [0, 1] } else { [1, 0] };
            order.iter().for_each(|&change| _ = apply(&mut known, changes[change]));
            prop_assert_eq!(known.unwrap().target.is_some(), put_at > deleted);
        }
    }

    #[test]
    fn a_put_from_before_a_forgotten_deletion_is_refused() {
        let (target, now) = (Digest::sha256(b"layer"), 1_000_000_000);
        let refused = put(None, target, version(now - 300_000_001), now);
        assert_eq!(refused, Change::Refused(version(now)));
        assert_eq!(put(None, target, version(now - 300_000_000), now), Change::Write);
        assert_eq!(put(None, target, version(now + 5), now), Change::Write);
    }
}
