//! What a guest does while it is called: time, memory, stack, traps, output, handles.

use pushlet_sandbox::ProviderError;

use super::fixture::{Call, HostileGuest, bad, panicked, refused};

const EXPORTS: [(Call, &str); 3] =
    [(Call::CheckApplication, "check_application"), (Call::Encode, "encode"), (Call::Decode, "decode")];

#[test]
fn an_endless_loop_in_any_export_is_stopped() {
    let guest = HostileGuest::new("endless");
    for (export, name) in EXPORTS {
        guest.fails_with(export, name, &ProviderError::TimedOut);
    }
    assert_eq!(guest.0.failures(), 3);
}

#[test]
fn endless_recursion_ends_at_the_end_of_the_stack() {
    HostileGuest::new("recursion").fails_with(
        Call::Encode,
        "recurse",
        &panicked("wasm trap: call stack exhausted"),
    );
}

#[test]
fn memory_ends_at_the_limit() {
    let guest = HostileGuest::new("hog");
    guest.fails_with(Call::Encode, "hoard", &ProviderError::OutOfMemory);
    // It may have all that is allowed, and no page more.
    let encoded = guest.call(Call::Encode, &[("do", "grow")]).unwrap();
    assert!(encoded.contains(&format!("body: b\"{}\"", (64 << 20) / (64 << 10))), "{encoded}");
}

#[test]
fn a_huge_result_is_not_taken() {
    let guest = HostileGuest::new("huge_result");
    // 256 KiB, and 8 KiB for each target: none stands for one.
    let too_much = |targets: usize| {
        bad(&format!("it is larger than one call may return, {} bytes", (256 + 8 * targets) << 10))
    };
    guest.fails_with(Call::CheckApplication, "rejection", &too_much(1));
    for task in ["body", "exchanges", "covers", "refusals"] {
        guest.fails_with(Call::Encode, task, &too_much(2));
    }
    guest.fails_with(Call::Decode, "native", &too_much(2));
}

#[test]
fn lists_that_are_not_there_are_not_read() {
    let guest = HostileGuest::new("lies");
    for task in ["past_the_end", "length", "wrap_around"] {
        guest.fails_with(Call::Encode, task, &bad("list pointer/length out of bounds of memory"));
    }
}

#[test]
fn texts_that_are_not_utf_8_are_not_taken() {
    let guest = HostileGuest::new("lies");
    for (task, at) in [("path", 1), ("surrogate", 1), ("overlong", 1)] {
        let error = bad(&format!("invalid utf-8 sequence of 1 bytes from index {at}"));
        guest.fails_with(Call::Encode, task, &error);
    }
}

#[test]
fn a_trap_in_any_export_costs_one_call() {
    let guest = HostileGuest::new("trap");
    for (export, _) in EXPORTS {
        guest.fails_with(
            export,
            "unreachable",
            &panicked("wasm trap: wasm `unreachable` instruction executed"),
        );
        guest.fails_with(export, "out_of_bounds", &panicked("wasm trap: out of bounds memory access"));
    }
}

#[test]
fn a_panics_message_and_frames_are_for_its_tenant_alone() {
    let guest = HostileGuest::new("panic");
    guest.fails_with(Call::Encode, "panic", &panicked("wasm trap: wasm `unreachable` instruction executed"));
    let log = guest.0.log().text();
    assert!(log.contains("the tenant's own words: app"), "{log}");
    assert!(log.contains("wasm backtrace"), "{log}");
}

#[test]
fn a_guest_can_not_end_the_process() {
    let guest = HostileGuest::new("exit");
    guest.fails_with(Call::Encode, "exit 0", &panicked("it called exit(0)"));
    guest.fails_with(Call::Encode, "exit 1", &panicked("it called exit(1)"));
    guest.fails_with(Call::Encode, "abort", &panicked("wasm trap: wasm `unreachable` instruction executed"));
}

#[test]
fn printing_much_fills_a_bounded_log_and_printing_for_ever_is_stopped() {
    let guest = HostileGuest::new("flood");
    guest.call(Call::Encode, &[("do", "much")]).unwrap();
    let log = guest.0.log().text();
    assert!(log.ends_with("the last line\n") && log.len() <= 16 << 10, "{} bytes", log.len());
    guest.fails_with(Call::Encode, "endless", &ProviderError::TimedOut);
    assert!(guest.0.log().text().len() <= 16 << 10);
}

/// Calls come from asynchronous code, and WASI's own implementations may block or want a runtime there.
#[tokio::test(flavor = "multi_thread")]
async fn printing_and_waiting_inside_a_runtime_is_as_outside() {
    let flood = HostileGuest::new("flood");
    flood.0.clone().run(move |_| flood.call(Call::Encode, &[("do", "much")])).await.unwrap();
    let waits = HostileGuest::new("waits");
    let waited = waits.0.clone().run(move |_| waits.call(Call::Encode, &[("do", "year")])).await;
    assert_eq!(waited, Err(refused("it waits, and a provider must not wait")));
}

#[test]
fn waiting_is_refused_however_short() {
    let guest = HostileGuest::new("waits");
    for task in ["nanosecond", "year"] {
        guest.fails_with(Call::Encode, task, &refused("it waits, and a provider must not wait"));
    }
}

#[test]
fn handles_are_counted() {
    let guest = HostileGuest::new("handles");
    guest.call(Call::Encode, &[("do", "100")]).unwrap();
    guest.fails_with(Call::Encode, "100000", &refused("it holds too many handles"));
    // A leak adds up over the calls of an instance, and ends with it.
    let leaks = (0..50).map(|_| guest.call(Call::Encode, &[("do", "100")]));
    assert!(leaks.filter(|result| *result == Err(refused("it holds too many handles"))).count() >= 4);
}

#[test]
fn random_bytes_are_few() {
    let guest = HostileGuest::new("dice");
    guest.call(Call::Encode, &[("do", "1000")]).unwrap();
    guest.fails_with(Call::Encode, "300000", &refused("requested len 300000 exceeds limit 262144"));
    let most = u64::MAX.to_string();
    guest.fails_with(Call::Encode, &most, &refused(&format!("requested len {most} exceeds limit 262144")));
}

#[test]
fn an_allocator_that_lies_harms_itself() {
    let guest = HostileGuest::new("allocator");
    let cases = [
        ("past_the_end", bad("realloc return: beyond end of memory")),
        ("crooked", bad("realloc return: result not aligned")),
        ("for_ever", ProviderError::TimedOut),
    ];
    for (task, error) in cases {
        guest.call(Call::CheckApplication, &[("do", task)]).unwrap();
        guest.fails_with(Call::Encode, task, &error);
    }
}
