//! `pushlet tenant`: the tenants of a server, for its operator.

use clap::{Arg, ArgAction, ArgMatches, Command};
use reqwest::Method;
use serde_json::Value;

use super::server::Server;
use super::{id, pairs, print};
use crate::config::Problem;

pub fn command() -> Command {
    let tenant = || id("id", "The tenant's id");
    let set = Arg::new("set")
        .long("set")
        .value_name("NAME=VALUE")
        .action(ArgAction::Append)
        .help("A field of the tenant, as the API names it");
    Command::new("tenant")
        .about("List, show, make, change and delete tenants, with the operator's key")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("All tenants"))
        .subcommand(Command::new("show").about("One tenant").arg(tenant()))
        .subcommand(
            Command::new("put")
                .about("Make a tenant, whose key is shown this once, or change one")
                .arg(tenant())
                .arg(set),
        )
        .subcommand(Command::new("usage").about("What a tenant uses of its limits").arg(tenant()))
        .subcommand(Command::new("delete").about("Forget a tenant and all that it has").arg(tenant()))
        .after_help("Example:\n  pushlet tenant put acme --api-key OPERATORS_KEY")
}

pub async fn run(server: &Server, matches: &ArgMatches) -> Result<(), Problem> {
    let (name, inner) = matches.subcommand().unwrap_or(("list", matches));
    let tenant = inner.try_get_one::<String>("id").ok().flatten().map_or("", String::as_str);
    let as_json = inner.get_flag("json");
    let shown = match name {
        "put" => {
            let fields = Value::Object(pairs(inner, "set")?);
            server.write(Method::PUT, &["tenants", tenant], &fields).await?
        }
        "show" => server.get(&["tenants", tenant]).await?,
        "usage" => server.get(&["tenants", tenant, "usage"]).await?,
        "delete" => return server.delete(&["tenants", tenant]).await,
        _ => {
            let all = server.get(&["tenants"]).await?;
            if as_json {
                return print::json(&all);
            }
            let items = all["tenants"].as_array().cloned().unwrap_or_default();
            return print::table(&items, &[("ID", "/id"), ("SUSPENDED", "/suspended")]);
        }
    };
    if as_json { print::json(&shown) } else { print::object(&shown) }
}
