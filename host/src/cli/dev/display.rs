//! What `pushlet dev` prints. `>`: a request, `<`: its answer, `|`: what the provider printed, `=`: an outcome, `!`: what
//! failed.

use std::io::Write as _;

use http::HeaderMap;
use serde_json::Value;

use pushlet_model::text::Escaped;
use pushlet_settings::Problem;
use pushlet_simulator::recorder::{Recorded, RecordedExchange, RecordedStream, StreamEvent};

/// Bytes of a body that are printed.
const LONGEST_BODY: usize = 16 << 10;
/// Bytes of a message of a byte stream that are printed, and of a line of them.
const LONGEST_MESSAGE: usize = 1 << 10;
const HEX_LINE: usize = 16;

/// Prints why something failed; returns false.
pub fn fail(why: &str) -> Result<bool, Problem> {
    say(&format!("! {}\n", Escaped(why)))?;
    Ok(false)
}

/// Returns the status of a result, and what else is in it.
pub fn outcome(result: &Value) -> String {
    let mut result = result.clone();
    let status = result["status"].as_str().unwrap_or_default().to_owned();
    if let Some(object) = result.as_object_mut() {
        object.retain(|name, _| !["status", "index", "target"].contains(&name.as_str()));
    }
    let more = if result.as_object().is_some_and(|object| !object.is_empty()) {
        format!(" {result}")
    } else {
        String::new()
    };
    format!("{}{}", Escaped(status), Escaped(more))
}

/// Prints what was recorded. Every secret in it is one that was thrown away.
pub fn print_recorded(recorded: &Recorded) {
    let text = match recorded {
        Recorded::Exchange(exchange) => exchange_text(exchange),
        Recorded::Stream(stream) => stream_text(stream),
    };
    // Nobody reads it any more.
    let _ = say(&text);
}

fn exchange_text(exchange: &RecordedExchange) -> String {
    let mut text = format!("> {} {} {:?}\n", exchange.method, Escaped(&exchange.url), exchange.version);
    if let Some(client) = &exchange.client {
        text += &format!("> # client certificate {}\n", Escaped(client));
    }
    text += &lines('>', &exchange.headers, &exchange.body);
    text += &format!(
        "< {}{}\n",
        exchange.status.as_u16(),
        if exchange.for_token { " (access token)" } else { "" }
    );
    text += &lines('<', &exchange.answer_headers, &exchange.answer);
    if let Some(problem) = &exchange.problem {
        text += &format!("! {}\n", Escaped(problem));
    }
    text
}

/// Returns what happened on a connection of a protocol of its own.
fn stream_text(RecordedStream { connection, host, event }: &RecordedStream) -> String {
    let line = |mark: char, what: &str| format!("{mark} connection {connection}: {what}\n");
    match event {
        StreamEvent::Opened(client) => {
            let client =
                client.iter().map(|client| line('>', &format!("client certificate {}", Escaped(client))));
            line('>', &format!("opened to {}", Escaped(host))) + &client.collect::<String>()
        }
        StreamEvent::Received(bytes, is_answered) => {
            let unanswered = if *is_answered { String::new() } else { line('<', "no rule fits") };
            line('>', &format!("{} bytes", bytes.len())) + &message_lines('>', bytes) + &unanswered
        }
        StreamEvent::Sent(bytes) => line('<', &format!("{} bytes", bytes.len())) + &message_lines('<', bytes),
        StreamEvent::Closed => line('<', "closed"),
        StreamEvent::Problem(why) => format!("! {}\n", Escaped(why)),
    }
}

/// Returns bytes in hex, with the text that is in them.
fn message_lines(mark: char, bytes: &[u8]) -> String {
    let shown = bytes.get(..LONGEST_MESSAGE).unwrap_or(bytes);
    let mut text = String::new();
    for line in shown.chunks(HEX_LINE) {
        let pairs = |four: &[u8]| four.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let hex: Vec<String> = line.chunks(4).map(pairs).collect();
        let readable = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' };
        let readable: String = line.iter().map(readable).collect();
        text += &format!("{mark}   {:<35}  {readable}\n", hex.join(" "));
    }
    if shown.len() < bytes.len() {
        text += &format!("{mark}   # and {} bytes more\n", bytes.len() - shown.len());
    }
    text
}

pub fn say(text: &str) -> Result<(), Problem> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Problem::new)
}

fn lines(mark: char, headers: &HeaderMap, body: &[u8]) -> String {
    let mut text: String = headers
        .iter()
        .map(|(name, value)| {
            format!("{mark} {name}: {}\n", Escaped(String::from_utf8_lossy(value.as_bytes())))
        })
        .collect();
    match std::str::from_utf8(body) {
        Ok("") => {}
        Ok(body) if body.len() <= LONGEST_BODY => {
            text.push_str(&format!("{mark}\n"));
            text.extend(body.lines().map(|line| format!("{mark} {}\n", Escaped(line))));
        }
        _ => text += &format!("{mark}\n{mark} # {} bytes\n", body.len()),
    }
    text
}
