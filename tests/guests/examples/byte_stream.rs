//! A provider of the world `stream-provider`. It echoes: it writes one byte for each submission, and settles the oldest one
//! for each byte that it receives. The application's setting `do` says what it does wrong.

#![allow(clippy::panic)]

use std::collections::VecDeque;

use pushlet_guests::{Application, Context, Notification, ProviderManifest, Rejection, manifest, task};
use pushlet_provider::manifest::{configured, names};
use pushlet_provider::reply::delivered;
use pushlet_provider::stream::{Connection, Step, StreamProvider, Submission, step};

pub struct ByteStream;

pub struct Echo {
    task: String,
    in_flight: VecDeque<u64>,
    hoard: Vec<Vec<u8>>,
}

impl StreamProvider for ByteStream {
    type Connection = Echo;

    fn describe() -> ProviderManifest {
        ProviderManifest { name: "byte_stream".into(), endpoints: configured("push").into(), ..manifest() }
    }

    fn check_application(application: &Application) -> Result<(), Rejection> {
        match task(application) {
            "check" => panic!("asked to"),
            _ => Ok(()),
        }
    }

    fn connect(application: &Application, _: &str, _: &[(String, u32)]) -> Echo {
        let task = task(application).to_owned();
        assert_ne!(task, "connect", "asked to");
        Echo { task, in_flight: VecDeque::new(), hoard: Vec::new() }
    }
}

impl Echo {
    fn done(&self, step: Step) -> Step {
        let wake = (self.task == "hurry").then_some(0);
        Step { window: 100, wake, ..step }
    }
}

impl Connection for Echo {
    fn start(&mut self, _: &Context) -> Step {
        let mut step = step();
        match self.task.as_str() {
            "secret" => step.write_secret(&names(&["somebody_elses"])[0]),
            "much" => step.write(&vec![7; 1 << 20]),
            _ => {}
        }
        self.done(step)
    }

    fn submit(&mut self, _: &Context, _: &Notification, submissions: Vec<Submission>) -> Step {
        let mut step = step();
        for Submission { id, .. } in submissions {
            step.write(&[1]);
            self.in_flight.push_back(id);
        }
        self.done(step)
    }

    fn written(&mut self, _: &Context) -> Step {
        self.done(step())
    }

    fn receive(&mut self, _: &Context, bytes: &[u8]) -> Step {
        let mut step = step();
        for _ in bytes {
            match self.task.as_str() {
                "trap" => panic!("asked to"),
                "spin" => loop {
                    std::hint::black_box(());
                },
                "hoard" => loop {
                    self.hoard.push(vec![1; 1 << 20]);
                },
                "stranger" => step.settle(u64::MAX, delivered(None)),
                "twice" => (0..2).for_each(|_| step.settle(0, delivered(None))),
                "many" => (0..100_000).for_each(|id| step.resubmit(id)),
                // As if each piece were a message.
                "pieces" if !step.events.is_empty() => break,
                _ => {}
            }
            if let Some(id) = self.in_flight.pop_front() {
                step.settle(id, delivered(None));
            }
        }
        self.done(step)
    }

    fn tick(&mut self, _: &Context) -> Step {
        self.done(step())
    }

    fn finish(&mut self, _: &Context) -> Step {
        Step { close: true, ..step() }
    }

    fn closed(&mut self, _: &Context) -> Step {
        let mut step = step();
        if self.task == "eager" {
            self.in_flight.drain(..).for_each(|id| step.settle(id, delivered(None)));
        }
        step
    }
}

pushlet_provider::export_stream!(ByteStream);
