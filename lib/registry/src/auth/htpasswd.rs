//! Names and passwords: bcrypt, bounded, and as much work for a name that does not exist as for one that does.
//!
//! What was right is remembered for a while as a keyed hash over name, password and the file's entry: so no password
//! is kept, and a change in the file counts at once. Checks run on the blocking threads, few at a time.

mod users;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use ring::{digest, hmac, rand};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::credentials::Basic;
use super::{GuardError, HtpasswdConfig, Refusal};
pub use users::HtpasswdError;
use users::{Source, Users};

/// Knows who has which password.
pub(crate) struct Htpasswd {
    source: Source,
    remembered: Remembered,
    /// Checks that run.
    turns: Arc<Semaphore>,
    /// Checks that run or wait.
    places: Arc<Semaphore>,
}

impl Htpasswd {
    pub(crate) async fn open(config: &HtpasswdConfig) -> Result<Self, GuardError> {
        let turns = config.max_checks.clamp(1, MAX_CHECKS);
        let places = turns.saturating_add(config.max_waiting).min(Semaphore::MAX_PERMITS);
        Ok(Self {
            source: Source::open(&config.file).await?,
            remembered: Remembered::new(config.remember)?,
            turns: Arc::new(Semaphore::new(turns)),
            places: Arc::new(Semaphore::new(places)),
        })
    }

    /// Who has which password now.
    pub(crate) async fn users(&self) -> Arc<Users> {
        self.source.users().await
    }

    /// The name, if the password is the one of that name.
    pub(crate) async fn check(&self, basic: Basic) -> Result<String, Refusal> {
        let users = self.source.users().await;
        let name = basic.name.clone();
        let proof = self.remembered.proof(&basic, users.entry(&basic.name));
        if self.remembered.holds(proof) {
            return Ok(name);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Refusal::Busy)?;
        // Several requests of one client wait at once: the first does the work for the others.
        if self.remembered.holds(proof) {
            return Ok(name);
        }
        let checked = tokio::task::spawn_blocking(move || is_right(&users, &basic, [place, turn])).await;
        match checked {
            Ok(true) => {
                self.remembered.add(proof);
                Ok(name)
            }
            Ok(false) => Err(Refusal::BadCredentials("name or password is wrong")),
            Err(_) => Err(Refusal::Busy),
        }
    }
}

/// The check itself. It goes on when its client is gone, so it keeps its permits until it is done.
fn is_right(users: &Users, basic: &Basic, _permits: [OwnedSemaphorePermit; 2]) -> bool {
    let entry = users.entry(&basic.name);
    // bcrypt knows 72 bytes: two passwords that differ only behind them would be one.
    let same = bcrypt::non_truncating_verify(&basic.password, entry.unwrap_or(users.decoy()));
    same.unwrap_or(false) && entry.is_some()
}

/// What was right lately.
struct Remembered {
    key: hmac::Key,
    /// For how long.
    time: Duration,
    proofs: Mutex<LruCache<Proof, Instant>>,
}

type Proof = [u8; digest::SHA256_OUTPUT_LEN];

impl Remembered {
    fn new(time: Duration) -> Result<Self, GuardError> {
        let random = rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| GuardError::NoRandomness)?;
        Ok(Self { key, time, proofs: Mutex::new(LruCache::new(MAX_REMEMBERED)) })
    }

    /// Stands for a name, a password and the entry that they were right for. The key is of this process: what one
    /// learns from how long a comparison takes is of no use.
    fn proof(&self, basic: &Basic, entry: Option<&str>) -> Proof {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [basic.name.as_bytes(), basic.password.as_slice(), entry.unwrap_or_default().as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut proof = Proof::default();
        proof.copy_from_slice(context.sign().as_ref());
        proof
    }

    fn holds(&self, proof: Proof) -> bool {
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.get(&proof).is_some_and(|added| added.elapsed() < self.time)
    }

    fn add(&self, proof: Proof) {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner).put(proof, Instant::now());
    }
}

/// Nobody has more processors for this.
const MAX_CHECKS: usize = 1024;
/// Clients that push and pull within minutes; 100 bytes each.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

#[cfg(test)]
mod tests;
