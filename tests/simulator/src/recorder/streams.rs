//! Connections of a protocol of its own: bytes that arrive, cut into messages, and the bytes that answer them.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::patterns::Fit;
use super::rules::{AnswerRule, Answers, contains};

/// Bytes of one message. More that no rule can tell apart are a message of their own.
const MAX_MESSAGE: usize = 64 << 10;
/// How long a connection may be silent, and how long a peer may take no bytes.
const IDLE: Duration = Duration::from_secs(3600);
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// What happened on a connection.
#[derive(Debug, Clone)]
pub struct RecordedStream {
    /// Of the connections of this recorder, from 1.
    pub connection: u64,
    /// The name that the client asked for.
    pub host: String,
    pub event: StreamEvent,
}

/// An event of a connection.
#[derive(Debug, Clone)]
pub enum StreamEvent {
    /// With the subject of the client's certificate.
    Opened(Option<String>),
    /// A message, and whether a rule fits it.
    Received(Bytes, bool),
    Sent(Bytes),
    Closed,
    /// Why the file with the answers could not be used.
    Problem(String),
}

/// What the bytes that have arrived are.
#[derive(Debug)]
enum Next {
    Incomplete,
    /// So many bytes are a message.
    Message(usize, Option<Box<AnswerRule>>),
}

/// One connection.
pub(super) struct StreamConnection<'a> {
    pub tls: TlsStream<TcpStream>,
    pub host: String,
    pub answers: &'a Answers,
    pub show: &'a (dyn Fn(StreamEvent) + Send + Sync),
}

impl StreamConnection<'_> {
    /// Answers until one of the two sides closes.
    pub async fn serve(mut self, client: Option<String>) {
        (self.show)(StreamEvent::Opened(client));
        let (rules, _) = self.rules().await;
        let greeting = rules
            .iter()
            .find(|rule| rule.is_for_streams() && rule.received.is_none() && rule.is_of_host(&self.host));
        if self.answer(greeting, &[]).await {
            self.converse().await;
        }
        let _ = timeout(WRITE_DEADLINE, self.tls.shutdown()).await;
        (self.show)(StreamEvent::Closed);
    }

    async fn converse(&mut self) {
        let mut arrived = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = timeout(IDLE, self.tls.read(&mut buffer)).await;
            let count = match read {
                Ok(Ok(count)) if count > 0 => count,
                _ => break,
            };
            arrived.extend_from_slice(buffer.get(..count).unwrap_or_default());
            let (rules, problem) = self.rules().await;
            if let Some(problem) = problem {
                (self.show)(StreamEvent::Problem(problem));
            }
            while let Next::Message(length, rule) = next_message(&rules, &self.host, &arrived) {
                let message: Vec<u8> = arrived.drain(..length).collect();
                (self.show)(StreamEvent::Received(message.clone().into(), rule.is_some()));
                if !self.answer(rule.as_deref(), &message).await {
                    return;
                }
            }
        }
        if !arrived.is_empty() {
            (self.show)(StreamEvent::Received(arrived.into(), false));
        }
    }

    async fn rules(&self) -> (Vec<AnswerRule>, Option<String>) {
        self.answers.rules().await
    }

    /// Returns false if the connection ends.
    async fn answer(&mut self, rule: Option<&AnswerRule>, message: &[u8]) -> bool {
        let Some(rule) = rule else { return true };
        sleep(Duration::from_millis(rule.delay_ms)).await;
        let bytes = rule.send.as_ref().map(|send| send.to(message)).unwrap_or_default();
        if !bytes.is_empty() {
            (self.show)(StreamEvent::Sent(bytes.clone().into()));
            let write = async {
                self.tls.write_all(&bytes).await?;
                self.tls.flush().await
            };
            if !matches!(timeout(WRITE_DEADLINE, write).await, Ok(Ok(()))) {
                return false;
            }
        }
        !rule.close
    }
}

fn next_message(rules: &[AnswerRule], host: &str, arrived: &[u8]) -> Next {
    if arrived.is_empty() {
        return Next::Incomplete;
    }
    let incomplete = match arrived.len() {
        ..MAX_MESSAGE => Next::Incomplete,
        _ => Next::Message(arrived.len(), None),
    };
    for rule in rules.iter().filter(|rule| rule.is_of_host(host)) {
        let Some(received) = &rule.received else { continue };
        match received.fits(arrived) {
            Fit::No => continue,
            Fit::Undecided => return incomplete,
            Fit::Yes => {}
        }
        let length = rule.length.map_or(Some(arrived.len()), |length| length.of(arrived));
        let Some(message) = length.and_then(|length| arrived.get(..length.max(1))) else {
            return incomplete;
        };
        if rule.token.as_ref().is_none_or(|token| contains(message, token.as_bytes())) {
            return Next::Message(message.len(), Some(Box::new(rule.clone())));
        }
    }
    Next::Message(arrived.len(), None)
}

#[cfg(test)]
mod tests {
    use super::super::rules::read_rules;
    use super::*;

    /// Returns the messages of what arrived, each with whether it is answered, and the bytes that are left.
    fn messages(rules: &str, mut arrived: &[u8]) -> (Vec<(Vec<u8>, bool)>, usize) {
        let rules = read_rules(rules.as_bytes()).unwrap();
        let mut all = Vec::new();
        while let Next::Message(length, rule) = next_message(&rules, "push.example", arrived) {
            all.push((arrived[..length].to_vec(), rule.is_some()));
            arrived = &arrived[length..];
        }
        (all, arrived.len())
    }

    const COUNTED: &str = r#"[
        {"received": "01", "length": {"at": 1, "bytes": 1, "more": 2}, "send": "02", "token": "dead"},
        {"received": "01", "length": {"at": 1, "bytes": 1, "more": 2}, "send": "03"},
        {"host": "other.example", "received": "09"}
    ]"#;

    #[test]
    fn messages_are_cut_where_they_say() {
        assert_eq!(
            messages(COUNTED, b"\x01\x01a\x01\x04dead\x01\x03b"),
            (vec![(b"\x01\x01a".to_vec(), true), (b"\x01\x04dead".to_vec(), true)], 3)
        );
        assert_eq!(messages(COUNTED, b"\x01"), (Vec::new(), 1));
        // What no rule fits is not kept for ever.
        assert_eq!(messages(COUNTED, b"\x09\x01"), (vec![(b"\x09\x01".to_vec(), false)], 0));
        let long = [b"\x01".as_slice(), &[0xff; 2 * MAX_MESSAGE]].concat();
        let endless = r#"[{"received": "01", "length": {"at": 1, "bytes": 4}}]"#;
        assert_eq!(messages(endless, &long), (vec![(long.clone(), false)], 0));
    }

    #[test]
    fn without_a_length_a_message_is_all_that_has_arrived() {
        assert_eq!(
            messages(r#"[{"received": "'EH'"}]"#, b"EHLO\r\n"),
            (vec![(b"EHLO\r\n".to_vec(), true)], 0)
        );
        assert_eq!(messages(r#"[{"received": "'EH'"}]"#, b"E"), (Vec::new(), 1));
    }
}
