#![allow(clippy::unwrap_used)]
use super::*;

/// BodyLines of a body that arrives in these chunks; `-`: too long.
async fn read(chunks: &[&'static str], longest: usize) -> Vec<String> {
    let chunks: Vec<Result<Bytes, std::io::Error>> = chunks.iter().map(|chunk| Ok((*chunk).into())).collect();
    let mut lines = BodyLines::new(Body::from_stream(futures_util::stream::iter(chunks)), longest);
    let mut found = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        found.push(match line {
            BodyLine::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            BodyLine::TooLong => "-".into(),
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
    let mut lines = BodyLines::new(Body::from_stream(futures_util::stream::iter(chunks)), 9);
    assert_eq!(lines.next().await, Ok(Some(BodyLine::Text("a".into()))));
    assert_eq!(lines.next().await, Err(CutOff));
}
