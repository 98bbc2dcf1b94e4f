//! One request over one stream, and the truth about its fate.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Uri, Version};
use tokio::task::coop::consume_budget;
use tokio::time::timeout_at;

use super::connection::{CERTIFICATE_REFUSED, refuses_certificate};
use super::hpack::RequestHead;
use super::pool::{StreamLease, StreamOrigin};
use crate::error::{FailureCause, RequestState, SendError};
use crate::frames::ConnectionRecord;
use crate::request::Request;
use crate::response::{AnswerBody, ConnectionHandle, Response};
use pushlet_quota::account::{Account, MemoryReservation};

static STUB_URI: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("https://-/"));

/// Sends the request over the leased stream.
pub async fn exchange(lease: StreamLease, request: &Request) -> Result<Response, SendError> {
    let mut stream = RequestStream::open(lease, request)?;
    match timeout_at(request.deadline, stream.respond(request.payer.as_ref())).await {
        Ok(Ok((status, headers, (body, reserved)))) => {
            let connection = ConnectionHandle(Some(stream.finish()));
            Ok(Response { status, headers, body, reserved, waited: Duration::ZERO, connection })
        }
        Ok(Err(error)) => {
            stream.give_up();
            Err(error)
        }
        Err(_) => Err(stream.overdue()),
    }
}

/// An open stream. Dropped before its end, it is reset if the request is not wholly written, else the
/// answer is awaited in the background, so that the peer sees no difference.
struct RequestStream {
    open: Option<OpenStream>,
    deadline: tokio::time::Instant,
}

struct OpenStream {
    sending: SendStream<Bytes>,
    /// What h2 has not been given yet. Once it has the end of the request, that may leave at any time.
    unsent: Bytes,
    handed: bool,
    response: ResponseFuture,
    id: u32,
    lease: StreamLease,
}

impl RequestStream {
    fn open(lease: StreamLease, request: &Request) -> Result<Self, SendError> {
        let lost = |detail: String| SendError::not_sent(FailureCause::ConnectionLost, detail);
        let mut sender =
            lease.connection.sender().ok_or_else(|| lost("the connection is retired".to_owned()))?;
        if !lease.connection.heads.have_room() {
            lease.pool.retire(lease.connection.id);
            return Err(lost("too many requests wait to leave".to_owned()));
        }
        let opened = sender.send_request(stub(request), request.body.is_empty());
        let (response, sending) = opened.map_err(|error| {
            lease.pool.retire(lease.connection.id);
            closing(&lease.connection.record, &error).unwrap_or_else(|| lost(error.to_string()))
        })?;
        let id = sending.stream_id().as_u32();
        lease.connection.heads.put(id, head(request));
        let (unsent, handed) = (request.body.clone(), request.body.is_empty());
        let open = Some(OpenStream { sending, unsent, handed, response, id, lease });
        Ok(RequestStream { open, deadline: request.deadline })
    }

    async fn respond(
        &mut self,
        payer: Option<&Arc<Account>>,
    ) -> Result<(u16, HeaderMap, ResponseBody), SendError> {
        let Some(open) = &mut self.open else {
            return Err(SendError::unknown(FailureCause::ConnectionLost, "the stream has ended"));
        };
        let most = open.lease.pool.settings.max_response;
        let result = async {
            let head = tokio::select! {
                biased;
                never = write(&mut open.sending, &mut open.unsent, &mut open.handed) => match never {},
                // It may come before the request is whole.
                head = &mut open.response => head,
            };
            let (head, body) = head?.into_parts();
            open.lease.answered = true;
            let body = read(body, AnswerBody::new(most, payer)).await?;
            Ok(body.map(|body| (head.status.as_u16(), head.headers, body)))
        };
        match result.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause)) => Err(SendError::unknown(cause, format!("at most {most} bytes are read"))),
            // Few fail: the room that this needs is not kept for all.
            Err(error) => Err(Box::pin(open.fate(&error, self.deadline)).await),
        }
    }

    /// Ends a stream that has completed. Returns where it was opened.
    fn finish(mut self) -> StreamOrigin {
        let Some(open) = self.open.take() else { return StreamOrigin::default() };
        let origin = StreamOrigin::new(&open.lease);
        open.end();
        origin
    }

    /// Cancels a stream that has failed, or whose response is no longer wanted.
    fn give_up(mut self) {
        if let Some(open) = self.open.take() {
            open.cancel();
        }
    }

    /// Gives up a stream whose deadline has passed. If the peer has been silent since it was opened, it may be dead.
    fn overdue(mut self) -> SendError {
        let Some(open) = self.open.take() else {
            return SendError::unknown(FailureCause::Deadline, "the stream has ended");
        };
        let delivery = open.delivery();
        if open.lease.connection.record.heard_at() <= open.lease.since {
            open.lease.pool.suspect(&open.lease.connection);
        }
        open.cancel();
        SendError::new(delivery, FailureCause::Deadline, "no answer came in time")
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let awaits_answer = open.delivery() == RequestState::Unknown && !open.lease.answered;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if awaits_answer => {
                let deadline = self.deadline;
                runtime.spawn(async move {
                    let answer = timeout_at(deadline, &mut open.response).await;
                    open.lease.answered = matches!(answer, Ok(Ok(_)));
                    open.cancel();
                });
            }
            _ => open.cancel(),
        }
    }
}

