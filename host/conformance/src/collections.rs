//! The rules about `management`: each operation on what a service keeps is encoded or refused, and any answer is read.

use pushlet_model::contract::management::{Action, Collection, Operation, ParameterKind, Response};
use pushlet_sandbox::Instances;
use serde_json::{Map, Value, json};

use crate::inputs;
use crate::report::{Rule, RuleReport};
use crate::sample::{Sample, context};
use crate::subject::{Failure, Subject};

/// Calls every operation with ids and answers of every kind.
pub fn any_operation(subject: &Subject, samples: &[Sample]) -> RuleReport {
    let mut rule = Rule::new("collections", "what the service keeps is created, read and deleted");
    let Some(sample) = samples.first() else { return rule.done() };
    for collection in subject.collections() {
        for operation in operations(collection) {
            encode(subject, sample, collection, &operation, &mut rule);
        }
        for action in &collection.actions {
            decode(subject, sample, collection, &of_action(action, collection, "id"), &mut rule);
        }
    }
    rule.done()
}

fn operations(collection: &Collection) -> Vec<Operation> {
    let each = |action: &Action| match action {
        Action::Create | Action::ReadAll => vec![of_action(action, collection, "")],
        Action::Read | Action::Delete => {
            inputs::texts(1024).iter().map(|(_, id)| of_action(action, collection, id)).collect()
        }
    };
    collection.actions.iter().flat_map(each).collect()
}

fn of_action(action: &Action, collection: &Collection, id: &str) -> Operation {
    match action {
        Action::Create => Operation::Create(Value::Object(item(collection)).to_string()),
        Action::Read => Operation::Read(id.to_owned()),
        Action::ReadAll => Operation::ReadAll,
        Action::Delete => Operation::Delete(id.to_owned()),
    }
}

fn item(collection: &Collection) -> Map<String, Value> {
    let value = |kind: ParameterKind, choice: Option<&String>| match (kind, choice) {
        (ParameterKind::Text, choice) => json!(choice.map_or("text", String::as_str)),
        (ParameterKind::Integer, choice) => json!(choice.and_then(|choice| choice.parse().ok()).unwrap_or(1)),
        (ParameterKind::Boolean, _) => json!(true),
    };
    let parameters = collection.parameters.iter();
    parameters
        .map(|parameter| (parameter.name.clone(), value(parameter.kind, parameter.choices.first())))
        .collect()
}

fn encode(
    subject: &Subject,
    sample: &Sample,
    collection: &Collection,
    operation: &Operation,
    rule: &mut Rule,
) {
    rule.case();
    let place: String = format!("{}: {operation:?}", collection.name).chars().take(80).collect();
    let context = context(subject.manifest(), 1);
    let call = |instances: &Instances| {
        instances.encode_operation(&context, &sample.application, &collection.name, operation)
    };
    match subject.call(&format!("management.encode, {place}"), call) {
        Err(Failure { message, printed, .. }) => rule.error_of("management.encode", place, message, printed),
        Ok(Err(rejection)) if matches!(operation, Operation::Create(_) | Operation::ReadAll) => {
            rule.error("management.encode", place, format!("it is refused: {}", rejection.message));
        }
        Ok(_) => {}
    }
}

fn decode(
    subject: &Subject,
    sample: &Sample,
    collection: &Collection,
    operation: &Operation,
    rule: &mut Rule,
) {
    let context = context(subject.manifest(), 1);
    for status in [0, 200, 201, 204, 301, 400, 401, 403, 404, 410, 429, 500, 503] {
        for (name, body) in inputs::bodies() {
            rule.case();
            let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
            let response = Response { status, headers, body };
            let place = format!("{}, status {status}, body: {name}", collection.name);
            let call = |instances: &Instances| {
                instances.decode_operation(
                    &context,
                    &sample.application,
                    &collection.name,
                    operation,
                    &response,
                )
            };
            match subject.call(&format!("management.decode, {place}"), call) {
                Err(Failure { message, printed, .. }) => {
                    rule.error_of("management.decode", place, message, printed);
                }
                Ok(Ok(_)) if !(200..300).contains(&status) => {
                    rule.error(
                        "management.decode",
                        place,
                        "it is reported as done, and the service did not say so",
                    );
                }
                Ok(_) => {}
            }
        }
    }
}
