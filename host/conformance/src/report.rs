//! What a check found: for people, as JSON, and as JUnit.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_model::text::Escaped;

/// Findings of one rule that are reported; the rest is counted.
const MOST_FINDINGS: usize = 5;
/// Characters of a message.
const LONGEST_MESSAGE: usize = 500;

/// Whether a finding makes the check fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It breaks the contract, or callers would be told what is not so.
    Error,
    /// It works, and could serve callers better.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// The function that was called, or `load`.
    pub call: &'static str,
    /// The input: which example, which answer.
    pub place: String,
    pub message: String,
    /// The end of what the component printed before.
    pub printed: Option<String>,
}

/// What came of one rule.
#[derive(Debug, Clone)]
pub struct RuleReport {
    pub rule: &'static str,
    /// The rule in a sentence.
    pub about: &'static str,
    /// How many inputs were tried.
    pub cases: usize,
    pub findings: Vec<Finding>,
    /// How many more findings there were.
    pub omitted: usize,
}

/// A rule while it is checked, and how many calls failed.
pub(crate) struct Rule(RuleReport, usize);

/// Failed calls after which a rule is given up: each may take its whole time.
const MOST_FAILURES: usize = 50;

/// What a component costs on this machine.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Compiling it, and asking for its manifest.
    pub load: Duration,
    /// A first call with one target, with a new instance.
    pub encode_fresh: Duration,
    /// A call with one target.
    pub encode: Duration,
    /// A call with many targets, by target.
    pub encode_each: Duration,
    /// A call with one answer.
    pub decode: Duration,
    /// The longest of all calls, and its input.
    pub longest: (Duration, String),
    /// Bytes of linear memory of a used instance.
    pub memory: usize,
}

/// What came of all rules.
#[derive(Debug, Clone)]
pub struct Report {
    /// The provider's name and version, if it told them.
    pub provider: Option<(String, String)>,
    /// Bytes of the component.
    pub size: usize,
    pub digest: String,
    pub rules: Vec<RuleReport>,
    pub figures: Option<Figures>,
}

impl Rule {
    pub fn new(rule: &'static str, about: &'static str) -> Self {
        Self(RuleReport { rule, about, cases: 0, findings: Vec::new(), omitted: 0 }, 0)
    }

    pub fn with_cases(mut self, cases: usize) -> Self {
        self.0.cases = cases;
        self
    }

    pub fn done(self) -> RuleReport {
        self.0
    }

    /// Counts an input.
    pub fn case(&mut self) {
        self.0.cases += 1;
    }

    /// Returns true if so many calls failed that more of them tell nothing.
    pub fn is_full(&self) -> bool {
        self.1 >= MOST_FAILURES
    }

    pub fn error(&mut self, call: &'static str, place: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, call, place.into(), message.into(), None);
    }

    /// Adds a call that failed.
    pub fn error_of(
        &mut self,
        call: &'static str,
        place: impl Into<String>,
        message: impl Into<String>,
        printed: Option<String>,
    ) {
        self.1 += 1;
        self.add(Severity::Error, call, place.into(), message.into(), printed);
    }

    pub fn warning(&mut self, call: &'static str, place: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Warning, call, place.into(), message.into(), None);
    }

    fn add(
        &mut self,
        severity: Severity,
        call: &'static str,
        place: String,
        message: String,
        printed: Option<String>,
    ) {
        let message = message.chars().take(LONGEST_MESSAGE).collect();
        let same = |finding: &&Finding| finding.message == message && finding.call == call;
        let known = self.0.findings.iter().filter(same).count();
        // One input of a kind shows it; others of the same kind would push other findings out.
        if known >= 2 || self.0.findings.len() >= MOST_FINDINGS {
            self.0.omitted += 1;
            // An error must not go unseen behind warnings.
            let warning = self.0.findings.iter().position(|finding| finding.severity == Severity::Warning);
            match (severity, known, warning) {
                (Severity::Error, 0, Some(warning)) => _ = self.0.findings.remove(warning),
                _ => return,
            }
        }
        self.0.findings.push(Finding { severity, call, place, message, printed });
    }
}

impl From<Rule> for RuleReport {
    fn from(rule: Rule) -> Self {
        rule.0
    }
}

impl RuleReport {
    /// Returns true if nothing in it makes the check fail.
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Warning)
    }

    fn verdict(&self) -> &'static str {
        match (self.findings.is_empty(), self.passed()) {
            (true, _) => "ok",
            (false, true) => "warn",
            (false, false) => "FAIL",
        }
    }
}

impl Report {
    pub(crate) fn of(component: &[u8]) -> Self {
        let digest = pushlet_sandbox::digest(component);
        Self { provider: None, size: component.len(), digest, rules: Vec::new(), figures: None }
    }

    pub(crate) fn name_of(&mut self, manifest: &ProviderManifest) {
        self.provider = Some((manifest.name.clone(), manifest.version.clone()));
    }

    pub(crate) fn add(&mut self, rule: impl Into<RuleReport>) {
        self.rules.push(rule.into());
    }

    /// Returns true if no rule is broken.
    pub fn passed(&self) -> bool {
        self.rules.iter().all(RuleReport::passed)
    }

