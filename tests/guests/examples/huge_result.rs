//! Returns more than anybody wants to have.

use pushlet_guests::*;

pub struct HugeResult;

impl Guest for HugeResult {
    fn check_application(application: Application) -> Result<(), Rejection> {
        match task(&application) {
            "rejection" => Err(Rejection {
                code: "x".repeat(1 << 20),
                message: String::new(),
                field: None,
                more: Vec::new(),
            }),
            _ => Ok(()),
        }
    }

    fn encode(_: Context, application: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        match task(&application) {
            "body" => with_body(&targets, vec![b'x'; 8 << 20]),
            "exchanges" => Encoded { exchanges: vec![exchange(&[0]); 100_000], ..encoded(&targets) },
            "covers" => Encoded { exchanges: vec![exchange(&vec![0; 1_000_000])], ..encoded(&targets) },
            "refusals" => {
                let rejection =
                    Rejection { code: "x".into(), message: "y".repeat(1000), field: None, more: Vec::new() };
                let refusals = vec![Refusal { covers: vec![0], rejection }; 10_000];
                Encoded { refusals, ..encoded(&targets) }
            }
            _ => encoded(&targets),
        }
    }

    fn decode(_: Context, application: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        match task(&application) {
            "native" => vec![Reply {
                native: Some(format!("\"{}\"", "x".repeat(1 << 20))),
                ..replies(&answers).remove(0)
            }],
            _ => replies(&answers),
        }
    }
}

export!(HugeResult);
