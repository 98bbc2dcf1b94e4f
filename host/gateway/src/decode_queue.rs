//! Responses of one delivery that wait to be decoded in one call.

use std::mem;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use pushlet_model::contract::codec::{Answer, Reply};
use pushlet_model::error::Error;

/// Answers that wait to be decoded together, and where the reply to each is awaited.
#[derive(Default)]
pub(crate) struct DecodeQueue(Mutex<Vec<(Answer, oneshot::Sender<Result<Reply, Error>>)>>);

impl DecodeQueue {
    pub fn put(&self, answer: Answer, reply: oneshot::Sender<Result<Reply, Error>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((answer, reply));
    }

    pub fn take(&self) -> Vec<(Answer, oneshot::Sender<Result<Reply, Error>>)> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
