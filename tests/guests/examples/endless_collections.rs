//! Computes for ever when it is asked what it manages.

use pushlet_guests::*;
use pushlet_provider::Manager;
use pushlet_provider::management::{Collection, Item, Operation, Request, Response};

pub struct EndlessCollections;

impl Guest for EndlessCollections {}

impl Manager for EndlessCollections {
    fn collections() -> Vec<Collection> {
        spin()
    }

    fn encode(_: &Context, _: &Application, _: &str, _: &Operation) -> Result<Request, Rejection> {
        spin()
    }

    fn decode(
        _: &Context,
        _: &Application,
        _: &str,
        _: &Operation,
        _: &Response,
    ) -> Result<Vec<Item>, Outcome> {
        spin()
    }
}

export!(EndlessCollections);
pushlet_provider::export_manager!(EndlessCollections);
