//! What a push service keeps for an application apart from its devices, such as broadcast channels: created,
//! read and deleted through the provider's interface `management`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::delivery::{Delivery, SendOptions, shown};
use crate::exchange::RawExchange;
use crate::failure::no_answer;
use crate::gateway::{Gateway, provider_of};
use crate::result::DeliveryResult;
use pushlet_model::contract::management::{Collection, Operation, Parameter, ParameterKind, Response};
use pushlet_model::contract::{ConnectionHint, Context, Disposition};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_model::text::{did_you_mean, nearest};
use pushlet_registry::RegisteredApplication;
use pushlet_sandbox::{CollectionItems, Instances, ProviderError, action};
use pushlet_transport as transport;

/// A request to create, read or delete items of a collection.
pub struct CollectionRequest {
    pub application_id: String,
    /// One of the provider's collections.
    pub collection: String,
    pub operation: ItemOperation,
    /// None: the configured deadline.
    pub deadline: Option<Duration>,
}

/// What to do. Items are named by the id that the service gave them.
pub enum ItemOperation {
    Create(Map<String, Value>),
    Read(String),
    ReadAll,
    Delete(String),
}

/// What the provider needs to know in every call for one operation.
#[derive(Clone)]
struct Call {
    application: Arc<RegisteredApplication>,
    collection: String,
}

impl Gateway {
    /// Creates, reads or deletes what the push service keeps for an application.
    pub async fn manage(
        &self,
        tenant: &TenantId,
        request: CollectionRequest,
    ) -> Result<CollectionItems, Error> {
        let application = self.load_application(tenant, &request.application_id).await?;
        let providers = self.providers(tenant, &application.provider).await?;
        let provider = provider_of(&application.provider, &providers)?;
        let name = provider.manifest().name.clone();
        let collection = provider.collections().iter().find(|known| known.name == request.collection);
        let collection = collection.ok_or_else(|| no_collection(&name, &request.collection))?;
        let operation = operation(collection, request.operation)?;
        let deadline = request.deadline.unwrap_or(self.0.delivery.deadline).min(self.0.delivery.deadline);
        let deadline = Instant::now() + deadline;
        let is_own = providers.is_own(&name);
        let payer = self.0.tenants.get(tenant)?.account.clone();
        let purpose = SendOptions::new(payer, false);
        let delivery = Delivery::new(self.clone(), provider.clone(), is_own, tenant, application, purpose);
        let done = delivery?.perform(collection, &operation, deadline).await;
        done.map_err(|result| match result.into_error(&name) {
            Err(error) => error,
            Ok(()) => Error::internal("a failure that is none"),
        })
    }
}

impl Delivery {
    /// Performs the operation, and repeats it once if the service calls the token expired.
    async fn perform(
        &self,
        collection: &Collection,
        operation: &Operation,
        deadline: Instant,
    ) -> Result<CollectionItems, Box<DeliveryResult>> {
        let (result, new_token) = match self.attempt_operation(collection, operation, deadline).await {
            Ok(items) => return Ok(items),
            Err(failed) => failed,
        };
        if !new_token {
            return Err(result);
        }
        self.attempt_operation(collection, operation, deadline).await.map_err(|(result, _)| result)
    }

    /// Sends one request and decodes its answer. The error says too whether a new token can be had.
    async fn attempt_operation(
        &self,
        collection: &Collection,
        operation: &Operation,
        deadline: Instant,
    ) -> Result<CollectionItems, (Box<DeliveryResult>, bool)> {
        let failed = |error: Error| (Box::new(DeliveryResult::Failed(error)), false);
        let mut entropy = vec![0; self.provider.manifest().entropy as usize];
        SystemRandom::new().fill(&mut entropy).map_err(|_| failed(Error::internal("no randomness")))?;
        let context = Context::at(SystemTime::now(), entropy);
        let call = Call { application: self.application.clone(), collection: collection.name.clone() };
        let encode = {
            let (call, operation) = (call.clone(), operation.clone());
            move |instances: &Instances| {
                instances.encode_operation(&context, &call.application.record, &call.collection, &operation)
            }
        };
        let encoded = self.instances.run(encode).await.map_err(|error| failed(error.into()))?;
        let (message, exchange) = encoded.map_err(|rejection| failed(rejection.into()))?;
        let (response, token) = match self.wire(&message, &exchange, deadline).await {
            Ok(RawExchange::Answered(response, token)) => (response, token),
            Ok(RawExchange::Unanswered(error, _)) => {
                return Err((Box::new(no_answer(&error, false)), false));
            }
            Ok(RawExchange::Withheld) => return Err(failed(Error::internal("a request was withheld"))),
            Err(result) => return Err((result, false)),
        };
        let transport::Response { status, headers, body, connection, .. } = response;
        let response =
            Response { status, headers: shown(&headers, self.provider.manifest()), body: body.into() };
        let context = Context::at(SystemTime::now(), Vec::new());
        let operation = operation.clone();
        let decode = move |instances: &Instances| {
            let record = &call.application.record;
            instances.decode_operation(&context, record, &call.collection, &operation, &response)
        };
        let decoded = self.instances.run(decode).await;
        let lost = |error: ProviderError| (Box::new(DeliveryResult::Lost(error.into())), false);
        let outcome = match decoded.map_err(lost)? {
            Ok(items) => return Ok(items),
            Err(outcome) => outcome,
        };
        if outcome.connection == ConnectionHint::Close {
            connection.close_after_use();
        }
        let new_token = self.record_refusal(std::slice::from_ref(&outcome), token);
        let result = match outcome.disposition {
            // In the interface `management` this says that there is no such item.
            Disposition::Unregistered(_) => {
                DeliveryResult::Failed(no_item(outcome.code.as_deref(), collection))
            }
            _ => DeliveryResult::Settled(outcome),
        };
        Err((Box::new(result), new_token))
    }
}

