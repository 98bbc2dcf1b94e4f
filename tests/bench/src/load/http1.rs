//! As much of an HTTP/1.1 client (RFC 9112) as a load generator needs.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    used: usize,
}

/// What came back.
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

enum Length {
    Known(usize),
    Chunked,
}

impl Client {
    pub async fn connect(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::with_capacity(8 << 10), used: 0 })
    }

    /// One whole request and its answer.
    pub async fn exchange(&mut self, request: &[u8]) -> std::io::Result<Response> {
        self.stream.write_all(request).await?;
        let (status, length) = self.head().await?;
        let body = match length {
            Length::Known(length) => self.take(length).await?,
            Length::Chunked => self.chunks().await?,
        };
        Ok(Response { status, body })
    }

    /// Both halves, for bodies that flow at the same time.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    async fn head(&mut self) -> std::io::Result<(u16, Length)> {
        let end = self.find(b"\r\n\r\n").await?;
        let head = self.input.get(self.used..end).unwrap_or_default();
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        self.used = end + 4;
        let status = head.get(9..12).and_then(|text| text.parse().ok()).ok_or_else(|| broken("no status"))?;
        let field = |name: &str| {
            head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
        };
        if field("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            return Ok((status, Length::Chunked));
        }
        let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        Ok((status, Length::Known(length)))
    }

    async fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let end = self.find(b"\r\n").await?;
            let size =
                String::from_utf8_lossy(self.input.get(self.used..end).unwrap_or_default()).into_owned();
            let size =
                usize::from_str_radix(size.trim(), 16).map_err(|_| broken("a chunk without its size"))?;
            self.used = end + 2;
            whole.extend(self.take(size).await?);
            self.take(2).await?;
            if size == 0 {
                return Ok(whole);
            }
        }
    }

    async fn take(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        while self.input.len() < self.used + length {
            self.read().await?;
        }
        let taken = self.input.get(self.used..self.used + length).unwrap_or_default().to_vec();
        self.used += length;
        if self.used == self.input.len() {
            self.input.clear();
            self.used = 0;
        }
        Ok(taken)
    }

    async fn find(&mut self, mark: &[u8]) -> std::io::Result<usize> {
        loop {
            let unread = self.input.get(self.used..).unwrap_or_default();
            if let Some(at) = unread.windows(mark.len()).position(|part| part == mark) {
                return Ok(self.used + at);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(broken("the connection was closed")),
            _ => Ok(()),
        }
    }
}

fn broken(what: &str) -> std::io::Error {
    std::io::Error::other(what.to_owned())
}
