//! One notification to many targets: encode, authorise, send, decode, and again where that makes sense.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::HeaderMap;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use super::authorize::{self, Authorized};
use super::retry::{self, Circumstances};
use super::{Fate, Inner, failure, unix_milliseconds};
use crate::contract::codec::{Answer, Reply, Response};
use crate::contract::{ConnectionHint, Context, Disposition, Notification, Outcome, Target};
use crate::credential::{self, Moment, TokenHandle};
use crate::error::Error;
use crate::provider::{Exchange, Instances, Message, Provider};
use crate::registry::Application;
use crate::transport;

/// Targets in one call of `encode`.
const BATCH: usize = 500;
/// Exchanges of one campaign at once; the transport bounds what all campaigns have under way.
const MOST_AT_ONCE: usize = 1000;
/// In place of a status: the service closed the connection and gave a reason.
const NO_STATUS: u16 = 0;
/// Response headers that a provider gets to see.
const MOST_HEADERS: usize = 64;

/// One notification on its way to its targets.
pub(super) struct Campaign<'a> {
    gateway: &'a Inner,
    provider: &'a Provider,
    instances: &'a Instances,
    application: &'a Application,
    notification: &'a Notification,
    targets: &'a [Target],
    native: bool,
    deadline: Instant,
    /// As many bytes per target as the manifest asks for; kept, so that a retry gives the same bytes.
    entropy: Vec<u8>,
}

/// One exchange, and which of the campaign's targets it covers.
struct Work {
    covers: Vec<usize>,
    message: Arc<Message>,
    exchange: Exchange,
}

/// What an exchange came to.
struct Settled {
    fates: Vec<(usize, Fate)>,
    native: Option<String>,
}

/// What one try came to.
struct Attempt {
    fates: Vec<Fate>,
    native: Option<String>,
    new_token: bool,
}

