//! `pushlet tenant`: the tenants of a server, for its operator.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use reqwest::Method;
use serde_json::{Value, json};

use super::server::ApiClient;
use super::terminal::{self, confirm, deletion, id, pairs};
use pushlet_settings::Problem;

pub fn command() -> Command {
    let tenant = || id("id", "The tenant's id");
    let set = Arg::new("set")
        .long("set")
        .value_name("NAME=VALUE")
        .action(ArgAction::Append)
        .help("A field of the tenant, as the API names it");
    Command::new("tenant")
        .about("List, show, create, change and delete tenants, with the operator's key")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("All tenants"))
        .subcommand(Command::new("show").about("One tenant").arg(tenant()))
        .subcommand(
            Command::new("put")
                .visible_alias("create")
                .about("Create a tenant, whose key is shown only now, or change one")
                .arg(tenant())
                .arg(set),
        )
        .subcommand(
            Command::new("add-key")
                .about("Create another key, which is shown only now")
                .arg(tenant())
                .arg(seconds("expires-in", "The new key expires after this many seconds"))
                .arg(seconds("others-expire-in", "All older keys expire after this many seconds")),
        )
        .subcommand(Command::new("keys").about("The keys of a tenant, without their secrets").arg(tenant()))
        .subcommand(
            Command::new("remove-key")
                .about("Revoke a key at once")
                .arg(tenant())
                .arg(id("key", "The key's id, as `keys` lists it")),
        )
        .subcommand(Command::new("usage").about("What a tenant uses of its limits").arg(tenant()))
        .subcommand(deletion("Delete a tenant and everything that it has").arg(tenant()))
        .after_help("Examples:\n  pushlet tenant put acme --api-key OPERATORS_KEY\n  pushlet tenant put acme --set suspended=true\n  pushlet tenant put acme --set 'limits={\"pushes_per_second\": 100}'")
}

pub async fn run(server: &ApiClient, matches: &ArgMatches) -> Result<(), Problem> {
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
        "delete" => {
            confirm(inner, &format!("the tenant {tenant} and all that it has"))?;
            return server.delete(&["tenants", tenant]).await;
        }
        "add-key" => {
            let wanted = [("expires_in", "expires-in"), ("others_expire_in", "others-expire-in")];
            let given =
                wanted.map(|(field, flag)| (field.to_owned(), inner.get_one::<u64>(flag).copied().into()));
            let fields = Value::Object(given.into_iter().collect());
            server.write(Method::POST, &["tenants", tenant, "keys"], &fields).await?
        }
        "remove-key" => {
            let key = inner.get_one::<String>("key").map_or("", String::as_str);
            return server.delete(&["tenants", tenant, "keys", key]).await;
        }
        "keys" => {
            let all = server.get(&["tenants", tenant, "keys"]).await?;
            return list(
                &all,
                "keys",
                &[("ID", "/id"), ("CREATED", "/created"), ("EXPIRES", "/expires")],
                as_json,
            );
        }
        _ => {
            let all = json!({ "tenants": server.all("tenants").await?, "next": null });
            return list(&all, "tenants", &[("ID", "/id"), ("SUSPENDED", "/suspended")], as_json);
        }
    };
    if as_json { terminal::print_json(&shown) } else { terminal::print_object(&shown) }
}

fn list(all: &Value, name: &str, columns: &[(&str, &str)], as_json: bool) -> Result<(), Problem> {
    if as_json {
        return terminal::print_json(all);
    }
    terminal::print_table(&all[name].as_array().cloned().unwrap_or_default(), columns)
}

fn seconds(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("SECONDS").value_parser(value_parser!(u64)).help(help)
}
