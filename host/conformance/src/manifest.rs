//! The rules about a manifest, beyond those without which a component is not loaded at all.

use pushlet_model::contract::manifest::{Field, ProviderManifest};

use crate::report::{Rule, RuleReport};
use crate::subject::Subject;

/// Checks that the manifest is whole: what people read is there, and every application has an endpoint.
pub fn sound(subject: &Subject) -> RuleReport {
    let manifest = subject.manifest();
    let mut rule = Rule::new("manifest", "the manifest is whole and consistent").with_cases(1);
    for (name, text) in
        [("title", &manifest.title), ("version", &manifest.version), ("description", &manifest.description)]
    {
        if text.trim().is_empty() {
            rule.error("describe", name, "it is empty, and people read it");
        }
    }
    let fields = [
        ("settings", &manifest.settings),
        ("options", &manifest.options),
        ("target-options", &manifest.target_options),
    ];
    fields.iter().for_each(|(kind, fields)| described(kind, fields, &mut rule));
    for credential in &manifest.credentials {
        for secret in credential
            .secrets
            .iter()
            .chain(&credential.companions)
            .filter(|secret| secret.description.trim().is_empty())
        {
            let place = format!("credentials, {}, secret {}", credential.name, secret.name);
            rule.error("describe", place, "it has no description, and people must know what to upload");
        }
        let shown = |name: &String| name == &credential.name;
        if !manifest.examples.iter().any(|example| example.credential.as_ref().is_some_and(shown)) {
            let place = format!("credentials, {}", credential.name);
            rule.warning("describe", place, "no example uses it, so it is not tried");
        }
    }
    names(manifest, &mut rule);
    rule.done()
}

fn described(kind: &str, fields: &[Field], rule: &mut Rule) {
    for field in fields.iter().filter(|field| field.description.trim().is_empty()) {
        rule.error("describe", format!("{kind}, {}", field.name), "it has no description");
    }
}

/// Reports names that callers could not tell apart from the host's own fields.
fn names(manifest: &ProviderManifest, rule: &mut Rule) {
    const TAKEN: [&str; 6] =
        ["provider", "environment", "settings", "credential", "credentials", "application_id"];
    let secrets = manifest.credentials.iter().flat_map(|one| one.secrets.iter().chain(&one.companions));
    let secrets = secrets.map(|secret| &secret.name);
    for name in manifest.settings.iter().map(|field| &field.name).chain(secrets) {
        if TAKEN.contains(&name.as_str()) {
            let message = "it is a field of a registration already, and would never be given";
            rule.error("describe", name.as_str(), message);
        }
    }
    for option in &manifest.options {
        if pushlet_model::notification::COMMON.contains(&option.name.as_str()) && option.name != "alert" {
            let message = "every notification has a field of this name, so that the option is never given";
            rule.error("describe", format!("options, {}", option.name), message);
        }
    }
}

/// Checks that a component describes itself the same way at another time, with other random numbers.
pub fn constant(subject: &Subject) -> RuleReport {
    let mut rule = Rule::new("constant", "describe returns the same each time").with_cases(1);
    match subject.describe_again() {
        Ok(again) if again == *subject.manifest() => {}
        Ok(_) => rule.error("describe", "another time", "it describes itself differently"),
        Err(failure) => rule.error_of("describe", "another time", failure.message, failure.printed),
    }
    rule.done()
}
