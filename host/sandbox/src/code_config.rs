//! The engine's settings that decide what compiled code looks like. The build script has them too, see
//! `build/precompile.rs`.

use std::num::NonZeroUsize;

use wasmtime::{Config, Strategy, WasmBacktraceDetails};

/// Returns these settings, for the processor that the program runs on. Everything that is not needed is off: threads, GC,
/// exceptions, 64-bit memories.
pub fn code_config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .epoch_interruption(true)
        .concurrency_support(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .gc_support(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        // What a computation gives must not depend on the machine.
        .wasm_relaxed_simd(false)
        .wasm_wide_arithmetic(true)
        .cranelift_nan_canonicalization(true)
        // The difference is what host functions have, and guests call none that needs much.
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20)
        .memory_init_cow(true)
        .memory_reservation(4 << 30)
        .memory_guard_size(32 << 20)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(8));
    config
}
