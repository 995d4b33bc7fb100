//! A timing wheel: what is due soon lies in slots of some microseconds, and only the slot whose time has come is sorted.
//!
//! One heap of all that is to come is larger than a processor's cache, and each step down in it is a miss.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Key, Time};

#[derive(Debug)]
pub(super) struct Wheel<T> {
    /// What is due in the slot at `cursor`, or was before it.
    near: BinaryHeap<Reverse<Entry<T>>>,
    /// The slots after that one, as far as the wheel reaches; each at its number modulo their count.
    slots: Box<[Vec<Entry<T>>]>,
    /// How many entries lie in `slots`.
    waiting: usize,
    /// What is due beyond them.
    far: BinaryHeap<Reverse<Entry<T>>>,
    cursor: u64,
}

#[derive(Debug)]
struct Entry<T> {
    key: Key,
    what: T,
}

impl<T> Wheel<T> {
    /// A slot's time, as a power of two in nanoseconds: 33 us.
    const WIDTH: u32 = 15;
    /// Half a second in all: few things are due later.
    const SLOTS: usize = 1 << 14;

    pub(super) fn new() -> Self {
        Self {
            near: BinaryHeap::new(),
            slots: (0..Self::SLOTS).map(|_| Vec::new()).collect(),
            waiting: 0,
            far: BinaryHeap::new(),
            cursor: 0,
        }
    }

    pub(super) fn push(&mut self, key: Key, what: T) {
        self.place(Entry { key, what });
    }

    /// When the first entry is due.
    pub(super) fn next(&mut self) -> Option<Key> {
        while self.near.is_empty() && self.advance() {}
        self.near.peek().map(|Reverse(entry)| entry.key)
    }

    /// Takes the first entry.
    pub(super) fn pop(&mut self) -> Option<(Key, T)> {
        self.next()?;
        self.near.pop().map(|Reverse(Entry { key, what })| (key, what))
    }

    fn place(&mut self, entry: Entry<T>) {
        let slot = Self::slot(entry.key.0);
        if slot <= self.cursor {
            self.near.push(Reverse(entry));
        } else if slot < self.cursor + Self::SLOTS as u64 {
            self.slots[Self::index(slot)].push(entry);
            self.waiting += 1;
        } else {
            self.far.push(Reverse(entry));
        }
    }

    /// Goes on to the next slot in which something may be; `false` if nothing is anywhere.
    fn advance(&mut self) -> bool {
        let first_far = self.far.peek().map(|Reverse(entry)| Self::slot(entry.key.0));
        self.cursor = match first_far {
            Some(slot) if self.waiting == 0 => slot,
            None if self.waiting == 0 => return false,
            _ => self.cursor + 1,
        };
        let due = &mut self.slots[Self::index(self.cursor)];
        self.waiting -= due.len();
        self.near.extend(due.drain(..).map(Reverse));
        let reach = self.cursor + Self::SLOTS as u64;
        while let Some(Reverse(entry)) = self.far.peek()
            && Self::slot(entry.key.0) < reach
            && let Some(Reverse(entry)) = self.far.pop()
        {
            self.place(entry);
        }
        true
    }

    fn slot(at: Time) -> u64 {
        at >> Self::WIDTH
    }

    fn index(slot: u64) -> usize {
        slot as usize % Self::SLOTS
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From within a slot to far beyond the wheel.
    fn delay() -> impl Strategy<Value = Time> {
        prop_oneof![0..100u64, 0..1u64 << 20, 0..1u64 << 33]
    }

    proptest! {
        #[test]
        fn what_is_pushed_comes_out_in_order(
            steps in prop::collection::vec((delay(), any::<bool>()), 1..300),
        ) {
            let (mut wheel, mut plain) = (Wheel::new(), BinaryHeap::new());
            let mut now = 0;
            for (sequence, (delay, takes)) in steps.into_iter().enumerate() {
                let key = (now + delay, sequence as u64);
                wheel.push(key, sequence);
                plain.push(Reverse(key));
                if takes && let Some(Reverse(key)) = plain.pop() {
                    prop_assert_eq!(wheel.next(), Some(key));
                    prop_assert_eq!(wheel.pop(), Some((key, key.1 as usize)));
                    now = key.0;
                }
            }
            while let Some(Reverse(key)) = plain.pop() {
                prop_assert_eq!(wheel.pop(), Some((key, key.1 as usize)));
            }
            prop_assert!(wheel.pop().is_none() && wheel.next().is_none());
        }
    }
}