impl OpenStream {
    /// Returns what is known while the connection lives: what h2 has been given may still be in its buffer, and leave.
    fn delivery(&self) -> RequestState {
        if self.handed { RequestState::Unknown } else { RequestState::NotSent }
    }

    /// Returns what is known once nothing more is sent.
    fn delivery_at_end(&self) -> RequestState {
        let written = self.handed && self.lease.connection.record.is_written(self.id);
        if written { RequestState::Unknown } else { RequestState::NotSent }
    }

    /// Resets the stream if it has not ended.
    fn cancel(mut self) {
        self.sending.send_reset(Reason::CANCEL);
        self.end();
    }

    /// Drops the stream first and its lease last.
    fn end(self) {
        let OpenStream { sending, response, id, lease, .. } = self;
        drop((sending, response));
        lease.connection.record.forget(id);
        drop(lease);
    }

    async fn fate(&self, error: &h2::Error, deadline: tokio::time::Instant) -> SendError {
        let record = &self.lease.connection.record;
        let detail = error.to_string();
        if error.is_reset() {
            let code = error.reason().unwrap_or(Reason::INTERNAL_ERROR);
            return match (error.is_remote(), code) {
                (true, Reason::REFUSED_STREAM) => SendError::not_sent(FailureCause::Refused, detail),
                // The peer has read all that it ever will of this stream.
                (true, code) => {
                    SendError::new(self.delivery_at_end(), FailureCause::Reset(code.into()), detail)
                }
                (false, _) => SendError::unknown(FailureCause::Protocol, detail),
            };
        }
        if refuses_certificate(record) {
            return SendError::not_sent(FailureCause::Tls, CERTIFICATE_REFUSED);
        }
        let cause = match record.goaway() {
            Some(goaway) if self.id > goaway.last_stream_id => {
                return SendError::not_sent(goaway.cause(), detail);
            }
            Some(goaway) => goaway.cause(),
            None if error.is_library() => FailureCause::Protocol,
            None => FailureCause::ConnectionLost,
        };
        let ended = timeout_at(deadline, self.lease.connection.ended()).await.is_ok();
        let delivery = if ended { self.delivery_at_end() } else { self.delivery() };
        SendError::new(delivery, cause, detail)
    }
}

/// Gives h2 as much of the body as the peer has room for, until it is whole. Never ends: if the stream does,
/// the response says why.
async fn write(sending: &mut SendStream<Bytes>, unsent: &mut Bytes, handed: &mut bool) -> Infallible {
    while !*handed {
        sending.reserve_capacity(unsent.len());
        while sending.capacity() == 0 {
            let Some(Ok(_)) = poll_fn(|cx| sending.poll_capacity(cx)).await else { return pending().await };
        }
        let piece = unsent.split_to(sending.capacity().min(unsent.len()));
        let is_last = unsent.is_empty();
        if sending.send_data(piece, is_last).is_err() {
            return pending().await;
        }
        *handed = is_last;
    }
    pending().await
}

/// Returns why a connection takes no new stream, if the peer said so.
fn closing(record: &ConnectionRecord, error: &h2::Error) -> Option<SendError> {
    record.goaway().map(|goaway| SendError::not_sent(goaway.cause(), error.to_string()))
}

/// Returns what h2 is given: only what it looks at itself, in the fewest bytes. The head takes its place on the wire.
fn stub(request: &Request) -> http::Request<()> {
    let mut stub = http::Request::new(());
    *stub.uri_mut() = STUB_URI.clone();
    *stub.method_mut() = request.method.clone();
    *stub.version_mut() = Version::HTTP_2;
    stub
}

fn head(request: &Request) -> RequestHead {
    let headers = request.each_header().map(|(name, value)| (name.clone(), value.clone())).collect();
    RequestHead { method: request.method.clone(), path: request.path.clone(), headers }
}

/// A body, and the memory that it has reserved.
type ResponseBody = (Bytes, Option<MemoryReservation>);

/// Returns the whole body, unless it is too large.
async fn read(
    mut body: RecvStream,
    mut whole: AnswerBody<'_>,
) -> Result<Result<ResponseBody, FailureCause>, h2::Error> {
    while let Some(piece) = body.data().await {
        let piece = piece?;
        // One task reads the answers of many targets: it must not read all that have come at one go.
        consume_budget().await;
        if let Err(cause) = whole.push(&piece) {
            return Ok(Err(cause));
        }
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok(Ok(whole.finish()))
}
