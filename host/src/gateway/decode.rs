//! From a response to what it means, asked of the provider. Answers of one campaign that came at the same
//! time are decoded in one call: entering the sandbox costs more than decoding one answer.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use http::HeaderMap;

use super::deliver::{Batch, Campaign, Work};
use super::unix_milliseconds;
use crate::contract::Context;
use crate::contract::codec::{Answer, Reply, Response};
use crate::error::Error;

/// Response headers that a provider gets to see.
const MOST_HEADERS: usize = 64;
/// Answers in one call.
const MOST_ANSWERS: usize = 100;

/// Answers that wait to be decoded together.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Vec<(Answer, Arc<Slot>)>>);

/// Where the reply to one answer is left.
#[derive(Default)]
struct Slot(Mutex<Option<Result<Reply, Error>>>);

impl Campaign {
    pub(super) async fn decode(
        &self,
        batch: &Batch,
        work: &Work,
        status: u16,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Reply, Error> {
        let headers = headers.iter().take(MOST_HEADERS);
        let headers =
            headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        let response = Response { status, headers: headers.collect(), body };
        let targets = work.covers.iter().map(|&index| batch.targets[index].clone()).collect();
        let answer = Answer { targets, response };
        if work.covers.len() == batch.targets.len() {
            return self.decode_one(answer);
        }
        let slot = Arc::<Slot>::default();
        self.undecoded.lock().push((answer, slot.clone()));
        // Others of this campaign whose answers are there too add theirs meanwhile.
        tokio::task::yield_now().await;
        let reply = slot.take().or_else(|| {
            self.decode_waiting();
            slot.take()
        });
        reply.unwrap_or_else(|| Err(lost()))
    }

    fn decode_waiting(&self) {
        let waiting = mem::take(&mut *self.undecoded.lock());
        let (mut answers, slots): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        for slots in slots.chunks(MOST_ANSWERS) {
            let rest = answers.split_off(slots.len());
            for (slot, reply) in slots.iter().zip(self.decode_all(mem::replace(&mut answers, rest))) {
                slot.put(reply);
            }
        }
    }

    /// One reply each. Where the provider fails on all together, each is decoded alone, so that one answer
    /// that breaks it does not cost the others theirs.
    fn decode_all(&self, answers: Vec<Answer>) -> Vec<Result<Reply, Error>> {
        match self.call_decode(&answers) {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(error) if answers.len() < 2 => vec![Err(error); answers.len()],
            Err(_) => answers.into_iter().map(|answer| self.decode_one(answer)).collect(),
        }
    }

    fn decode_one(&self, answer: Answer) -> Result<Reply, Error> {
        self.call_decode(&[answer])?.pop().ok_or_else(lost)
    }

    /// As many replies as answers.
    fn call_decode(&self, answers: &[Answer]) -> Result<Vec<Reply>, Error> {
        let context = Context { now: unix_milliseconds(SystemTime::now()), entropy: Vec::new() };
        Ok(self.instances.decode(&context, &self.application.record, answers, self.native)?)
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Vec<(Answer, Arc<Slot>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn put(&self, reply: Result<Reply, Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
    }

    fn take(&self) -> Option<Result<Reply, Error>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn lost() -> Error {
    Error::internal("a reply was lost")
}
