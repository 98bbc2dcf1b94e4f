//! Files that an operator keeps: applications that files describe, those that are exported and imported, and copies of
//! the registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pushlet_simulator::Simulator;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{DEVICE, Directory, expect, expect_error, http_client, pointing_at, wait_until};
use crate::program::Program;
use crate::upload::PROGRAM;

const OPERATOR: &str = "the operator's key";
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A simulator, and a directory for the files of servers.
struct Files {
    simulator: Simulator,
    directory: Directory,
}

impl Files {
    async fn new() -> Self {
        let directory = Directory::new();
        let options = pushlet_simulator::Options::ephemeral(directory.path());
        let simulator = Simulator::start(options).await.unwrap();
        fs::create_dir(directory.path().join("apps.d")).unwrap();
        Self { simulator, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("apps.d").join(name), text).unwrap();
    }

    /// The file of an application with the simulator's certificate.
    fn write_application(&self, name: &str, settings: &str) {
        let p12 = self.simulator.credentials().apns_p12.canonicalize().unwrap();
        self.write(
            name,
            &format!(
                "provider = \"apns\"\n{settings}\n[credentials]\napns_p12 = {:?}\n",
                p12.display().to_string()
            ),
        );
    }

    /// A server that keeps what it has in this directory.
    async fn serve(&self, data: &str, settings: &str) -> Program {
        let data = self.path(data).display().to_string();
        let settings = format!(
            "data_dir = {data:?}\nregistry.key = {KEY:?}\nadmin.key = {OPERATOR:?}\nauth.username = \"me\"\nauth.password = \"secret\"\n{settings}"
        );
        let toml = pointing_at(&self.simulator, &settings).replacen("listen = \"127.0.0.1:0\"\n", "", 1);
        Program::serve(&toml).await
    }

    fn applications(&self) -> String {
        format!("registry.applications = {:?}\n", self.path("apps.d").display().to_string())
    }
}

fn request(program: &Program, method: Method, path: &str) -> reqwest::RequestBuilder {
    http_client().request(method, program.url(path)).basic_auth("me", Some("secret"))
}

fn as_operator(program: &Program, method: Method, path: &str) -> reqwest::RequestBuilder {
    http_client().request(method, program.url(path)).bearer_auth(OPERATOR)
}

