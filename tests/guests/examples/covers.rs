//! Covers the targets that it is told to, one exchange for each group of `do`: `0,1;1`.

use pushlet_guests::*;

pub struct Covers;

impl Guest for Covers {
    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let Some((_, groups)) = application.settings.iter().find(|(name, _)| name == "do") else {
            return encoded(&targets);
        };
        let indices =
            |group: &str| group.split(',').filter_map(|index| index.parse().ok()).collect::<Vec<u32>>();
        let exchanges = groups.split(';').map(|group| exchange(&indices(group))).collect();
        let mut encoded = Encoded { exchanges, ..encoded(&targets) };
        match setting(&application, "message") {
            "unknown" => encoded.exchanges[0].message = 7,
            "unused" => encoded.messages = vec![message(Vec::new()); 3],
            _ => {}
        }
        encoded
    }
}

export!(Covers);
