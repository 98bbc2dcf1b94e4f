//! The results file: a line of JSON for each target, from which a later run knows what is done.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::targets::{FinishedTargets, Target};
use pushlet_settings::Problem;

/// Results after which another try makes no sense, or might be a second push.
const FINAL: [&str; 5] = ["delivered", "unregistered", "replaced", "rejected", "unknown"];

/// The field of a result that says what was sent: the beginning of a digest.
const WHAT: &str = "notification_digest";

/// The field of a duplicate whose target is an earlier one, written otherwise. Its text is in no other line, so it is
/// done; one in the same spelling has the fate of the first.
pub const OTHER_SPELLING: &str = "other_spelling";

/// Where results go.
pub struct ResultsFile {
    file: Option<BufWriter<File>>,
    done: FinishedTargets,
    /// What is sent: it stands in each line, so that another run knows whether it sends the same.
    what: String,
}

impl ResultsFile {
    /// Opens the file; None: results are not written. A file that is not empty is only written to in order to
    /// `resume`. `header`: application and notification, which must be those of the file then.
    pub fn open(path: Option<&Path>, resume: bool, header: &Value) -> Result<Self, Problem> {
        let same = json!([header["application_id"], header["notification"]]).to_string();
        let what = hex::encode(&digest(&SHA256, same.as_bytes()).as_ref()[..8]);
        let Some(path) = path else { return Ok(Self { file: None, done: FinishedTargets::default(), what }) };
        let wrong = |error: std::io::Error| Problem::new(format_args!("{}: {error}", path.display()));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(wrong)?;
        // One that is empty is what a send left that the server refused.
        if !resume && file.metadata().map_err(wrong)?.len() > 0 {
            let path = path.display();
            return Err(Problem::new(format_args!("{path} is there already: --resume goes on with it")));
        }
        let done = match resume.then(|| read(&mut file, &what)).transpose().map_err(wrong)? {
            Some(None) => {
                return Err(Problem::new(format_args!(
                    "{} holds results of another application or notification: --resume goes on with the same ones only",
                    path.display()
                )));
            }
            Some(Some(done)) => done,
            None => FinishedTargets::default(),
        };
        Ok(Self { file: Some(BufWriter::with_capacity(256 << 10, file)), done, what })
    }

    pub fn take_done(&mut self) -> FinishedTargets {
        std::mem::take(&mut self.done)
    }

    /// `result`: as the stream had it; its numbers of lines mean nothing to others.
    pub fn write(&mut self, target: &str, result: &Map<String, Value>) -> Result<(), Problem> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = Map::new();
        line.insert("target".to_owned(), Target::shown(target));
        line.extend(
            result
                .iter()
                .filter(|(name, _)| *name != "index" && *name != "duplicate_of")
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        line.insert(WHAT.to_owned(), self.what.as_str().into());
        writeln!(file, "{}", Value::Object(line)).map_err(not_written)
    }

    pub fn flush(&mut self) -> Result<(), Problem> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush().map_err(not_written))
    }
}

fn not_written(error: std::io::Error) -> Problem {
    Problem::new(format_args!("the results cannot be written: {error}"))
}

/// Reads the finished targets; None: the file is of another notification. A last line that was cut off is closed, so
/// that the next one is whole.
fn read(file: &mut File, what: &str) -> std::io::Result<Option<FinishedTargets>> {
    let mut done = FinishedTargets::default();
    let mut input = BufReader::with_capacity(1 << 20, &mut *file);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let result = serde_json::from_slice::<Value>(&line).unwrap_or_default();
        if result[WHAT].as_str().is_some_and(|other| other != what) {
            return Ok(None);
        }
        let is_final = result["status"].as_str().is_some_and(|status| FINAL.contains(&status));
        if is_final || result[OTHER_SPELLING] == true {
            match &result["target"] {
                Value::String(text) => done.insert(text),
                other => done.insert(&other.to_string()),
            }
        }
        line.clear();
    }
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(Some(done))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;

    #[test]
    fn only_final_results_are_done_and_a_cut_off_line_is_closed() {
        let lines = "{\"target\":\"a\",\"status\":\"delivered\"}\n{\"target\":\"b\",\"status\":\"throttled\"}\n\
                     {\"target\":{\"target\":{\"topic\":\"c\"}},\"status\":\"rejected\"}\n{\"target\":\"e\",\"status\":\"duplicate\"}\n\
                     {\"target\":\"E\",\"status\":\"duplicate\",\"other_spelling\":true}\n{\"target\":\"d\",\"stat";
        let file = NamedTempFile::new().unwrap();
        let path = file.path();
        std::fs::write(path, lines).unwrap();
        let done = ResultsFile::open(Some(path), true, &Value::Null).unwrap().take_done();
        assert!(done.contains("a") && done.contains(" a ") && !done.contains("b") && !done.contains("d"));
        assert!(!done.contains("e") && done.contains("E"));
        assert!(done.contains("{ \"target\": {\"topic\": \"c\"} }"));
        assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{lines}\n"));
        assert!(ResultsFile::open(Some(path), false, &Value::Null).is_err());
        std::fs::write(path, "").unwrap();
        assert!(ResultsFile::open(Some(path), false, &Value::Null).is_ok());
    }

    #[test]
    fn only_the_same_notification_goes_on() {
        let file = NamedTempFile::new().unwrap();
        let path = file.path();
        let header =
            |body: &str| serde_json::json!({ "application_id": "shop", "notification": { "body": body } });
        let mut results = ResultsFile::open(Some(path), false, &header("Hello")).unwrap();
        let result = serde_json::json!({ "index": 0, "status": "delivered" });
        results.write("a", result.as_object().unwrap()).unwrap();
        results.flush().unwrap();
        let mut again = ResultsFile::open(Some(path), true, &header("Hello")).unwrap();
        assert!(again.take_done().contains("a"));
        let told = ResultsFile::open(Some(path), true, &header("Hallo")).err().unwrap().to_string();
        assert!(told.contains("another application or notification"), "{told}");
    }
}
