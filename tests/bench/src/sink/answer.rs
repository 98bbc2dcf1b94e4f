//! What each push service says when all is well, as HTTP/2 header blocks (RFC 7541, no table needed).

use std::borrow::Cow;

/// The answers of one listener.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The same for every request.
    Fixed { head: Vec<u8>, body: Vec<u8> },
    /// GCM: one result for each of the request's registration ids.
    Gcm,
}

const STATUS_200: u8 = 0x88;
/// `:status`, name from the static table, value as text.
const STATUS: u8 = 0x08;
const IDS: &[u8] = br#""registration_ids":["#;

impl Answer {
    /// Apple: 200 with `apns-id` and no body.
    pub fn apns() -> Self {
        let mut head = vec![STATUS_200];
        header(&mut head, "apns-id", "EC1BF194-B3B2-424A-89A9-5A918A6E6B5D");
        Self::Fixed { head, body: Vec::new() }
    }

    /// FCM v1: the name of the message.
    pub fn fcm() -> Self {
        json(r#"{"name":"projects/bench/messages/0:1500415314455276%31bd1c9631bd1c96"}"#)
    }

    /// RFC 6749 section 5.1.
    pub fn oauth() -> Self {
        json(r#"{"access_token":"ya29.bench","expires_in":3599,"token_type":"Bearer"}"#)
    }

    /// RFC 8030 section 5: 201 with the place of the message.
    pub fn web_push() -> Self {
        let mut head = vec![STATUS, 3];
        head.extend_from_slice(b"201");
        header(&mut head, "location", "https://push.example/m/1");
        Self::Fixed { head, body: Vec::new() }
    }

    /// Does the answer depend on the request's body?
    pub fn reads_body(&self) -> bool {
        matches!(self, Self::Gcm)
    }

    /// Header block and body.
    pub fn to(&self, request: &[u8]) -> (Cow<'_, [u8]>, Cow<'_, [u8]>) {
        match self {
            Self::Fixed { head, body } => (Cow::Borrowed(head), Cow::Borrowed(body)),
            Self::Gcm => {
                let body = gcm(registration_ids(request));
                let Self::Fixed { head, body } = json(&body) else { return Default::default() };
                (Cow::Owned(head), Cow::Owned(body))
            }
        }
    }
}

fn gcm(ids: usize) -> String {
    let results = vec![r#"{"message_id":"1:2342"}"#; ids].join(",");
    format!(r#"{{"multicast_id":216,"success":{ids},"failure":0,"canonical_ids":0,"results":[{results}]}}"#)
}

/// How many there are; tokens hold neither commas nor brackets.
fn registration_ids(request: &[u8]) -> usize {
    let Some(start) = request.windows(IDS.len()).position(|part| part == IDS) else { return 1 };
    let list = request.get(start + IDS.len()..).unwrap_or_default();
    1 + list.iter().take_while(|byte| **byte != b']').filter(|byte| **byte == b',').count()
}

fn json(body: &str) -> Answer {
    let mut head = vec![STATUS_200];
    header(&mut head, "content-type", "application/json; charset=UTF-8");
    Answer::Fixed { head, body: body.as_bytes().to_vec() }
}

/// A literal without indexing and without Huffman coding (RFC 7541 section 6.2.2); both shorter than 127.
fn header(head: &mut Vec<u8>, name: &str, value: &str) {
    head.push(0);
    for text in [name, value] {
        head.push(u8::try_from(text.len()).unwrap_or(0));
        head.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_registration_ids() {
        assert_eq!(registration_ids(br#"{"registration_ids":["a","b","c"],"data":{"x":"1,2"}}"#), 3);
        assert_eq!(registration_ids(br#"{"to":"a"}"#), 1);
    }
}
