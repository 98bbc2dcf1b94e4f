#![allow(clippy::unwrap_used)]
use super::*;

const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn what_is_sound_is_read_and_written_the_same() {
    let context = TraceContext::parse(SOUND).unwrap();
    assert!(context.sampled);
    assert_eq!(context.to_string(), SOUND);
    assert!(!TraceContext::parse(&SOUND.replace("-01", "-02")).unwrap().sampled);
    assert!(TraceContext::parse(&SOUND.replace("00-4b", "cc-4b")).is_some());
    assert!(TraceContext::parse(&format!("{}-more", SOUND.replace("00-4b", "cc-4b"))).is_some());
    let child = context.child();
    assert_eq!((child.trace, child.sampled), (context.trace, true));
    assert_ne!(child.span, context.span);
}

#[test]
fn what_is_not_sound_is_passed_over() {
    for wrong in [
        "",
        "00",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ü",
    ] {
        assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
    }
}
