//! Frames of HTTP/2 as they pass (RFC 9113, section 4.1).

use std::collections::HashMap;

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const RST_STREAM: u8 = 0x3;
pub const GOAWAY: u8 = 0x7;
pub const END_STREAM: u8 = 0x1;

/// A GOAWAY's fixed part, and as much of its debug data as is kept.
pub const KEPT: usize = 8 + 1024;
const HEADER: usize = 9;
/// Informational answers (1xx) before the answer itself.
pub const MOST_INFORMATIONAL: u8 = 8;
/// Streams whose answers are counted. They are those whose head has come and whose body has not.
const MOST_STREAMS: usize = 10_000;

/// One frame that has passed whole. `payload` is kept only where it is needed.
pub struct WireFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Splits a byte stream into frames, one direction.
pub struct FrameScanner {
    /// Bytes of the current frame's payload that are still to come.
    left: usize,
    /// Bytes before the first frame that are still to come: the client preface.
    preface: usize,
    /// Whether the payload of GOAWAY is kept.
    keep: bool,
    header: Vec<u8>,
    frame: Option<WireFrame>,
}

impl FrameScanner {
    pub fn new(preface: usize, keep: bool) -> Self {
        FrameScanner { left: 0, preface, keep, header: Vec::with_capacity(HEADER), frame: None }
    }

    pub fn scan(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(&WireFrame)) {
        let skipped = take(&mut bytes, self.preface);
        self.preface -= skipped.len();
        while !bytes.is_empty() {
            match &mut self.frame {
                None => self.header.extend_from_slice(take(&mut bytes, HEADER - self.header.len())),
                Some(frame) => {
                    let payload = take(&mut bytes, self.left);
                    self.left -= payload.len();
                    if self.keep && frame.kind == GOAWAY {
                        let room = KEPT - frame.payload.len();
                        frame.payload.extend_from_slice(payload.get(..room).unwrap_or(payload));
                    }
                }
            }
            self.start_frame();
            if self.left == 0
                && let Some(frame) = self.frame.take()
            {
                on_frame(&frame);
            }
        }
    }

    /// Reads the header once it is complete.
    fn start_frame(&mut self) {
        let Ok([a, b, c, kind, flags, s, t, u, v]) = <[u8; HEADER]>::try_from(self.header.as_slice()) else {
            return;
        };
        self.header.clear();
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = u32::from_be_bytes([s & 0x7f, t, u, v]);
        self.frame = Some(WireFrame { kind, flags, stream, payload: Vec::new() });
    }
}

/// Cuts at most `count` bytes off the front.
pub fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    taken
}

/// Counts the answers to each request that are not its last. They cost the peer a few bytes each and us as much as an
/// answer, and there is no end of them unless one is set.
#[derive(Default)]
pub struct HeaderCounts(HashMap<u32, u8>);

impl HeaderCounts {
    /// False: there were too many on this frame's stream.
    pub fn received(&mut self, frame: &WireFrame) -> bool {
        let ends = frame.flags & END_STREAM != 0;
        match frame.kind {
            HEADERS if !ends => {
                if self.0.len() >= MOST_STREAMS {
                    self.0.clear();
                }
                let heads = self.0.entry(frame.stream).or_insert(0);
                *heads += 1;
                // One of them may be the answer itself.
                *heads <= MOST_INFORMATIONAL + 1
            }
            HEADERS | DATA | RST_STREAM => {
                self.0.remove(&frame.stream);
                true
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32) -> WireFrame {
        WireFrame { kind, flags, stream, payload: Vec::new() }
    }

    #[test]
    fn so_many_informational_answers_and_no_more() {
        let mut heads = HeaderCounts::default();
        for _ in 0..=MOST_INFORMATIONAL {
            assert!(heads.received(&frame(HEADERS, 4, 1)));
        }
        assert!(heads.received(&frame(HEADERS, 4, 3)), "each stream has its own");
        assert!(!heads.received(&frame(HEADERS, 4, 1)));
    }

    #[test]
    fn nothing_is_kept_of_what_has_been_answered() {
        let mut heads = HeaderCounts::default();
        for (stream, (kind, flags)) in
            (1..).step_by(2).zip([(DATA, 0), (DATA, END_STREAM), (HEADERS, END_STREAM), (RST_STREAM, 0)])
        {
            assert!(heads.received(&frame(HEADERS, 4, stream)));
            assert!(heads.received(&frame(kind, flags, stream)));
        }
        assert!(heads.0.is_empty());
        for stream in 0..30_000 {
            heads.received(&frame(HEADERS, 4, stream));
        }
        assert!(heads.0.len() <= MOST_STREAMS);
    }
}
