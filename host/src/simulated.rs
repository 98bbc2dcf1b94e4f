//! `serve --simulator` and `pushlet simulator`: the push services' simulators in this process.

use std::io::Write as _;
use std::path::Path;

use pushlet_simulator::{CredentialFiles, Options, Simulator};

use crate::config::{BaseUrl, Config, Problem};

/// The simulators; they end when this is dropped.
pub struct Running(#[allow(dead_code)] Simulator);

/// Starts the simulators, keeps their credentials in `directory`, and points `config` at them: its
/// endpoints, and the authority that signed their certificates. Prints the commands to try.
pub async fn start(config: &mut Config, directory: &Path) -> Result<Running, Problem> {
    let simulator = simulator(directory).await?;
    let apns = BaseUrl::parse(&simulator.apns_url()).map_err(Problem::new)?;
    let google = BaseUrl::parse(&simulator.google_url()).map_err(Problem::new)?;
    config.endpoints.redirect("apns", &apns);
    config.endpoints.redirect("fcm", &google);
    config.endpoints.redirect("gcm", &google);
    config.tls.extra_roots.push(simulator.credentials().ca_pem.clone());
    let scheme = if config.tls.cert.is_some() { "https" } else { "http" };
    let server = format!("{scheme}://{}", config.listen);
    say(&commands(&server, &simulator))?;
    Ok(Running(simulator))
}

/// Starts the simulators for servers in other processes, and prints how to point those at them.
pub async fn alone(directory: &Path) -> Result<Running, Problem> {
    let simulator = simulator(directory).await?;
    say(&pointing(&simulator))?;
    Ok(Running(simulator))
}

async fn simulator(directory: &Path) -> Result<Simulator, Problem> {
    let options = Options { directory: directory.to_owned(), ..Options::default() };
    Simulator::start(options).await.map_err(|error| Problem::new(format_args!("the simulator: {error}")))
}

fn say(text: &str) -> Result<(), Problem> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Problem::new)
}

/// The commands of the README, for the credentials at hand.
fn commands(server: &str, simulator: &Simulator) -> String {
    let CredentialFiles { apns_p12, fcm_service_account, .. } = simulator.credentials();
    let (apns_p12, fcm_service_account) = (apns_p12.display(), fcm_service_account.display());
    let control = simulator.control_url();
    format!(
        r#"The simulators of APNs, FCM and GCM are running. Try:

curl {server}/register_application -F "apns_p12=@{apns_p12}" -F "application_id=YOUR_APPLICATION_NAME"
curl {server}/send_notification -d "device_token=0123456789abcdef&alert=YOUR+TEXT+MESSAGE&application_id=YOUR_APPLICATION_NAME"
curl {server}/send_notification -d "device_token=YOUR_GCM_DEVICE_KEY&gcm_api_key=YOUR_GCM_API_KEY&data=%7B%22text%22%3A%22hello%22%7D"
curl {server}/register_application -F "fcm_service_account=@{fcm_service_account}" -F "application_id=YOUR_ANDROID_APPLICATION"
curl {server}/send_notification -d "device_token=YOUR_FCM_TOKEN&alert=hello&application_id=YOUR_ANDROID_APPLICATION"
curl {control}/received

"#
    )
}

/// What to write into another server's configuration.
fn pointing(simulator: &Simulator) -> String {
    let (apns, google) = (simulator.apns_url(), simulator.google_url());
    let ca = simulator.credentials().ca_pem.display();
    let control = simulator.control_url();
    format!(
        r#"The simulators of APNs, FCM and GCM are running; {control} tells more.
To point a server at them, write into its configuration:

[tls]
extra_roots = ["{ca}"]
[endpoints.apns]
production = "{apns}"
development = "{apns}"
[endpoints.fcm]
production = "{google}"
development = "{google}"
[endpoints.gcm]
production = "{google}"
development = "{google}"

"#
    )
}
