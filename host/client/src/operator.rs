//! For the operator: `pushlet tenant`, `pushlet node` and `pushlet backup`: the tenants of a server, the servers of a fleet,
//! and a copy of what they keep.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

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
                .arg(Arg::new("label").long("label").value_name("TEXT").help("What the key is called in lists"))
                .arg(
                    Arg::new("scope")
                        .long("scope")
                        .value_name("NAME")
                        .action(ArgAction::Append)
                        .value_parser(["send", "manage", "read"])
                        .help("What the key may do; everything if none is given"),
                )
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
        .subcommand(
            Command::new("audit")
                .about("Who changed what: the changes of a tenant, or all that the operator made")
                .arg(tenant().required(false)),
        )
        .subcommand(Command::new("usage")
                .about("What a tenant uses of its limits, or what it sent by day or month")
                .arg(tenant())
                .arg(
                    Arg::new("by")
                        .long("by")
                        .value_name("PERIOD")
                        .value_parser(["day", "month"])
                        .help("Targets of each day of the last two months, or each month of two years"),
                ))
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
        "usage" if inner.contains_id("by") => {
            let by = inner.get_one::<String>("by").map_or("month", String::as_str);
            return history(&server.get(&["tenants", tenant, "usage", by]).await?, as_json);
        }
        "usage" => server.get(&["tenants", tenant, "usage"]).await?,
        "delete" => {
            confirm(inner, &format!("the tenant {tenant} and all that it has"))?;
            return server.delete(&["tenants", tenant]).await;
        }
        "add-key" => {
            let wanted = [("expires_in", "expires-in"), ("others_expire_in", "others-expire-in")];
            let given =
                wanted.map(|(field, flag)| (field.to_owned(), inner.get_one::<u64>(flag).copied().into()));
            let mut fields = Value::Object(given.into_iter().collect());
            if let Some(label) = inner.get_one::<String>("label") {
                fields["label"] = label.as_str().into();
            }
            if let Some(scopes) = inner.get_many::<String>("scope") {
                fields["scopes"] = scopes.cloned().collect();
            }
            server.write(Method::POST, &["tenants", tenant, "keys"], &fields).await?
        }
        "audit" => {
            let query = (!tenant.is_empty()).then_some(("tenant", tenant));
            let all = json!({ "audit": server.all_of("audit", query).await?, "next": null });
            let columns = [
                ("TIME", "/at"),
                ("ACTOR", "/actor"),
                ("KEY", "/key"),
                ("ADDRESS", "/address"),
                ("ACTION", "/action"),
                ("SUBJECT", "/subject"),
            ];
            return list(&all, "audit", &columns, as_json);
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
                &[
                    ("ID", "/id"),
                    ("LABEL", "/label"),
                    ("SCOPES", "/scopes"),
                    ("CREATED", "/created"),
                    ("LAST USED", "/last_used"),
                    ("EXPIRES", "/expires"),
                ],
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

/// Prints what was sent, a line for each application and period.
fn history(usage: &Value, as_json: bool) -> Result<(), Problem> {
    if as_json {
        return terminal::print_json(usage);
    }
    let mut rows = Vec::new();
    for period in usage["periods"].as_array().into_iter().flatten() {
        for one in period["applications"].as_array().into_iter().flatten() {
            let outcomes = one["outcomes"].as_object().into_iter().flatten();
            let all: u64 = outcomes.filter_map(|(_, count)| count.as_u64()).sum();
            let delivered = &one["outcomes"]["delivered"];
            rows.push(json!({
                "period": period["period"], "application": one["application"], "provider": one["provider"],
                "targets": all, "delivered": delivered.as_u64().unwrap_or(0),
            }));
        }
    }
    let columns = [
        ("PERIOD", "/period"),
        ("APPLICATION", "/application"),
        ("PROVIDER", "/provider"),
        ("TARGETS", "/targets"),
        ("DELIVERED", "/delivered"),
    ];
    terminal::print_table(&rows, &columns)
}

pub fn node_command() -> Command {
    Command::new("node")
        .about("List the servers of a fleet, with the operator's key")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("All servers that live"))
        .after_help("Example:\n  pushlet node list --api-key OPERATORS_KEY")
}

pub async fn list_nodes(server: &ApiClient, matches: &ArgMatches) -> Result<(), Problem> {
    let (_, inner) = matches.subcommand().unwrap_or(("list", matches));
    let columns = [
        ("ID", "/id"),
        ("NAME", "/name"),
        ("VERSION", "/version"),
        ("SINCE", "/since"),
        ("IN FLIGHT", "/in_flight"),
    ];
    list(&server.get(&["nodes"]).await?, "nodes", &columns, inner.get_flag("json"))
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

const BACKUP_EXAMPLE: &str = "\
The file takes the place of registry.redb in data_dir. Secrets in it are sealed: it is worth nothing without
the registry's key, of which you need a copy elsewhere.

Example:
  pushlet backup /backup/pushlet-$(date +%F).redb --api-key OPERATORS_KEY";

pub fn backup_command() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("The copy; an existing one is replaced once the new one is complete");
    Command::new("backup")
        .about("Copy what a server keeps, while it runs, with the operator's key")
        .arg(file)
        .after_help(BACKUP_EXAMPLE)
}

/// Copies the registry into a file.
pub async fn back_up(server: &ApiClient, matches: &ArgMatches) -> Result<(), Problem> {
    let path = matches.get_one::<PathBuf>("file").map_or(Path::new(""), PathBuf::as_path);
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let size = match receive(server, &part).await {
        Ok(size) => size,
        Err(problem) => {
            let _ = std::fs::remove_file(&part);
            return Err(problem);
        }
    };
    std::fs::rename(&part, path).map_err(|error| wrong(path, &error))?;
    if matches.get_flag("json") {
        return terminal::print_json(&json!({ "file": path, "bytes": size }));
    }
    terminal::print_line(&format!("{}: {size} bytes", path.display()))
}

/// Writes the copy to a new file that only this user can read. Returns its size in bytes.
async fn receive(server: &ApiClient, path: &Path) -> Result<u64, Problem> {
    let mut response = server.answer(server.request(Method::GET, &["backup"])).await?;
    let mut file = create(path).map_err(|error| wrong(path, &error))?;
    let mut size = 0;
    // A response that ends before its announced length is an error.
    while let Some(bytes) = response.chunk().await.map_err(|error| server.unreachable(&error))? {
        file.write_all(&bytes).map_err(|error| wrong(path, &error))?;
        size += bytes.len() as u64;
    }
    file.sync_all().map_err(|error| wrong(path, &error))?;
    Ok(size)
}

fn create(path: &Path) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn wrong(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(format_args!("{}: {error}", path.display()))
}
