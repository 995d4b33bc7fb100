//! Which job is next: what a queue knows of its jobs, without their content, a disk or a clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::backoff::Backoff;

/// Milliseconds since 1970: it has to mean the same after a restart.
pub(super) type Millis = u64;

/// In which order jobs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Whichever is due; several at a time.
    Any,
    /// As they came, one at a time: one that fails holds up those behind it, until it is given up.
    Strict,
}

/// A job's state. What is kept of it on disk is the same.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Entry {
    /// Its place among those that came.
    pub(super) number: u64,
    /// Tries that failed since it came.
    pub(super) tries: u32,
    /// Not to be tried before.
    pub(super) due: Millis,
    /// When it came.
    pub(super) added: Millis,
    /// Why the last try failed.
    pub(super) error: Option<String>,
    /// It was given up.
    pub(super) dead: bool,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    /// Somebody is at it; whether it came again meanwhile.
    taken: Option<bool>,
}

/// What a queue has to do.
#[derive(Debug)]
pub(super) struct Schedule {
    order: Order,
    backoff: Backoff,
    limit: usize,
    jobs: HashMap<String, Kept>,
    /// Those that wait, by when they are due and when they came. Of a strict queue: when they came alone.
    waiting: BTreeSet<(Millis, u64)>,
    keys: BTreeMap<u64, String>,
    next_number: u64,
    taken: usize,
    dead: usize,
}

/// How many jobs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    /// Not begun, or to be tried again.
    pub(crate) waiting: usize,
    /// Somebody is at them.
    pub(crate) taken: usize,
    /// Given up.
    pub(crate) dead: usize,
}

