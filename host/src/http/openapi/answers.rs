//! The answers that routes have in common, for their documents: which errors there are, and when.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder, schema::ObjectBuilder, schema::Type,
};

/// Each status of an error, and what it says.
const ERRORS: &[(u16, &str)] = &[
    (400, "The request is wrong as it stands; `field` names the part of it that is."),
    (401, "`access_denied`: no credentials, or wrong ones."),
    (
        403,
        "`tenant_suspended`, `tenant_required`: the caller may not do this. `cross_site_request`: a browser asks for a page of another site. Or the push service refuses the application's credential, and its operator must act.",
    ),
    (404, "There is no such thing, or none of this tenant's."),
    (
        409,
        "Another request is under way that this one conflicts with, or the name is taken. `hosts_changed`: `hosts` would get secrets, and nobody confirmed that.",
    ),
    (410, "`unregistered`: the device token is dead, drop it."),
    (413, "The request or the message is too large."),
    (415, "`unsupported_media_type`: the content type is none of those listed."),
    (422, "`idempotency_key_reused`: this `Idempotency-Key` came with another request before."),
    (429, "Too fast, or more than is allowed; `Retry-After` says how many seconds to wait."),
    (500, "`unexpected_error`: a defect of this server."),
    (502, "The push service could not be reached, or its provider component is broken."),
    (503, "A limit of this server is reached, it is stopping, or the push service is in trouble."),
    (504, "No answer in time. `delivery_unknown`: it was sent, and nobody knows whether it arrived."),
];

macro_rules! refusals {
    ($($(#[$documentation:meta])* $name:ident: $($status:literal)+;)+) => {$(
        $(#[$documentation])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$($status),+].into_iter().map(refusal).collect()
            }
        }
    )+};
}

refusals! {
    /// Of every route.
    Always: 500 503;
    /// Of every route behind the login: what it and the tenant's limits say.
    Guarded: 401 403 429 500 503;
    /// Of routes that the operator alone may use.
    Operators: 403;
    /// Of routes whose path or query says something.
    Addressed: 400;
    /// Of routes about one thing.
    Missing: 400 404;
    /// Of routes that read a body.
    Read: 400 413 415;
    /// Of sends: an `Idempotency-Key`'s.
    Once: 409 422;
    /// Of what changes something that only one may change at a time.
    Busy: 409;
    /// Where there may be too many.
    Bounded: 429;
    /// Where a provider's component is called.
    Component: 429 502 504;
    /// Where a push service's own answer becomes this server's.
    Service: 403 413 429 502 504;
    /// Where one device is sent to.
    Device: 410;
}

fn refusal(status: u16) -> (String, RefOr<Response>) {
    let when = ERRORS.iter().find(|(known, _)| *known == status).map_or("", |(_, when)| when);
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
    let response = ResponseBuilder::new().description(when).content("application/json", body);
    let header = |what: &str, kind| {
        let schema = ObjectBuilder::new().schema_type(kind).build();
        HeaderBuilder::new().schema(Some(schema)).description(Some(what)).build()
    };
    let response = match status {
        401 => response.header("WWW-Authenticate", header("How to log in.", Type::String)),
        429 | 503 => response.header("Retry-After", header("Seconds to wait.", Type::Integer)),
        _ => response,
    };
    (status.to_string(), response.build().into())
}
