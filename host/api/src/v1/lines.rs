//! The lines of a request's body, one at a time, none longer than allowed.

use axum::body::{Body, BodyDataStream};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;

/// Reads no more of the body than the next line needs.
pub(super) struct Lines {
    body: BodyDataStream,
    read: BytesMut,
    /// Bytes of `read` that hold no line break.
    searched: usize,
    /// The line that began was too long: its rest is dropped.
    skipping: bool,
    ended: bool,
    longest: usize,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(Bytes),
    /// It was longer than allowed, and is gone.
    TooLong,
}

/// The body ended before it was complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CutOff;

impl Lines {
    /// `longest`: bytes of one line.
    pub fn new(body: Body, longest: usize) -> Self {
        let body = body.into_data_stream();
        Self { body, read: BytesMut::new(), searched: 0, skipping: false, ended: false, longest }
    }

    /// The next line; None: there is none any more. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Line>, CutOff> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(self.rest());
            }
            self.more().await?;
        }
    }

    /// Waits until something of the next line is there, or it is known that there is none.
    pub async fn begun(&mut self) -> Result<(), CutOff> {
        while self.read.is_empty() && !self.skipping && !self.ended {
            self.more().await?;
        }
        Ok(())
    }

    /// Reads what is left of the body and drops it.
    pub async fn discard(mut self) {
        while !self.ended && self.more().await.is_ok() {
            self.read.clear();
        }
    }

    async fn more(&mut self) -> Result<(), CutOff> {
        match self.body.next().await {
            None => self.ended = true,
            Some(Ok(chunk)) => self.read.extend_from_slice(&chunk),
            Some(Err(_)) => return Err(CutOff),
        }
        Ok(())
    }

    /// A line that is there already.
    pub fn take(&mut self) -> Option<Line> {
        let found = self.read.get(self.searched..).unwrap_or_default().iter().position(|byte| *byte == b'\n');
        let Some(found) = found else {
            self.searched = self.read.len();
            if self.searched > self.longest || self.skipping {
                self.skipping = true;
                self.read.clear();
                self.searched = 0;
            }
            return None;
        };
        let mut line = self.read.split_to(self.searched + found);
        self.read.advance(1);
        self.searched = 0;
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        let too_long = std::mem::take(&mut self.skipping) || line.len() > self.longest;
        Some(if too_long { Line::TooLong } else { Line::Text(line.freeze()) })
    }

    /// What stands after the last line break.
    fn rest(&mut self) -> Option<Line> {
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong);
        }
        self.searched = 0;
        let rest = self.read.split().freeze();
        (!rest.is_empty()).then_some(Line::Text(rest))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Lines of a body that arrives in these chunks; `-`: too long.
    async fn read(chunks: &[&'static str], longest: usize) -> Vec<String> {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            chunks.iter().map(|chunk| Ok((*chunk).into())).collect();
        let mut lines = Lines::new(Body::from_stream(futures_util::stream::iter(chunks)), longest);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(match line {
                Line::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                Line::TooLong => "-".into(),
            });
        }
        found
    }

    #[tokio::test]
    async fn lines_are_found_wherever_the_chunks_end() {
        let expected = ["one", "", "two", "three"];
        assert_eq!(read(&["one\n\ntwo\r\nthree"], 9).await, expected);
        assert_eq!(read(&["o", "ne", "\n", "\nt", "wo\r", "\nthr", "ee\n"], 9).await, expected);
        assert!(read(&[], 9).await.is_empty());
        assert_eq!(read(&["\n"], 9).await, [""]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_dropped_alone() {
        let expected = ["a", "-", "b", "-"];
        assert_eq!(read(&["a\n12345\nb\n67890"], 4).await, expected);
        assert_eq!(read(&["a\n", "123", "45", "6789", "0\nb\n", "12345", "6"], 4).await, expected);
        assert_eq!(read(&["1234\n", "1234"], 4).await, ["1234", "1234"]);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told() {
        let chunks = [Ok(Bytes::from("a\nb")), Err(std::io::Error::other("gone"))];
        let mut lines = Lines::new(Body::from_stream(futures_util::stream::iter(chunks)), 9);
        assert_eq!(lines.next().await, Ok(Some(Line::Text("a".into()))));
        assert_eq!(lines.next().await, Err(CutOff));
    }
}
