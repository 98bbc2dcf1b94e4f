//! What `pushlet dev` prints. `>`: a request, `<`: its answer, `|`: what the provider printed, `=`: an outcome, `!`: what
//! failed.

use std::io::Write as _;

use http::HeaderMap;
use serde_json::Value;

use pushlet_model::text::Escaped;
use pushlet_settings::Problem;
use pushlet_simulator::recorder::RecordedExchange;

/// Bytes of a body that are printed.
const LONGEST_BODY: usize = 16 << 10;

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

/// Prints a request and its answer. Every secret in it is one that was thrown away.
pub fn print_exchange(exchange: &RecordedExchange) {
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
    // Nobody reads it any more.
    let _ = say(&text);
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
