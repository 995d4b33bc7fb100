//! Who gives a missing copy to whom. Pure: every origin that sees the same comes to the same.

use shoal_core::{Digest, Places, Rendezvous};

/// What is seen of the cluster at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) rendezvous: &'a Rendezvous,
    pub(super) replicas: usize,
    pub(super) well: Places,
}

impl View<'_> {
    /// To whom `own`, one of the `holders`, is to give a copy. Of all holders that are well the first in the blob's order gives
    /// all that are missing, the others none.
    pub(super) fn gifts(&self, digest: &Digest, holders: Places, own: usize) -> Places {
        let mut order = self.rendezvous.order(digest).into_iter();
        let giver = order.find(|&place| self.well.contains(place) && holders.contains(place));
        if giver != Some(own) {
            return Places::NONE;
        }
        self.rendezvous.owners(digest, self.well, self.replicas).without(holders)
    }

    /// Whether the copy of `own` is one too many: all origins are well, it belongs to others, and all those have it. An origin to
    /// which a blob belongs never takes its copy for that, so those that the others count on stay.
    pub(super) fn is_surplus(&self, digest: &Digest, holders: Places, own: usize) -> bool {
        let all = Places::first(self.rendezvous.len());
        let owners = self.rendezvous.owners(digest, all, self.replicas);
        self.well == all && !owners.contains(own) && owners.without(holders).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rendezvous(count: usize) -> Rendezvous {
        let urls: Vec<_> = (0..count).map(|number| format!("https://origin-{number}:15002")).collect();
        Rendezvous::new(urls.iter().map(String::as_str))
    }

    fn places(bits: u8, count: usize) -> Places {
        (0..count).filter(|place| bits & (1 << place) != 0).collect()
    }

    proptest! {
        #[test]
        fn each_missing_copy_is_given_once_and_nothing_else(
            count in 1usize..8, replicas in 1usize..4, well: u8, holders: u8, number: u32
        ) {
            let rendezvous = rendezvous(count);
            let (well, holders) = (places(well, count), places(holders, count));
            let view = View { rendezvous: &rendezvous, replicas, well };
            let digest = Digest::sha256(&number.to_le_bytes());
            let owners = rendezvous.owners(&digest, well, replicas);
            let mut given = Places::NONE;
            for own in holders.iter().filter(|&own| well.contains(own)) {
                let gifts = view.gifts(&digest, holders, own);
                prop_assert!(given.without(gifts) == given, "two give the same copy");
                given = given.union(gifts);
            }
            let somebody_has_it = holders.iter().any(|place| well.contains(place));
            let missing = if somebody_has_it { owners.without(holders) } else { Places::NONE };
            prop_assert_eq!(given, missing);
        }

        #[test]
        fn whoever_drops_what_is_too_much_at_the_same_time_enough_are_left(
            count in 1usize..8, replicas in 1usize..4, well: u8, holders: u8, number: u32
        ) {
            let rendezvous = rendezvous(count);
            let (well, holders) = (places(well, count), places(holders, count));
            let view = View { rendezvous: &rendezvous, replicas, well };
            let digest = Digest::sha256(&number.to_le_bytes());
            let dropped: Places = holders.iter().filter(|&own| view.is_surplus(&digest, holders, own)).collect();
            prop_assert!(dropped.is_empty() || holders.without(dropped).count() >= replicas.min(count));
            prop_assert!(dropped.is_empty() || well == Places::first(count));
            let whole = View { well: Places::first(count), ..view };
            let all = Places::first(count);
            let left = all.without(all.iter().filter(|&own| whole.is_surplus(&digest, all, own)).collect());
            prop_assert_eq!(left.count(), replicas.min(count));
        }

        #[test]
        fn after_the_gifts_nothing_is_missing(count in 1usize..8, replicas in 1usize..4, holders in 1u8.., number: u32) {
            let rendezvous = rendezvous(count);
            let (well, holders) = (Places::first(count), places(holders, count));
            let view = View { rendezvous: &rendezvous, replicas, well };
            let digest = Digest::sha256(&number.to_le_bytes());
            let all = holders.iter().fold(holders, |all, own| all.union(view.gifts(&digest, holders, own)));
            prop_assert!(all.iter().all(|own| view.gifts(&digest, all, own).is_empty()));
            prop_assert!(holders.is_empty() || all.count() >= replicas.min(count));
        }
    }
}