impl<'a> Campaign<'a> {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        gateway: &'a Inner,
        provider: &'a Provider,
        instances: &'a Instances,
        application: &'a Application,
        notification: &'a Notification,
        targets: &'a [Target],
        native: bool,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let mut entropy = vec![0; targets.len() * provider.manifest().entropy as usize];
        SystemRandom::new().fill(&mut entropy).map_err(|_| Error::internal("no randomness"))?;
        Ok(Self {
            gateway,
            provider,
            instances,
            application,
            notification,
            targets,
            native,
            deadline,
            entropy,
        })
    }

    /// One fate per target, in order, and the service's own answer if it was asked for.
    pub async fn run(&self) -> (Vec<Fate>, Option<String>) {
        let mut fates: Vec<Option<Fate>> = vec![None; self.targets.len()];
        let mut native = None;
        let mut under_way = FuturesUnordered::new();
        let mut next = 0;
        loop {
            while next < self.targets.len() && under_way.len() < MOST_AT_ONCE {
                let batch: Vec<usize> = (next..self.targets.len().min(next + BATCH)).collect();
                next += batch.len();
                let (work, refused) = self.encode(&batch);
                refused.into_iter().for_each(|(index, fate)| fates[index] = Some(fate));
                under_way.extend(work.into_iter().map(|work| self.settle(work)));
            }
            let Some(settled) = under_way.next().await else { break };
            settled.fates.into_iter().for_each(|(index, fate)| fates[index] = Some(fate));
            native = settled.native.or(native);
        }
        let missing = || Fate::Failed(Error::internal("a target was lost"));
        (fates.into_iter().map(|fate| fate.unwrap_or_else(missing)).collect(), native)
    }

    /// The exchanges for some of the targets, and those that are settled without one.
    fn encode(&self, indices: &[usize]) -> (Vec<Work>, Vec<(usize, Fate)>) {
        let targets: Vec<Target> = indices.iter().map(|&index| self.targets[index].clone()).collect();
        let size = self.provider.manifest().entropy as usize;
        let entropy =
            indices.iter().flat_map(|&index| &self.entropy[index * size..(index + 1) * size]).copied();
        let context = Context { now: unix_milliseconds(SystemTime::now()), entropy: entropy.collect() };
        let record = &self.application.record;
        let prepared = match self.instances.encode(&context, record, self.notification, &targets) {
            Ok(prepared) => prepared,
            Err(error) => {
                let fate = Fate::Failed(error.into());
                return (Vec::new(), indices.iter().map(|&index| (index, fate.clone())).collect());
            }
        };
        let messages: Vec<Arc<Message>> = prepared.messages.into_iter().map(Arc::new).collect();
        let own = |covers: &[u32]| covers.iter().map(|&index| indices[index as usize]).collect::<Vec<_>>();
        let work = prepared.exchanges.into_iter().map(|exchange| Work {
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

    /// Tries until every target of the exchange has its final fate.
    async fn settle(&self, work: Work) -> Settled {
        let mut settled = Settled { fates: Vec::with_capacity(work.covers.len()), native: None };
        let mut pending = vec![work];
        // Targets that an earlier try may have reached, and whether the token was replaced already.
        let (mut perhaps_reached, mut renewed) = (HashSet::new(), false);
        for retries in 0.. {
            let mut again = Vec::new();
            let mut resume = Instant::now();
            for work in pending {
                let attempt = self.attempt(&work).await;
                settled.native = attempt.native.or(settled.native);
                let circumstances = Circumstances {
                    retries,
                    most_retries: self.gateway.delivery.retries,
                    may_resend_unknown: work.message.idempotent && self.gateway.delivery.resend_unknown,
                    new_token: attempt.new_token && !renewed,
                    random: rand::random(),
                };
                renewed |= attempt.new_token;
                for (index, fate) in work.covers.into_iter().zip(attempt.fates) {
                    let pause =
                        retry::pause(&fate, circumstances).and_then(|wait| Instant::now().checked_add(wait));
                    match pause.filter(|until| *until < self.deadline) {
                        Some(until) => {
                            resume = resume.max(until);
                            if retry::may_have_arrived(&fate) {
                                perhaps_reached.insert(index);
                            }
                            again.push(index);
                        }
                        None => {
                            let fate = retry::told(fate, perhaps_reached.contains(&index), circumstances);
                            settled.fates.push((index, fate));
                        }
                    }
                }
            }
            if again.is_empty() {
                break;
            }
            tokio::time::sleep_until(resume).await;
            let (work, refused) = self.encode(&again);
            let told = |index, fate| {
                if perhaps_reached.contains(&index) { retry::after_unknown(fate) } else { fate }
            };
            settled.fates.extend(refused.into_iter().map(|(index, fate)| (index, told(index, fate))));
            pending = work;
        }
        settled
    }

    async fn attempt(&self, work: &Work) -> Attempt {
        match self.exchange(work).await {
            Ok(attempt) => attempt,
            Err(fate) => Attempt { fates: vec![*fate; work.covers.len()], native: None, new_token: false },
        }
    }

    /// One request and its answer. An error is the fate of all targets.
    async fn exchange(&self, work: &Work) -> Result<Attempt, Box<Fate>> {
        let failed = |error: Error| Box::new(Fate::Failed(error));
        let destination =
            self.gateway.destinations.of(self.provider, &work.message, &work.exchange).map_err(failed)?;
        let Authorized { identity, header, token } =
            self.authorize(&work.message, &destination.origin).await.map_err(failed)?;
        let mut headers = work.message.headers.clone();
        headers.extend(work.exchange.headers.clone());
        headers.extend(header.map(|(name, value)| (Some(name), value)));
        let request = transport::Request {
            origin: destination.origin,
            protocol: destination.protocol,
            identity,
            method: work.message.method.clone(),
            path: destination.path,
            headers,
            body: work.message.body.clone(),
            deadline: self.deadline,
            guarded: destination.guarded,
        };
        let response = match self.gateway.transport.send(request).await {
            Ok(response) => response,
            Err(error) => {
                return self
                    .turned_away(work, &error, token)
                    .ok_or_else(|| Box::new(failure::no_answer(error)));
            }
        };
        let transport::Response { status, headers, body, connection } = response;
        let reply = self.decode(work, status, &headers, body.into()).map_err(failed)?;
        if reply.outcomes.iter().any(|outcome| outcome.connection == ConnectionHint::Close) {
            connection.close_after_use();
        }
        let new_token = self.note_refusal(&reply, token);
        Ok(Attempt {
            fates: reply.outcomes.into_iter().map(Fate::Settled).collect(),
            native: reply.native,
            new_token,
        })
    }

    /// A service may say with its GOAWAY that it does not accept our credential. Only the provider knows its
    /// words.
    fn turned_away(
        &self,
        work: &Work,
        error: &transport::SendError,
        token: Option<TokenHandle>,
    ) -> Option<Attempt> {
        let transport::Cause::GoAway { reason: Some(reason), .. } = &error.cause else { return None };
        if error.delivery != transport::Delivery::NotSent {
            return None;
        }
        let body = serde_json::json!({ "reason": reason }).to_string().into_bytes();
        let reply = self.decode(work, NO_STATUS, &HeaderMap::new(), body).ok()?;
        let refused =
            |outcome: &Outcome| matches!(outcome.disposition, Disposition::CredentialRejected(_));
        reply.outcomes.iter().all(refused).then(|| Attempt {
            new_token: self.note_refusal(&reply, token),
            fates: reply.outcomes.into_iter().map(Fate::Settled).collect(),
            native: None,
        })
    }

    async fn authorize(&self, message: &Message, origin: &transport::Origin) -> Result<Authorized, Error> {
        let kind = authorize::kind_of(self.provider.manifest(), self.application);
        let (Some(kind), Some(credential), true) = (kind, &self.application.credential, message.authenticate)
        else {
            return Ok(Authorized::anonymous());
        };
        let origin = origin.to_string();
        let settings = &self.application.record.settings;
        let exchange = credential::Exchange { credential, kind, settings, origin: &origin };
        let deadline = self.deadline.into_std();
        let authorization = self.gateway.authorizer.authorize(exchange, &Moment::now(), deadline).await;
        let authorization = authorization.map_err(failure::not_authorized)?;
        Ok(Authorized::new(authorization, self.application, kind))
    }

    fn decode(&self, work: &Work, status: u16, headers: &HeaderMap, body: Vec<u8>) -> Result<Reply, Error> {
        let headers = headers.iter().take(MOST_HEADERS);
        let headers =
            headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        let response = Response { status, headers: headers.collect(), body };
        let targets = work.covers.iter().map(|&index| self.targets[index].clone()).collect();
        let context = Context { now: unix_milliseconds(SystemTime::now()), entropy: Vec::new() };
        let answers = [Answer { targets, response }];
        let mut replies = self.instances.decode(&context, &self.application.record, &answers, self.native)?;
        replies.pop().ok_or_else(|| Error::internal("a reply was lost"))
    }

    /// Tells the owner of the token that it was refused. Is a new one to be had?
    fn note_refusal(&self, reply: &Reply, token: Option<TokenHandle>) -> bool {
        let fault = reply.outcomes.iter().find_map(|outcome| match outcome.disposition {
            Disposition::CredentialRejected(fault) => Some(fault),
            _ => None,
        });
        match (fault, token) {
            (Some(fault), Some(token)) => self.gateway.authorizer.refused(&token, fault, &Moment::now()),
            // A provider that calls a certificate or a key "expired" gets no second try.
            _ => false,
        }
    }
}
