use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;
use crate::frames::{DATA, END_STREAM, FrameScanner};

const AUTHORITY: &str = "localhost:2197";

fn head(path: &str, headers: &[(&'static str, &str)]) -> RequestHead {
    let header = |&(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    let headers = headers.iter().map(header).collect();
    RequestHead { method: Method::POST, path: path.parse().unwrap(), headers }
}

fn stub() -> Request<()> {
    Request::builder().method("POST").uri("https://-/").version(Version::HTTP_2).body(()).unwrap()
}

/// What a server of the h2 crate that keeps a table of this size makes of these heads.
async fn arrives(table: u32, heads: Vec<RequestHead>) -> Vec<(String, String, Vec<(String, String)>)> {
    let (ours, theirs) = duplex(1000);
    let count = heads.len();
    let server = tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder.header_table_size(table).max_header_list_size(1 << 20);
        let mut connection = builder.handshake::<_, Bytes>(theirs).await.unwrap();
        let mut arrived = Vec::new();
        while let Some(request) = connection.accept().await {
            let (request, mut respond) = request.unwrap();
            let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).unwrap();
            let fields = request.headers().iter().map(|(name, value)| (name.to_string(), text(value)));
            arrived.push((request.method().to_string(), request.uri().to_string(), fields.collect()));
            respond.send_response(http::Response::new(()), true).unwrap();
        }
        arrived
    });
    let pending = Arc::<PendingHeads>::default();
    let stream = HeadStream::new(ours, AUTHORITY.to_owned(), pending.clone());
    let (mut sender, driver) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(driver);
    for head in heads {
        let (answer, sending) = sender.send_request(stub(), true).unwrap();
        pending.put(sending.stream_id().as_u32(), head);
        answer.await.unwrap();
    }
    drop(sender);
    driver.await.unwrap().unwrap();
    let arrived = server.await.unwrap();
    assert_eq!(arrived.len(), count);
    assert!(pending.0.lock().heads.is_empty());
    arrived
}

#[tokio::test]
async fn every_head_arrives_as_it_was_given() {
    let long = "long ".repeat(8000);
    let tokens = ["a1", "b2", "c3", "d4", "e5", "f6"];
    // Without a table, with one for two entries, with the usual one, and with one that is larger than what we use.
    for table in [0, 100, 4096, 1 << 16] {
        let mut heads: Vec<RequestHead> = (0..300)
            .map(|number| {
                let token = tokens[number % tokens.len()];
                let (id, path) = (format!("id {number}"), format!("/3/device/{token}?n={number}"));
                let mut head = head(&path, &[("apns-topic", token), ("apns-id", &id), ("x-empty", "")]);
                head.headers.extend(self::head("/", &[("authorization", token)]).headers);
                if number % 50 == 7 {
                    // It takes three frames.
                    head.headers.extend(self::head("/", &[("x-long", &long)]).headers);
                }
                head
            })
            .collect();
        heads[3].method = Method::DELETE;
        let expected: Vec<_> = heads.iter().map(plain).collect();
        assert_eq!(arrives(table, heads).await, expected, "{table}");
    }
}

fn plain(head: &RequestHead) -> (String, String, Vec<(String, String)>) {
    let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).unwrap();
    let fields = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    (head.method.to_string(), format!("https://{AUTHORITY}{}", head.path), fields.collect())
}

/// A frame as h2 writes it in the place of a head.
fn stub_frame(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    [&frame_header(payload.len(), HEADERS, flags, stream), payload].concat()
}

/// Writes all in pieces of this length. Returns what comes out.
async fn written(bytes: &[u8], piece: usize, heads: [u32; 2]) -> io::Result<Vec<u8>> {
    let (ours, mut theirs) = duplex(1 << 16);
    let pending = Arc::<PendingHeads>::default();
    heads.into_iter().for_each(|stream| pending.put(stream, head("/path", &[("apns-topic", "app")])));
    let mut stream = HeadStream::new(ours, AUTHORITY.to_owned(), pending);
    for piece in bytes.chunks(piece) {
        stream.write_all(piece).await?;
    }
    stream.shutdown().await?;
    drop(stream);
    let mut out = Vec::new();
    theirs.read_to_end(&mut out).await?;
    Ok(out)
}

#[tokio::test]
async fn frames_are_replaced_wherever_they_are_cut() {
    let data = [&frame_header(5, 0, 1, 3)[..], b"{\"a\":"].concat();
    let ping = frame_header(0, 4, 1, 0);
    let stubs = [stub_frame(3, END_HEADERS, b"\x83\x87"), stub_frame(5, END_HEADERS | 1, b"")];
    let input = [&[b'-'; PREFACE][..], &ping, &stubs[0], &data, &stubs[1]].concat();
    let whole = written(&input, input.len(), [3, 5]).await.unwrap();
    assert!(whole.starts_with(&[&[b'-'; PREFACE][..], &ping].concat()));
    assert_eq!(whole.windows(data.len()).filter(|window| *window == data).count(), 1);
    for piece in 1..input.len() {
        assert_eq!(written(&input, piece, [3, 5]).await.unwrap(), whole, "{piece}");
    }
}

