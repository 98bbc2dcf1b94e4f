//! From targets to requests, asked of the provider.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::context::context_at;
use crate::delivery::{Batch, Delivery, EncodedRequest};
use crate::failure;
use crate::status::Fate;
use pushlet_sandbox::{Instances, Message};

impl Delivery {
    /// The exchanges for some of the batch's targets, and those that are settled without one.
    pub(crate) async fn encode(
        &self,
        batch: &Arc<Batch>,
        indices: &[usize],
    ) -> (Vec<EncodedRequest>, Vec<(usize, Fate)>) {
        // The batches before this one may have taken all the time there was.
        if Instant::now() >= batch.deadline {
            let fate = Fate::Failed(failure::deadline_exceeded());
            return (Vec::new(), indices.iter().map(|&index| (index, fate.clone())).collect());
        }
        // The first try is for all of them, which are only lent; a repeat is for some.
        let again = indices.len() < batch.targets().len();
        let again =
            again.then(|| indices.iter().map(|&index| batch.targets()[index].clone()).collect::<Vec<_>>());
        let size = self.provider.manifest().entropy as usize;
        let entropy =
            indices.iter().flat_map(|&index| &batch.entropy[index * size..(index + 1) * size]).copied();
        let context = context_at(SystemTime::now(), entropy.collect());
        let (application, sent) = (self.application.clone(), batch.clone());
        let encode = move |instances: &Instances| {
            let targets = again.as_deref().unwrap_or(sent.targets());
            instances.encode(&context, &application.record, &sent.notification, targets)
        };
        let prepared = match self.instances.run(encode).await {
            Ok(prepared) => prepared,
            Err(error) => {
                let fate = Fate::Failed(error.into());
                return (Vec::new(), indices.iter().map(|&index| (index, fate.clone())).collect());
            }
        };
        let messages: Vec<Arc<Message>> = prepared.messages.into_iter().map(Arc::new).collect();
        let own = |covers: &[u32]| covers.iter().map(|&index| indices[index as usize]).collect::<Vec<_>>();
        let work = prepared.exchanges.into_iter().map(|exchange| EncodedRequest {
            covers: own(&exchange.covers),
            message: messages[exchange.message].clone(),
            exchange,
        });
        let refused = prepared.refusals.into_iter().flat_map(|(covers, rejection)| {
            let fate = Fate::Failed(rejection.into());
            own(&covers).into_iter().map(move |index| (index, fate.clone()))
        });
        (work.collect(), refused.collect())
    }
}
