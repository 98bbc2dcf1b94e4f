//! `serve --simulator` and `pushlet simulator`: the push services' simulators in this process, and their flags.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
pub use pushlet_simulator::Options;
use pushlet_simulator::{CredentialFiles, Simulator};

use pushlet_settings::{BaseUrl, Config, Problem};

/// The simulators; they end when this is dropped.
pub struct RunningSimulator(#[allow(dead_code)] Simulator);

/// Starts the simulators, and points `config` at them: its endpoints, and the authority that signed their
/// certificates. Prints the commands to try.
pub async fn start(config: &mut Config, options: &Options) -> Result<RunningSimulator, Problem> {
    let simulator = simulator(options).await?;
    let url = |url: String| BaseUrl::parse(&url).map_err(Problem::new);
    let (production, development) = (url(simulator.apns_production_url())?, url(simulator.apns_url())?);
    let google = url(simulator.google_url())?;
    config.endpoints.redirect("apns", &production, &development);
    config.endpoints.redirect("fcm", &google, &google);
    for provider in ["gcm", "hms", "webpush"] {
        config.endpoints.redirect(provider, &google, &google);
    }
    config.tls.extra_roots.push(simulator.credentials().ca_pem.clone());
    let scheme = if config.tls.cert.is_some() { "https" } else { "http" };
    let server = format!("{scheme}://{}", config.listen);
    say(&commands(&server, &simulator))?;
    Ok(RunningSimulator(simulator))
}

/// Starts the simulators for servers in other processes, and prints how to point those at them.
pub async fn alone(options: &Options) -> Result<RunningSimulator, Problem> {
    let simulator = simulator(options).await?;
    say(&pointing(&simulator))?;
    Ok(RunningSimulator(simulator))
}

async fn simulator(options: &Options) -> Result<Simulator, Problem> {
    Simulator::start(options.clone())
        .await
        .map_err(|error| Problem::new(format_args!("the simulator: {error}")))
}

fn say(text: &str) -> Result<(), Problem> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Problem::new)
}

/// Returns the commands of the README, for these credentials.
fn commands(server: &str, simulator: &Simulator) -> String {
    let CredentialFiles { apns_p12, fcm_service_account, .. } = simulator.credentials();
    let (apns_p12, fcm_service_account) = (apns_p12.display(), fcm_service_account.display());
    let control = simulator.control_url();
    format!(
        r#"The simulators of APNs, FCM, GCM, Huawei Push Kit and Web Push are running. Try:

curl {server}/register_application -F "apns_p12=@{apns_p12}" -F "application_id=YOUR_APPLICATION_NAME"
curl {server}/send_notification -d "device_token=0123456789abcdef&alert=YOUR+TEXT+MESSAGE&application_id=YOUR_APPLICATION_NAME"
curl {server}/send_notification -d "device_token=YOUR_GCM_DEVICE_KEY&gcm_api_key=YOUR_GCM_API_KEY&data=%7B%22text%22%3A%22hello%22%7D"
curl {server}/register_application -F "fcm_service_account=@{fcm_service_account}" -F "application_id=YOUR_ANDROID_APPLICATION"
curl {server}/send_notification -d "device_token=YOUR_FCM_TOKEN&alert=hello&application_id=YOUR_ANDROID_APPLICATION"
curl {control}/received

"#
    )
}

/// Returns the configuration that points another server at the simulators.
fn pointing(simulator: &Simulator) -> String {
    let (sandbox, production) = (simulator.apns_url(), simulator.apns_production_url());
    let google = simulator.google_url();
    let ca = simulator.credentials().ca_pem.display();
    let control = simulator.control_url();
    format!(
        r#"The simulators of APNs, FCM, GCM, Huawei Push Kit and Web Push are running; {control} tells more.
To point a server at them, write into its configuration:

[tls]
extra_roots = ["{ca}"]
[endpoints.apns]
production = "{production}"
development = "{sandbox}"
[endpoints.fcm]
production = "{google}"
development = "{google}"
[endpoints.gcm]
production = "{google}"
development = "{google}"
[endpoints.hms]
production = "{google}"
[endpoints.webpush]
production = "{google}"

"#
    )
}

/// Adds the flags to `serve`.
pub fn with_flags(serve: Command) -> Command {
    let simulator = Arg::new("simulator")
        .long("simulator")
        .action(ArgAction::SetTrue)
        .help("Run simulators of the push services too, and send to them");
    serve.arg(simulator).args(flags())
}

/// Returns the command `simulator`.
pub fn command() -> Option<Command> {
    let command = Command::new("simulator")
        .about("Run the simulators of the push services alone")
        .args(flags())
        .after_help(
            "Example:\n  pushlet simulator --simulator-dir /tmp/simulator --simulator-google 127.0.0.4:443",
        );
    Some(command)
}

/// Returns the options of the simulators if `serve` runs them.
pub fn requested(serve: &ArgMatches) -> Option<Options> {
    serve.get_flag("simulator").then(|| options(serve))
}

/// Returns the options that the flags give, or their defaults.
pub fn options(matches: &ArgMatches) -> Options {
    let default = Options::default();
    let address = |name: &str, otherwise| matches.get_one::<SocketAddr>(name).copied().unwrap_or(otherwise);
    Options {
        directory: matches.get_one::<PathBuf>("simulator-dir").cloned().unwrap_or(default.directory),
        apns: address("simulator-apns", default.apns),
        apns_production: address("simulator-apns-production", default.apns_production),
        google: address("simulator-google", default.google),
        control: address("simulator-control", default.control),
        ..Options::default()
    }
}

/// Where a simulator's listener is, by the name of its flag.
const LISTENERS: [(&str, &str, &str); 4] = [
    ("simulator-apns", "127.0.0.1:9443", "Where the simulator of APNs' development environment listens"),
    (
        "simulator-apns-production",
        "127.0.0.1:9446",
        "Where the simulator of APNs' production environment listens",
    ),
    (
        "simulator-google",
        "127.0.0.1:9444",
        "Where the simulator of FCM, OAuth, GCM, Huawei and Web Push listens",
    ),
    ("simulator-control", "127.0.0.1:9445", "Where the simulators are looked at and scripted"),
];

fn flags() -> Vec<Arg> {
    let directory = Arg::new("simulator-dir")
        .long("simulator-dir")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .default_value("./simulator")
        .help("Where the simulators put their throw-away credentials");
    let listener = |(name, address, help): (&'static str, &'static str, &'static str)| {
        let arg = Arg::new(name).long(name).value_name("ADDRESS:PORT").help(help);
        arg.value_parser(value_parser!(SocketAddr)).default_value(address)
    };
    std::iter::once(directory).chain(LISTENERS.map(listener)).collect()
}