/// It holds as many jobs as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Schedule {
    pub(super) fn new(order: Order, backoff: Backoff, limit: usize) -> Self {
        Self {
            order,
            backoff,
            limit,
            jobs: HashMap::new(),
            waiting: BTreeSet::new(),
            keys: BTreeMap::new(),
            next_number: 0,
            taken: 0,
            dead: 0,
        }
    }

    /// Takes over what was kept of a job. A clock that went back since is not to hold it up for longer than a back-off does.
    pub(super) fn restore(&mut self, now: Millis, key: &str, mut entry: Entry) {
        entry.due = entry.due.min(now.saturating_add(millis(self.backoff.longest)));
        self.next_number = self.next_number.max(entry.number + 1);
        self.insert(key, entry);
    }

    /// A job came. One that waits under this key, or was given up, begins anew; one that somebody is at is done again after that.
    pub(super) fn add(&mut self, now: Millis, key: &str) -> Result<Entry, Full> {
        if let Some(kept) = self.jobs.get_mut(key) {
            if let Some(again) = &mut kept.taken {
                *again = true;
                return Ok(kept.entry.clone());
            }
            let number = kept.entry.number;
            self.remove(key);
            let entry = new_entry(number, now);
            self.insert(key, entry.clone());
            return Ok(entry);
        }
        if self.jobs.len() >= self.limit {
            return Err(Full);
        }
        let entry = new_entry(self.next_number, now);
        self.next_number += 1;
        self.insert(key, entry.clone());
        Ok(entry)
    }

    /// The next job that is due, for whoever does it: its key, and how often it failed.
    pub(super) fn take(&mut self, now: Millis) -> Option<(String, u32)> {
        let at = self.next_due()?;
        if at > now {
            return None;
        }
        let &(due, number) = self.waiting.first()?;
        self.waiting.remove(&(due, number));
        let key = self.keys.get(&number)?.clone();
        let kept = self.jobs.get_mut(&key)?;
        kept.taken = Some(false);
        self.taken += 1;
        Some((key, kept.entry.tries))
    }

    /// When a job may be taken; nothing where none waits, or the one that is taken comes first.
    pub(super) fn next_due(&self) -> Option<Millis> {
        if self.order == Order::Strict && self.taken > 0 {
            return None;
        }
        let (_, number) = self.waiting.first()?;
        let key = self.keys.get(number)?;
        Some(self.jobs.get(key)?.entry.due)
    }

    /// A job that waits is not to be taken before `due`.
    pub(super) fn not_before(&mut self, key: &str, due: Millis) -> Option<Entry> {
        let kept = self.jobs.get(key)?;
        if kept.taken.is_some() || kept.entry.dead {
            return None;
        }
        let entry = Entry { due, ..kept.entry.clone() };
        self.remove(key);
        self.insert(key, entry.clone());
        Some(entry)
    }

    /// A job that was taken cannot be done yet, which is nobody's failure.
    pub(super) fn put_off(&mut self, key: &str, due: Millis) {
        if let Some(entry) = self.jobs.get(key).map(|kept| kept.entry.clone())
            && let Some((_, again)) = self.give_back(key)
        {
            // What came again may be done at once.
            self.insert(key, Entry { due: if again { entry.due } else { due }, ..entry });
        }
    }

    /// A job that was taken is done; what is to be kept of it, if it came again.
    pub(super) fn done(&mut self, now: Millis, key: &str) -> Option<Entry> {
        let (number, again) = self.give_back(key)?;
        if !again {
            return None;
        }
        let entry = new_entry(number, now);
        self.insert(key, entry.clone());
        Some(entry)
    }

    /// A job that was taken failed; what is to be kept of it.
    pub(super) fn failed(&mut self, now: Millis, key: &str, error: &str, random: f64) -> Option<Entry> {
        let before = self.jobs.get(key)?.entry.clone();
        let (_, again) = self.give_back(key)?;
        let tries = before.tries.saturating_add(1);
        let mut entry = Entry { tries, error: Some(error.to_owned()), ..before };
        match self.backoff.after(tries, random) {
            Some(wait) => entry.due = now.saturating_add(millis(wait)),
            // What came again has not been tried yet.
            None if again => (entry.tries, entry.due) = (0, now),
            None => entry.dead = true,
        }
        self.insert(key, entry.clone());
        Some(entry)
    }

    /// Whoever took a job went away without a word.
    pub(super) fn let_go(&mut self, key: &str) {
        if let Some(entry) = self.jobs.get(key).map(|kept| kept.entry.clone())
            && self.give_back(key).is_some()
        {
            self.insert(key, entry);
        }
    }

    /// Whether the job is not done: it waits, or somebody is at it, or it was given up.
    pub(super) fn has(&self, key: &str) -> bool {
        self.jobs.contains_key(key)
    }

    /// The keys of jobs that were given up.
    pub(super) fn dead(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let dead = self.jobs.iter().filter(|(_, kept)| kept.entry.dead);
        dead.map(|(key, kept)| (key.as_str(), &kept.entry))
    }

    /// When the job came that has waited for longest, of those that were not given up.
    pub(super) fn oldest(&self) -> Option<Millis> {
        let alive = self.jobs.values().filter(|kept| !kept.entry.dead);
        alive.map(|kept| kept.entry.added).min()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { waiting: self.waiting.len(), taken: self.taken, dead: self.dead }
    }

    /// A job that was taken is not any more: its number, and whether it came again.
    fn give_back(&mut self, key: &str) -> Option<(u64, bool)> {
        let again = self.jobs.get(key)?.taken?;
        self.taken -= 1;
        let kept = self.jobs.remove(key)?;
        self.keys.remove(&kept.entry.number);
        Some((kept.entry.number, again))
    }

    fn insert(&mut self, key: &str, entry: Entry) {
        if entry.dead {
            self.dead += 1;
        } else {
            self.waiting.insert(self.place(&entry));
        }
        self.keys.insert(entry.number, key.to_owned());
        self.jobs.insert(key.to_owned(), Kept { entry, taken: None });
    }

    /// Takes out a job that nobody is at.
    fn remove(&mut self, key: &str) {
        if let Some(Kept { entry, .. }) = self.jobs.remove(key) {
            self.keys.remove(&entry.number);
            if entry.dead {
                self.dead -= 1;
            } else {
                self.waiting.remove(&self.place(&entry));
            }
        }
    }

    fn place(&self, entry: &Entry) -> (Millis, u64) {
        match self.order {
            Order::Any => (entry.due, entry.number),
            Order::Strict => (0, entry.number),
        }
    }
}

fn new_entry(number: u64, now: Millis) -> Entry {
    Entry { number, tries: 0, due: now, added: now, error: None, dead: false }
}

fn millis(duration: std::time::Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
