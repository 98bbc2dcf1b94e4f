//! Manages things, and does wrong there what others do in the codec: `do` says what, and in which export.

use pushlet_guests::*;
use pushlet_provider::Manager;
use pushlet_provider::management::{self, Action, Collection, Item, Operation, Request};

pub struct Managing;

impl Guest for Managing {}

impl Manager for Managing {
    fn collections() -> Vec<Collection> {
        vec![Collection {
            name: "things".into(),
            description: String::new(),
            actions: vec![Action::ReadAll],
            parameters: Vec::new(),
        }]
    }

    fn encode(_: &Context, application: &Application, _: &str, _: &Operation) -> Result<Request, Rejection> {
        let mut request = Request {
            endpoint: "push".into(),
            method: management::Method::Get,
            path: "/things".into(),
            headers: Vec::new(),
            body: Vec::new(),
            authenticate: true,
        };
        match task(application) {
            "encode" => spin(),
            "path" => request.path = "/../admin".into(),
            "header" => request.headers.push(("authorization".into(), "x".into())),
            "endpoint" => request.endpoint = "metadata".into(),
            "body" => request.body = vec![b'x'; 8 << 20],
            _ => {}
        }
        Ok(request)
    }

    fn decode(
        _: &Context,
        application: &Application,
        _: &str,
        _: &Operation,
        _: &management::Response,
    ) -> Result<Vec<Item>, Outcome> {
        let item = |properties: &str| Item { id: "one".into(), properties: properties.into() };
        match task(application) {
            "decode" => spin(),
            "trap" => std::process::abort(),
            "items" => Ok(vec![item("[")]),
            "many" => Ok(vec![item("{}"); 100_000]),
            _ => Ok(vec![item("{}")]),
        }
    }
}

export!(Managing);
pushlet_provider::export_manager!(Managing);