#[tokio::test]
async fn a_head_in_another_form_ends_the_connection() {
    for flags in [0, END_HEADERS | PADDED, END_HEADERS | PRIORITY] {
        let input = [&[b'-'; PREFACE][..], &stub_frame(3, flags, b"\x83")].concat();
        assert!(written(&input, input.len(), [3, 5]).await.is_err(), "{flags}");
    }
}

fn open(pending: &Arc<PendingHeads>) -> (HeadStream<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(1 << 16);
    let mut stream = HeadStream::new(ours, AUTHORITY.to_owned(), pending.clone());
    stream.preface = 0;
    (stream, theirs)
}

#[tokio::test]
async fn a_head_that_comes_after_its_frame_is_waited_for() {
    let pending = Arc::<PendingHeads>::default();
    let (mut stream, mut theirs) = open(&pending);
    let before = frame_header(0, 4, 1, 0);
    stream.write_all(&before).await.unwrap();
    stream.write_all(&stub_frame(1, END_HEADERS | 1, b"\x83")).await.unwrap();
    let flush = tokio::spawn(async move {
        stream.write_all(&frame_header(0, 4, 1, 0)).await.unwrap();
        stream.flush().await.unwrap();
        stream
    });
    tokio::task::yield_now().await;
    assert!(!flush.is_finished());
    pending.put(1, head("/late", &[]));
    let _stream = timeout(Duration::from_secs(10), flush).await.expect("its writer is woken").unwrap();
    let mut out = vec![0; 64];
    let count = theirs.read(&mut out).await.unwrap();
    assert!(out[..count].starts_with(&before), "{out:x?}");
    assert!(out[..count].ends_with(&frame_header(0, 4, 1, 0)), "{out:x?}");
    assert!(count > 3 * FRAME_HEADER);
}

#[tokio::test]
async fn heads_of_streams_that_were_given_up_are_forgotten() {
    let pending = PendingHeads::default();
    [1, 5, 3, 7].into_iter().for_each(|stream| pending.put(stream, head(&format!("/{stream}"), &[])));
    let taken = poll_fn(|cx| pending.poll_take(5, cx)).await;
    assert_eq!(taken.path, "/5");
    assert_eq!(pending.0.lock().heads.iter().map(|(stream, _)| *stream).collect::<Vec<_>>(), [7]);
}

#[test]
fn so_many_heads_wait_and_no_more() {
    let pending = PendingHeads::default();
    for stream in 0..MOST_PENDING as u32 {
        assert!(pending.have_room());
        pending.put(2 * stream + 1, head("/", &[]));
    }
    assert!(!pending.have_room());
}

/// A connection that keeps each write, and on which nothing comes in.
#[derive(Clone, Default)]
struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

impl AsyncRead for Writes {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Writes {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().push(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn the_frames_of_a_wake_up_leave_in_one_write() {
    let (writes, pending) = (Writes::default(), Arc::<PendingHeads>::default());
    let stream = HeadStream::new(writes.clone(), AUTHORITY.to_owned(), pending.clone());
    let mut builder = h2::client::Builder::new();
    let handshake = builder.initial_max_send_streams(100).handshake::<_, Bytes>(stream);
    let (mut sender, mut driver) = handshake.await.unwrap();
    let mut open = Vec::new();
    let mut preface = PREFACE;
    // Pushes of usual sizes at once, and one whose payload is handed over as it is.
    for payloads in [&[100, 500, 1000][..], &[3000], &[300, 300]] {
        for payload in payloads {
            let (response, mut sending) = sender.send_request(stub(), false).unwrap();
            pending.put(sending.stream_id().as_u32(), head("/", &[]));
            sending.send_data(vec![b'x'; *payload].into(), true).unwrap();
            open.push((response, sending));
        }
        let before = writes.0.lock().len();
        assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut driver).poll(cx))).await.is_pending());
        let writes = writes.0.lock();
        assert_eq!(writes.len(), before + 1, "{payloads:?}");
        let mut ended = 0;
        FrameScanner::new(std::mem::take(&mut preface), false).scan(writes.last().unwrap(), |frame| {
            ended += usize::from(frame.kind == DATA && frame.flags & END_STREAM != 0);
        });
        assert_eq!(ended, payloads.len());
    }
}
