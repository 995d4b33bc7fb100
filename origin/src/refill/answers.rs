//! What is said of a blob that the sources have: how long it is, and the hashes of what has come.

use std::sync::PoisonError;
use std::time::Instant;

use futures_util::FutureExt as _;
use shoal_control::message::{HashesQuery, HashesReply};
use shoal_core::{Digest, PieceIndex, RepositoryName, SignedMetainfo};
use shoal_store::{Blob, Entry};
use tokio::time::timeout;

use super::memory::{Question, Word};
use super::{Asked, Named, Refill, RefillError, late, unavailable};

impl Refill {
    /// How long a blob is that this origin does not hold; it is not fetched for that.
    pub(crate) async fn stat(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<u64, RefillError> {
        if let Some(length) = self.arriving(digest).map(|partial| partial.metainfo().length()) {
            return Ok(length);
        }
        let question = (repository.cloned(), *digest);
        match self.recall(&question) {
            Some(Word::Absent) => return Err(RefillError::NotFound),
            Some(Word::Length(length)) => return Ok(length),
            None => {}
        }
        self.join_question(question)?.await
    }

    /// What is known of the blob beyond the first `known` hashes; it is fetched if it is not here. Waits a while for more, unless
    /// that is more than there can be.
    pub(crate) async fn hashes(&self, query: &HashesQuery) -> Result<HashesReply, RefillError> {
        let HashesQuery { repository, digest, known } = query;
        let partial = match self.open(repository.as_ref(), digest).await? {
            Entry::Whole(blob) => return Ok(self.all_hashes(&blob)),
            Entry::Partial(partial) => partial,
        };
        let geometry = *partial.metainfo().geometry();
        if *known <= geometry.piece_count() {
            let more = partial.hash_known(PieceIndex(*known));
            // How it comes out is looked at below.
            let _ = timeout(HashesReply::PATIENCE, more).await;
        }
        match self.0.store.blob(digest) {
            Some(blob) => Ok(self.all_hashes(&blob)),
            None => Ok(HashesReply::arriving(geometry, &partial.hashes(PieceIndex(*known)))),
        }
    }

    fn all_hashes(&self, blob: &Blob) -> HashesReply {
        let metainfo = blob.metainfo().clone();
        let proof = (self.0.sign)(&metainfo);
        HashesReply::whole(&SignedMetainfo { metainfo, proof })
    }

    fn join_question(&self, question: Question) -> Result<Asked, RefillError> {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = asked.get(&question) {
            return Ok(found.clone());
        }
        if asked.len() >= Self::MAX_ACTIVE {
            return Err(unavailable("too many questions to the sources are under way: try again"));
        }
        let refill = self.clone();
        let key = question.clone();
        let answer = async move {
            let answer = tokio::select! {
                () = refill.0.stop.cancelled() => Err(unavailable("the origin stops")),
                answer = refill.ask(&question) => answer,
            };
            refill.0.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&question);
            answer
        };
        let answer = answer.boxed().shared();
        asked.insert(key, answer.clone());
        // A task, since whoever asks may go away.
        self.0.tasks.spawn_on(answer.clone(), &self.0.runtime);
        Ok(answer)
    }

    /// Asks one source after the other how long the blob is.
    async fn ask(&self, question: &Question) -> Result<u64, RefillError> {
        let (repository, digest) = question;
        let mut failure = None;
        for (place, named) in self.0.sources.iter().enumerate() {
            let Named { name, source, .. } = named;
            if self.memory().is_barred(Instant::now(), place, digest) {
                failure = Some(unavailable("a source that has it sent wrong bytes, and is not asked"));
                continue;
            }
            let answer = timeout(self.patience(named), source.stat(repository.as_ref(), digest)).await;
            match answer.unwrap_or_else(|_| Err(late())) {
                Ok(length) if length > self.0.config.max_blob_size.as_u64() => {
                    failure = Some(self.too_long(name, length));
                }
                Ok(length) => {
                    self.memory().remember(Instant::now(), question.clone(), Word::Length(length));
                    return Ok(length);
                }
                Err(error) => failure = self.note(name, digest, &error).or(failure),
            }
        }
        let Some(failure) = failure else {
            self.memory().remember(Instant::now(), question.clone(), Word::Absent);
            return Err(RefillError::NotFound);
        };
        Err(failure)
    }
}