    /// Returns the findings that make the check fail, each with the name of its rule.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, &Finding)> {
        self.rules.iter().flat_map(|rule| {
            let errors = rule.findings.iter().filter(|finding| finding.severity == Severity::Error);
            errors.map(|finding| (rule.rule, finding))
        })
    }

    fn title(&self) -> String {
        let name = self.provider.as_ref().map(|(name, version)| format!("{name} {version}"));
        name.unwrap_or_else(|| "the component".to_owned())
    }

    /// Returns the table for people. What comes from the component is escaped.
    pub fn table(&self) -> String {
        let mut text = format!("{}, {}, sha256 {}\n\n", Escaped(self.title()), size(self.size), self.digest);
        let mut lines = || -> std::fmt::Result {
            for rule in &self.rules {
                let cases = format!("{} {}", rule.cases, if rule.cases == 1 { "case" } else { "cases" });
                writeln!(text, "{:<5} {:<14} {:>11}  {}", rule.verdict(), rule.rule, cases, rule.about)?;
                for Finding { severity, call, place, message, printed } in &rule.findings {
                    let kind = if *severity == Severity::Error { "error" } else { "warning" };
                    writeln!(text, "        {kind}: {call}, {}: {}", Escaped(place), Escaped(message))?;
                    if let Some(printed) = printed {
                        writeln!(text, "          before that it printed: {}", Escaped(printed))?;
                    }
                }
                if rule.omitted > 0 {
                    writeln!(text, "        and {} more like these", rule.omitted)?;
                }
            }
            Ok(())
        };
        // Writing to a text cannot fail.
        let _ = lines();
        if let Some(figures) = &self.figures {
            text.push_str(&figures.text());
        }
        let verdict = match (self.passed(), self.errors().count()) {
            (true, _) => "It keeps the contract.".to_owned(),
            (false, 1) => "It breaks the contract: 1 error.".to_owned(),
            (false, count) => format!("It breaks the contract: {count} errors."),
        };
        format!("{text}\n{verdict}\n")
    }

    /// Returns the report for programs.
    pub fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
                "call": finding.call,
                "place": finding.place,
                "message": finding.message,
                "printed": finding.printed,
            })
        };
        let rules = self.rules.iter().map(|rule| {
            json!({
                "rule": rule.rule,
                "about": rule.about,
                "passed": rule.passed(),
                "cases": rule.cases,
                "findings": rule.findings.iter().map(finding).collect::<Vec<_>>(),
                "omitted": rule.omitted,
            })
        });
        json!({
            "provider": self.provider.as_ref().map(|(name, _)| name),
            "version": self.provider.as_ref().map(|(_, version)| version),
            "size": self.size,
            "digest": self.digest,
            "passed": self.passed(),
            "rules": rules.collect::<Vec<_>>(),
            "figures": self.figures.as_ref().map(Figures::json),
        })
    }

    /// Returns the report as JUnit's XML: a test case for each rule.
    pub fn junit(&self) -> String {
        let failed = self.rules.iter().filter(|rule| !rule.passed()).count();
        let name = escaped(&self.title());
        let (total, mut cases) = (self.rules.len(), String::new());
        for rule in &self.rules {
            let failures = rule.findings.iter().map(|finding| {
                let kind = if finding.severity == Severity::Error { "failure" } else { "system-out" };
                let message = format!("{}, {}: {}", finding.call, finding.place, finding.message);
                match kind {
                    "failure" => format!("\n      <failure message=\"{}\"/>", escaped(&message)),
                    _ => format!("\n      <system-out>{}</system-out>", escaped(&message)),
                }
            });
            let failures: String = failures.collect();
            let end = if failures.is_empty() { "" } else { "\n    " };
            let about = escaped(&format!("{}: {}", rule.rule, rule.about));
            cases +=
                &format!("    <testcase classname=\"{name}\" name=\"{about}\">{failures}{end}</testcase>\n");
        }
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{name}\" tests=\"{total}\" \
             failures=\"{failed}\">\n{cases}  </testsuite>\n</testsuites>\n"
        )
    }
}

impl Figures {
    fn text(&self) -> String {
        let Self { load, encode_fresh, encode, encode_each, decode, longest, memory } = self;
        let time = |time: &Duration| (!time.is_zero()).then(|| format!("{time:.1?}"));
        let longest = time(&longest.0).map(|time| format!("{time} ({})", Escaped(&longest.1)));
        let lines = [
            ("compile and describe", time(load)),
            ("encode, new instance", time(encode_fresh)),
            ("encode, one target", time(encode)),
            ("encode, each of many targets", time(encode_each)),
            ("decode, one answer", time(decode)),
            ("longest call", longest),
            ("memory of an instance", (*memory > 0).then(|| size(*memory))),
        ];
        // A component of byte streams has no calls of a codec.
        let measured = lines.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        measured.fold("\n".to_owned(), |text, (name, value)| text + &format!("{name:<29} {value}\n"))
    }

    fn json(&self) -> Value {
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        json!({
            "load_us": microseconds(self.load),
            "encode_fresh_us": microseconds(self.encode_fresh),
            "encode_us": microseconds(self.encode),
            "encode_each_us": microseconds(self.encode_each),
            "decode_us": microseconds(self.decode),
            "longest_us": microseconds(self.longest.0),
            "longest_call": self.longest.1,
            "memory_bytes": self.memory,
        })
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..0x400 => format!("{bytes} bytes"),
        0x400..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// Escapes a text for XML, which has no place for control characters at all.
fn escaped(text: &str) -> String {
    let text = Escaped(text).to_string();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
