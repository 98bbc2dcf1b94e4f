//! The streams of one connection: which are open, how many may be, and what was said about them last.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Frames that are remembered, for the one who must find out how a rule was broken.
const REMEMBERED: usize = 60;

/// What a server knows of the streams of a connection.
pub(super) struct Streams {
    open: HashSet<u32>,
    /// Limits of concurrent streams: the one in force, then those that are not acknowledged yet.
    limits: VecDeque<Limit>,
    frames: VecDeque<Seen>,
    started: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// None was heard of so far.
    Unheard,
    Of(u32),
}

/// Who opens streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opener {
    /// The gateway itself: it begins with one stream, as Apple wants it.
    Careful,
    /// A library: until it has heard of a limit, there is none for it (RFC 9113, section 6.5.2).
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// A frame, and how many streams were open when it passed.
struct Seen {
    at: Duration,
    way: Way,
    kind: u8,
    flags: u8,
    stream: u32,
    /// The first bytes of what does not belong to a stream.
    payload: [u8; 8],
    open: usize,
}

impl Streams {
    /// Of a connection whose first SETTINGS set this limit.
    pub fn new(limit: u32) -> Self {
        Self {
            open: HashSet::new(),
            limits: VecDeque::from([Limit::Unheard, Limit::Of(limit)]),
            frames: VecDeque::new(),
            started: Instant::now(),
        }
    }

    /// The client opened a stream. Err: it is not allowed to. A stream counts until both sides have ended it or
    /// one has reset it; those that are open when a limit falls stay (section 5.1.2).
    pub fn opened(&mut self, stream: u32, opener: Opener) -> Result<(), String> {
        self.open.insert(stream);
        // What is not acknowledged may or may not be known yet.
        let limits = self.limits.iter().map(|limit| limit.most(opener));
        let most = limits.max().unwrap_or_default();
        if self.open.len() <= most as usize {
            return Ok(());
        }
        Err(format!("stream {stream} was opened, {} are open, limits {:?}", self.open.len(), self.limits))
    }

    /// The stream has ended, on both sides. False: it had already.
    pub fn ended(&mut self, stream: u32) -> bool {
        self.open.remove(&stream)
    }

    /// Streams above are not looked at any more.
    pub fn go_away(&mut self, last: u32) {
        self.open.retain(|stream| *stream <= last);
    }

    /// A new limit is about to be sent.
    pub fn limit(&mut self, limit: u32) {
        self.limits.push_back(Limit::Of(limit));
    }

    /// The client acknowledged SETTINGS: what they say holds for what comes after (section 6.5.3).
    pub fn acknowledged(&mut self) {
        if self.limits.len() > 1 {
            self.limits.pop_front();
        }
    }

    /// Remembers a frame, of which these are the bytes.
    pub fn note(&mut self, way: Way, frame: &[u8]) {
        let Some(([_, _, _, kind, flags, stream @ ..], rest)) = frame.split_first_chunk::<9>() else {
            return;
        };
        if self.frames.len() == REMEMBERED {
            self.frames.pop_front();
        }
        let mut payload = [0; 8];
        payload.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let (at, open) = (self.started.elapsed(), self.open.len());
        let stream = u32::from_be_bytes(*stream);
        self.frames.push_back(Seen { at, way, kind: *kind, flags: *flags, stream, payload, open });
    }

    /// The last frames, one a line.
    pub fn transcript(&self) -> String {
        self.frames.iter().fold(String::new(), |mut text, seen| {
            let Seen { at, way, kind, flags, stream, payload, open } = seen;
            let way = if *way == Way::In { "<-" } else { "->" };
            let about = match stream {
                0 => format!("{payload:02x?}"),
                stream => format!("stream {stream}"),
            };
            let at = at.as_secs_f64() * 1e3;
            let _ =
                write!(text, "\n    {at:9.3} ms {way} kind {kind} flags {flags:02x} {about} ({open} open)");
            text
        })
    }
}

impl Limit {
    fn most(self, opener: Opener) -> u32 {
        match (self, opener) {
            (Limit::Of(limit), _) => limit,
            (Limit::Unheard, Opener::Careful) => 1,
            (Limit::Unheard, Opener::Plain) => u32::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Opener::{Careful, Plain};
    use super::*;

    #[test]
    fn a_limit_holds_once_it_is_acknowledged() {
        let mut streams = Streams::new(2);
        assert!(streams.opened(1, Careful).is_ok());
        assert!(streams.opened(3, Careful).is_ok(), "it may know already");
        assert!(streams.opened(5, Careful).is_err());
        streams.acknowledged();
        assert!(streams.ended(1) && streams.ended(5));
        assert!(!streams.ended(5));
        assert!(streams.opened(7, Careful).is_ok());
        streams.limit(1);
        assert!(streams.ended(3));
        assert!(streams.opened(9, Careful).is_ok(), "it may not know yet");
        streams.acknowledged();
        assert!(streams.ended(9));
        assert!(streams.opened(11, Careful).is_err());
    }

    #[test]
    fn before_any_limit_the_gateway_opens_one_stream_and_others_as_many_as_they_like() {
        let mut streams = Streams::new(1);
        assert!(streams.opened(1, Careful).is_ok());
        assert!(streams.opened(3, Careful).is_err());
        let mut streams = Streams::new(1);
        assert!((1..9).step_by(2).all(|stream| streams.opened(stream, Plain).is_ok()));
        streams.acknowledged();
        assert!((1..7).step_by(2).all(|stream| streams.ended(stream)));
        assert!(streams.opened(9, Plain).is_err(), "stream 7 is still open");
        assert!(streams.ended(7) && streams.ended(9));
        assert!(streams.opened(11, Plain).is_ok());
    }

    #[test]
    fn what_a_goaway_left_out_does_not_count() {
        let mut streams = Streams::new(2);
        streams.acknowledged();
        assert!(streams.opened(1, Plain).is_ok() && streams.opened(3, Plain).is_ok());
        streams.go_away(1);
        assert!(!streams.ended(3) && streams.ended(1));
    }

    #[test]
    fn the_last_frames_are_remembered() {
        let mut streams = Streams::new(2);
        (0..200).for_each(|stream| streams.note(Way::In, &[0, 0, 0, 1, 4, 0, 0, 0, stream]));
        streams.note(Way::Out, &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9]);
        let transcript = streams.transcript();
        assert_eq!(transcript.lines().filter(|line| line.contains("kind")).count(), REMEMBERED);
        assert!(transcript.contains("<- kind 1 flags 04 stream 199 (0 open)"), "{transcript}");
        assert!(
            transcript.ends_with("-> kind 4 flags 00 [00, 03, 00, 00, 00, 09, 00, 00] (0 open)"),
            "{transcript}"
        );
    }
}