fn no_collection(provider: &str, name: &str) -> Error {
    Error::new(Kind::NotFound, "not_found", format!("applications for {provider} have no {name}"))
}

fn no_item(code: Option<&str>, collection: &Collection) -> Error {
    let error =
        Error::new(Kind::NotFound, "not_found", format!("there is no such item in {}", collection.name));
    match code {
        Some(code) => error.caused_by(code),
        None => error,
    }
}

/// Translates the caller's operation into the contract's.
fn operation(collection: &Collection, operation: ItemOperation) -> Result<Operation, Error> {
    let operation = match operation {
        ItemOperation::Create(properties) => Operation::Create(checked(collection, properties)?),
        ItemOperation::Read(id) => Operation::Read(id),
        ItemOperation::ReadAll => Operation::ReadAll,
        ItemOperation::Delete(id) => Operation::Delete(id),
    };
    if collection.actions.contains(&action(&operation)) {
        return Ok(operation);
    }
    Err(Error::new(Kind::NotFound, "not_found", format!("this cannot be done with {}", collection.name)))
}

/// Checks the properties of a new item against the collection's parameters. Returns them as JSON text.
fn checked(collection: &Collection, properties: Map<String, Value>) -> Result<String, Error> {
    let parameters = &collection.parameters;
    for (name, value) in &properties {
        let Some(parameter) = parameters.iter().find(|parameter| parameter.name == *name) else {
            let known = parameters.iter().map(|parameter| parameter.name.as_str());
            let hint = did_you_mean(nearest(name, known));
            let message = format!("{name} is not a field of {}{hint}", collection.name);
            return Err(Error::field("unknown_field", name, message));
        };
        fits(parameter, value)?;
    }
    match parameters.iter().find(|parameter| parameter.required && !properties.contains_key(&parameter.name))
    {
        Some(Parameter { name, .. }) => {
            Err(Error::field(format!("missing_{name}"), name, format!("{name} is required for this call")))
        }
        None => Ok(Value::Object(properties).to_string()),
    }
}

fn fits(parameter: &Parameter, value: &Value) -> Result<(), Error> {
    let (fits, kind) = match parameter.kind {
        ParameterKind::Text => (value.is_string(), "a text"),
        ParameterKind::Integer => (value.is_i64() || value.is_u64(), "an integer"),
        ParameterKind::Boolean => (value.is_boolean(), "true or false"),
    };
    let Parameter { name, choices, .. } = parameter;
    let wrong = |expected: &str| {
        Err(Error::field(format!("invalid_{name}"), name, format!("{name} must be {expected}")))
    };
    let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if !fits {
        return wrong(kind);
    }
    if choices.is_empty() || choices.contains(&plain) {
        Ok(())
    } else {
        wrong(&format!("one of {}", choices.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use pushlet_model::contract::management::Action;

    fn channels() -> Collection {
        let parameter = |name: &str, kind, choices: &[&str], required| Parameter {
            name: name.into(),
            kind,
            choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
            required,
            description: String::new(),
        };
        Collection {
            name: "channels".into(),
            description: String::new(),
            actions: vec![Action::Create, Action::ReadAll],
            parameters: vec![
                parameter("policy", ParameterKind::Integer, &["0", "1"], true),
                parameter("label", ParameterKind::Text, &[], false),
                parameter("open", ParameterKind::Boolean, &[], false),
            ],
        }
    }

    fn create(properties: Value) -> Result<Operation, String> {
        let properties = properties.as_object().unwrap().clone();
        operation(&channels(), ItemOperation::Create(properties))
            .map_err(|error| format!("{} {:?}", error.code, error.field))
    }

    #[test]
    fn properties_are_held_against_the_parameters() {
        let good = create(json!({"policy": 1, "label": "x", "open": true})).unwrap();
        assert_eq!(good, Operation::Create(r#"{"policy":1,"label":"x","open":true}"#.into()));
        for (properties, told) in [
            (json!({}), r#"missing_policy Some("policy")"#),
            (json!({"policy": 2}), r#"invalid_policy Some("policy")"#),
            (json!({"policy": "1"}), r#"invalid_policy Some("policy")"#),
            (json!({"policy": 1, "label": 7}), r#"invalid_label Some("label")"#),
            (json!({"policy": 1, "open": "yes"}), r#"invalid_open Some("open")"#),
            (json!({"policy": 1, "lable": "x"}), r#"unknown_field Some("lable")"#),
        ] {
            assert_eq!(create(properties).unwrap_err(), told);
        }
    }

    #[test]
    fn only_what_the_collection_offers_is_done() {
        assert_eq!(operation(&channels(), ItemOperation::ReadAll).unwrap(), Operation::ReadAll);
        let refused = operation(&channels(), ItemOperation::Delete("a".into())).unwrap_err();
        assert_eq!(refused.kind, Kind::NotFound);
    }
}
