//! Ctrl-C: once to send no more, twice to wait no more.

use std::ffi::OsString;
use std::io::Write as _;

use tokio::sync::watch;

/// How often it was pressed. Cheap to clone.
#[derive(Clone)]
pub struct StopSignal(watch::Receiver<u32>);

impl StopSignal {
    /// From now on Ctrl-C does not end the program by itself.
    pub fn listen() -> Self {
        let (pressed, stop) = watch::channel(0);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                pressed.send_modify(|count| *count += 1);
                if *pressed.borrow() == 1 {
                    // Over the progress line.
                    let told = "stopping: what is in flight is waited for; Ctrl-C again ends at once";
                    let _ = writeln!(std::io::stderr(), "\r{told}");
                }
            }
        });
        Self(stop)
    }

    /// Completes once it was pressed this many times.
    pub async fn pressed(&mut self, times: u32) {
        if self.0.wait_for(|count| *count >= times).await.is_err() {
            // There are no signals here.
            std::future::pending::<()>().await;
        }
    }

    pub fn is_pressed(&self) -> bool {
        *self.0.borrow() > 0
    }
}

/// Returns the command that goes on where this one ended.
pub fn how_to_go_on(has_results: bool) -> String {
    if !has_results {
        return "it cannot be continued: without --results, there is no record of the targets that were reached"
            .to_owned();
    }
    format!("to continue, run:\n  {}", resuming(std::env::args_os()))
}

fn resuming(arguments: impl Iterator<Item = OsString>) -> String {
    let mut words = Vec::new();
    let mut variable = None;
    for argument in arguments {
        let argument = argument.to_string_lossy().into_owned();
        let secret = |flag: &str| match flag {
            "--api-key" => Some("$PUSHLET_API_KEY"),
            "--password" => Some("$PUSHLET_PASSWORD"),
            _ => None,
        };
        // Secrets are not to be printed.
        if let Some(variable) = variable.take() {
            words.push(format!("\"{variable}\""));
        } else if let Some((flag, variable)) =
            argument.split_once('=').and_then(|(flag, _)| Some((flag, secret(flag)?)))
        {
            words.push(format!("{flag}=\"{variable}\""));
        } else {
            variable = secret(&argument);
            words.push(quoted(&argument));
        }
    }
    if !words.iter().any(|word| word == "--resume") {
        words.push("--resume".to_owned());
    }
    words.join(" ")
}

/// As a shell reads it as one word.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_same_without_secrets() {
        let words =
            ["pushlet", "send", "--body", "It's $5", "--api-key", "pushlet_1_x", "--password=s", "t.txt"];
        assert_eq!(
            resuming(words.into_iter().map(OsString::from)),
            r#"pushlet send --body 'It'\''s $5' --api-key "$PUSHLET_API_KEY" --password="$PUSHLET_PASSWORD" t.txt --resume"#
        );
        let again = ["pushlet", "send", "--resume"];
        assert_eq!(resuming(again.into_iter().map(OsString::from)), "pushlet send --resume");
    }
}
