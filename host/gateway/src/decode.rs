//! From a response to what it means, asked of the provider. Answers of one delivery that came at the same
//! time are decoded in one call: entering the sandbox costs more than decoding one answer.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use tokio::sync::oneshot;

use crate::context::context_at;
use crate::delivery::{Batch, Delivery, EncodedRequest};
use pushlet_model::contract::codec::{Answer, Reply, Response};
use pushlet_model::error::Error;
use pushlet_sandbox::Instances;

/// Response headers that a provider gets to see.
const MOST_HEADERS: usize = 64;
/// Answers in one call.
const MOST_ANSWERS: usize = 100;

impl Delivery {
    pub(crate) async fn decode(
        &self,
        batch: &Batch,
        work: &EncodedRequest,
        status: u16,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Reply, Error> {
        let response = Response { status, headers: shown(headers), body };
        let targets = work.covers.iter().map(|&index| batch.targets()[index].clone()).collect();
        let answer = Answer { targets, response };
        if work.covers.len() == batch.targets().len() {
            return self.decode_one(answer).await;
        }
        let (sender, reply) = oneshot::channel();
        self.undecoded.put(answer, sender);
        // Others of this delivery whose answers are there too add theirs meanwhile.
        tokio::task::yield_now().await;
        self.decode_waiting().await;
        reply.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Whoever comes first decodes for all.
    async fn decode_waiting(&self) {
        let mut waiting = self.undecoded.take().into_iter();
        loop {
            let (answers, senders): (Vec<_>, Vec<_>) = waiting.by_ref().take(MOST_ANSWERS).unzip();
            if answers.is_empty() {
                return;
            }
            for (sender, reply) in senders.into_iter().zip(self.decode_all(answers).await) {
                // Whoever is gone needs no reply.
                let _ = sender.send(reply);
            }
        }
    }

    /// One reply each. Where the provider fails on all together, each is decoded alone, so that one answer
    /// that breaks it does not cost the others theirs.
    async fn decode_all(&self, answers: Vec<Answer>) -> Vec<Result<Reply, Error>> {
        let answers = Arc::new(answers);
        match self.call_decode(answers.clone()).await {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(error) if answers.len() < 2 => vec![Err(error)],
            Err(_) => {
                let mut replies = Vec::with_capacity(answers.len());
                for answer in &*answers {
                    replies.push(self.decode_one(answer.clone()).await);
                }
                replies
            }
        }
    }

    async fn decode_one(&self, answer: Answer) -> Result<Reply, Error> {
        self.call_decode(Arc::new(vec![answer])).await?.pop().ok_or_else(lost)
    }

    /// As many replies as answers.
    async fn call_decode(&self, answers: Arc<Vec<Answer>>) -> Result<Vec<Reply>, Error> {
        let context = context_at(SystemTime::now(), Vec::new());
        let (application, native) = (self.application.clone(), self.purpose.native);
        let decode =
            move |instances: &Instances| instances.decode(&context, &application.record, &answers, native);
        Ok(self.instances.run(decode).await?)
    }
}

fn lost() -> Error {
    Error::internal("a reply was lost")
}

/// The headers of a response that a provider gets to see.
pub(crate) fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    let headers = headers.iter().take(MOST_HEADERS);
    headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect()
}