async fn ids(program: &Program) -> Vec<String> {
    let mut all = expect(request(program, Method::GET, "/v1/applications"), 200).await;
    let all: Vec<Value> = serde_json::from_value(all["applications"].take()).unwrap();
    all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

async fn send(program: &Program, application: &str) -> Value {
    let body = json!({"application_id": application, "notification": {"body": "x"}, "target": DEVICE});
    expect(request(program, Method::POST, "/v1/notifications").json(&body), 200).await["results"][0]["status"]
        .take()
}

/// Runs the program against a server.
async fn run(program: &Program, line: &[&str], access: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(line).args(access).args(["--server", &program.base]).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

const TENANT: [&str; 4] = ["--username", "me", "--password", "secret"];
const AS_OPERATOR: [&str; 2] = ["--api-key", OPERATOR];

#[tokio::test(flavor = "multi_thread")]
async fn applications_come_from_files_and_follow_them() {
    let files = Files::new().await;
    files.write_application("shop.toml", "");
    files.write("broken.toml", "provider = \"gcm\"\n[credentials]\ngcm_api_key = \"missing.key\"\n");
    files.write("foreign.toml", "tenant = \"acme\"\nprovider = \"gcm\"\n");
    let program = files.serve("data", &files.applications()).await;
    // What is wrong keeps nothing else away, and the log names it.
    assert_eq!(ids(&program).await, ["shop"]);
    assert_eq!(send(&program, "shop").await, "delivered");
    for (file, why) in [("broken.toml", "missing.key"), ("foreign.toml", "tenant_not_found")] {
        let log = program.log();
        assert!(log.lines().any(|line| line.contains(file) || line.contains(why)), "{file}: {log}");
    }

    // Read-only over the API.
    let shop = expect(request(&program, Method::GET, "/v1/applications/shop"), 200).await;
    assert_eq!(shop["from_file"], true, "{shop}");
    let change = request(&program, Method::PUT, "/v1/applications/shop")
        .json(&json!({"provider": "gcm", "gcm_api_key": "k"}));
    expect_error(change, 409, "application_from_file").await;
    expect_error(request(&program, Method::DELETE, "/v1/applications/shop"), 409, "application_from_file")
        .await;
    let own = request(&program, Method::PUT, "/v1/applications/own")
        .json(&json!({"provider": "gcm", "gcm_api_key": "k"}));
    let own = expect(own, 200).await;
    assert_eq!(own.get("from_file"), None, "{own}");

    // A reload with a file that is wrong changes nothing.
    files.write_application("news.toml", "environment = \"development\"");
    let reload = || as_operator(&program, Method::POST, "/v1/reload");
    let message = expect_error(reload(), 409, "invalid_configuration").await;
    assert!(message.contains("foreign.toml") || message.contains("missing.key"), "{message}");
    assert_eq!(ids(&program).await, ["own", "shop"]);
    fs::remove_file(files.path("apps.d/broken.toml")).unwrap();
    expect(as_operator(&program, Method::PUT, "/v1/tenants/acme"), 201).await;
    fs::write(files.path("apps.d/gcm.key"), "key\n").unwrap();
    files.write(
        "foreign.toml",
        "tenant = \"acme\"\nprovider = \"gcm\"\n[credentials]\ngcm_api_key = \"gcm.key\"\n",
    );
    fs::remove_file(files.path("apps.d/shop.toml")).unwrap();
    let report = expect(reload(), 200).await;
    let changed =
        ["acme/foreign", "default/news", "default/shop"].map(|one| format!("registry.applications: {one}"));
    assert_eq!(report["changed"], json!(changed), "{report}");
    assert_eq!(ids(&program).await, ["news", "own"]);
    assert_eq!(expect(reload(), 200).await["changed"], json!([]));

    // A new secret is another application; the same files change nothing at a start.
    fs::write(files.path("apps.d/gcm.key"), "another\n").unwrap();
    assert_eq!(expect(reload(), 200).await["changed"], json!(["registry.applications: acme/foreign"]));
    drop(program);
    let program = files.serve("data", &files.applications()).await;
    assert_eq!(ids(&program).await, ["news", "own"]);
    assert_eq!(expect(as_operator(&program, Method::POST, "/v1/reload"), 200).await["changed"], json!([]));
    drop(program);
    // Without the key they stay, and can be changed.
    let program = files.serve("data", "").await;
    request(&program, Method::DELETE, "/v1/applications/news")
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    assert_eq!(ids(&program).await, ["own"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_move_to_another_server_without_their_secrets_leaving_this_one() {
    let files = Files::new().await;
    let old = files.serve("old", "").await;
    let p8 = files.simulator.credentials();
    let body = json!({
        "environment": "development",
        "settings": {"apns_key_id": p8.apns_key_id, "apns_team_id": p8.apns_team_id, "apns_topic": p8.apns_topic},
        "credentials": {"apns_p8": fs::read_to_string(&p8.apns_p8).unwrap()},
    });
    let shop = expect(request(&old, Method::PUT, "/v1/applications/..%2Fshop").json(&body), 200).await;
    let directory = files.path("exported").display().to_string();
    let exported = run(&old, &["app", "export", &directory], &TENANT).await;
    assert!(exported.status.success(), "{}", told(&exported));
    let written: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(written, [Path::new(&directory).join("..%2Fshop.toml")]);
    let text = fs::read_to_string(&written[0]).unwrap();
    assert!(!text.contains("PRIVATE KEY") && text.contains("apns_p8 = \"..%2Fshop.apns_p8\""), "{text}");
    let again = run(&old, &["app", "export", &directory], &TENANT).await;
    assert!(!again.status.success(), "it overwrites nothing");

    let new = files.serve("new", "").await;
    let missing = run(&new, &["app", "import", &directory], &TENANT).await;
    assert!(!missing.status.success() && told(&missing).contains("..%2Fshop.apns_p8"), "{}", told(&missing));
    fs::copy(&p8.apns_p8, Path::new(&directory).join("..%2Fshop.apns_p8")).unwrap();
    let imported = run(&new, &["app", "import", &directory], &TENANT).await;
    assert!(imported.status.success(), "{}", told(&imported));
    assert_eq!(expect(request(&new, Method::GET, "/v1/applications/..%2Fshop"), 200).await, shop);
    assert_eq!(send(&new, "../shop").await, "delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_running_server_takes_its_place() {
    let files = Files::new().await;
    let program = files.serve("data", "").await;
    let made = expect(as_operator(&program, Method::PUT, "/v1/tenants/acme"), 201).await;
    let key = made["api_key"].as_str().unwrap();
    let p12 = fs::read(&files.simulator.credentials().apns_p12).unwrap();
    let form = || {
        let part = reqwest::multipart::Part::bytes(p12.clone());
        reqwest::multipart::Form::new().part("apns_p12", part).text("application_id", "shop")
    };
    expect(request(&program, Method::POST, "/register_application").multipart(form()), 200).await;
    let dead = json!({"application_id": "shop", "notification": {"body": "x"}, "target": "dead15a27d5df3c34778defb1f4f3880"});
    expect(request(&program, Method::POST, "/v1/notifications").json(&dead), 200).await;

    let copy = files.path("copy.redb");
    let path = copy.display().to_string();
    for access in [&TENANT[..], &[]] {
        let refused = run(&program, &["backup", &path], access).await;
        assert!(!refused.status.success() && !copy.exists(), "{}", told(&refused));
    }
    // Changes go on meanwhile.
    let changing = async {
        for number in 0..20 {
            let body = json!({"provider": "gcm", "gcm_api_key": "k"});
            let path = format!("/v1/applications/while-{number}");
            expect(request(&program, Method::PUT, &path).json(&body), 200).await;
        }
    };
    let line = ["backup", path.as_str()];
    let (output, ()) = tokio::join!(run(&program, &line, &AS_OPERATOR), changing);
    assert!(output.status.success(), "{}", told(&output));
    let left: Vec<_> =
        fs::read_dir(files.path("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("copy")), "{left:?}");
    // What comes after the copy is not in it.
    expect(
        request(&program, Method::PUT, "/v1/applications/later")
            .json(&json!({"provider": "gcm", "gcm_api_key": "k"})),
        200,
    )
    .await;
    drop(program);

    let data = files.path("restored");
    fs::create_dir(&data).unwrap();
    fs::copy(&copy, data.join("registry.redb")).unwrap();
    let restored = files.serve("restored", "").await;
    let applications = ids(&restored).await;
    assert!(
        applications.contains(&"shop".to_owned()) && !applications.contains(&"later".to_owned()),
        "{applications:?}"
    );
    assert_eq!(send(&restored, "shop").await, "delivered");
    let own = http_client().get(restored.url("/v1/applications")).bearer_auth(key);
    assert_eq!(expect(own, 200).await["total"], 0);
    let feedback = request(&restored, Method::GET, "/v1/applications/shop/feedback");
    assert_eq!(expect(feedback, 200).await["dead_tokens"].as_array().unwrap().len(), 1);
    let audit = expect(as_operator(&restored, Method::GET, "/v1/audit"), 200).await;
    assert!(
        audit["audit"].as_array().unwrap().iter().any(|entry| entry["action"] == "tenant.put"),
        "{audit}"
    );
    wait_until("it is ready", async || {
        http_client().get(restored.url("/readyz")).send().await.unwrap().status() == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_no_file_has_nothing_to_back_up() {
    let program = Program::serve(&format!("admin.key = {OPERATOR:?}\n")).await;
    expect_error(as_operator(&program, Method::GET, "/v1/backup"), 409, "nothing_to_back_up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_outlives_a_restart() {
    let files = Files::new().await;
    files.write_application("shop.toml", "");
    let settings = files.applications();
    let program = files.serve("data", &settings).await;
    let made = expect(
        as_operator(&program, Method::POST, "/v1/tenants/default/keys")
            .json(&json!({"label": "ci", "scopes": ["send"]})),
        201,
    )
    .await;
    let key = made["api_key"].as_str().unwrap();
    let body = json!({"application_id": "shop", "notification": {"body": "x"}, "targets": [DEVICE, "dead15a27d5df3c34778defb1f4f3880"]});
    expect(http_client().post(program.url("/v1/notifications")).bearer_auth(key).json(&body), 200).await;
    let keys = async |program: &Program| {
        expect(as_operator(program, Method::GET, "/v1/tenants/default/keys"), 200).await["keys"].take()
    };
    let before = keys(&program).await;
    assert!(before[0]["label"] == "ci" && before[0]["last_used"].is_string(), "{before}");
    program.signal("TERM");
    let mut program = program;
    wait_until("it has ended", async || program.has_ended()).await;

    let program = files.serve("data", &settings).await;
    assert_eq!(keys(&program).await, before);
    assert_eq!(send(&program, "shop").await, "delivered");
    let used = expect(request(&program, Method::GET, "/v1/tenants/default/usage/month"), 200).await;
    let outcomes = json!({"delivered": 2, "unregistered": 1});
    let applications = json!([{"application": "shop", "provider": "apns", "outcomes": outcomes}]);
    assert_eq!(
        (&used["periods"][0]["outcomes"], &used["periods"][0]["applications"]),
        (&outcomes, &applications),
        "{used}"
    );
    let table = run(&program, &["tenant", "usage", "default", "--by", "day"], &AS_OPERATOR).await;
    assert!(told(&table).contains("shop"), "{}", told(&table));
    expect_error(request(&program, Method::GET, "/v1/tenants/default/usage/week"), 404, "not_found").await;
    expect_error(request(&program, Method::GET, "/v1/tenants/acme/usage/day"), 404, "tenant_not_found").await;
}
