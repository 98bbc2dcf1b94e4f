//! A stream that overlooks a mistake of one of Google's own clients, as Google's servers do.
//!
//! firebase-admin for Node.js writes `:scheme` as `https:`, with the colon, which h2 refuses as malformed. HPACK
//! (RFC 7541) gives that header one form only, seven bytes long, and `https` in plain letters is as long, so it is
//! replaced on its way in. The table entry of the peer is a byte larger than ours from then on: it forgets entries
//! no later than we do, and never refers to those it forgot.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Literal with incremental indexing, name 6 of the static table, `https:` in five bytes of Huffman code. It cannot
/// stand in a body of UTF-8.
const WRITTEN: [u8; 7] = [0x46, 0x85, 0x9d, 0x29, 0xad, 0x17, 0x3f];
/// The same with `https`, not compressed.
const MEANT: [u8; 7] = [0x46, 0x05, b'h', b't', b't', b'p', b's'];

/// The stream of one connection.
pub(super) struct Lenient<S> {
    inner: S,
    /// What was read and is not handed on yet.
    ready: Vec<u8>,
}

impl<S> Lenient<S> {
    pub fn new(inner: S) -> Self {
        Lenient { inner, ready: Vec::new() }
    }

    /// Corrects what is there; how many bytes of it are certain.
    fn correct(&mut self) -> usize {
        let mut start = 0;
        while let Some(rest) = self.ready.get_mut(start..).filter(|rest| !rest.is_empty()) {
            if let Some(found) = rest.first_chunk_mut::<7>().filter(|found| **found == WRITTEN) {
                *found = MEANT;
            } else if WRITTEN.starts_with(rest) {
                return start;
            }
            start += 1;
        }
        start
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let certain = self.correct().min(buf.remaining());
            if certain > 0 {
                buf.put_slice(self.ready.get(..certain).unwrap_or_default());
                self.ready.drain(..certain);
                return Poll::Ready(Ok(()));
            }
            let mut piece = [0; 4096];
            let mut piece = ReadBuf::new(&mut piece);
            match Pin::new(&mut self.inner).poll_read(cx, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                    self.ready.extend_from_slice(piece.filled())
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // What looks like a beginning may be the end of a request, which must not wait for the next one.
                Poll::Ready(Ok(())) | Poll::Pending if !self.ready.is_empty() => {
                    let rest = self.ready.len().min(buf.remaining());
                    buf.put_slice(self.ready.get(..rest).unwrap_or_default());
                    self.ready.drain(..rest);
                    return Poll::Ready(Ok(()));
                }
                end => return end,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn the_scheme_is_corrected_wherever_the_pieces_end() {
        let other = [0x46, 0x85, 0x9d, 0x29, 0xad, 0x17, 0x3e];
        let all = [b"ab".as_slice(), &[0x46], &WRITTEN, b"c", &other, &WRITTEN, &WRITTEN[..4]].concat();
        let expected = [b"ab".as_slice(), &[0x46], &MEANT, b"c", &other, &MEANT, &WRITTEN[..4]].concat();
        for size in 1..=all.len() {
            let mut pieces = in_pieces(&all, size);
            let mut read = Vec::new();
            Lenient::new(&mut pieces).read_to_end(&mut read).await.unwrap();
            assert_eq!(read, expected, "pieces of {size}");
        }
    }

    /// A stream that gives its bytes in pieces.
    fn in_pieces(bytes: &[u8], size: usize) -> Pieces {
        Pieces(bytes.chunks(size).map(<[u8]>::to_vec).collect())
    }

    struct Pieces(std::collections::VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(&self.0.pop_front().unwrap_or_default());
            Poll::Ready(Ok(()))
        }
    }
}
