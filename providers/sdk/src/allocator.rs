//! The allocator of a component. A call makes some hundred small allocations, and talc takes fewer instructions for
//! them than Rust's own allocator.
//!
//! Most calls find room in a heap that is there from the start: growing the memory costs the host two system calls
//! for each instance, in which its threads wait for each other.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::arch::wasm32::memory_grow;
use core::mem::MaybeUninit;

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

/// A page of WebAssembly, in bytes.
const PAGE: usize = 64 << 10;
/// Bytes of the first heap.
const FIRST: usize = 2 * PAGE;

#[global_allocator]
static ALLOCATOR: TalcSyncCell<Heaps, WasmBinning> = TalcSyncCell::new_wasm(Heaps { has_first: false });

static mut FIRST_HEAP: [MaybeUninit<u8>; FIRST] = [MaybeUninit::uninit(); FIRST];

/// Where the allocator gets memory: the first heap, then the engine.
#[derive(Debug)]
struct Heaps {
    has_first: bool,
}

// SAFETY: nothing here allocates.
unsafe impl Source for Heaps {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let (base, size) = match talc.source.has_first {
            true => grow(layout)?,
            false => ((&raw mut FIRST_HEAP).cast(), FIRST),
        };
        talc.source.has_first = true;
        // SAFETY: nobody else has these bytes: the first heap is used here alone and once, and what the memory grew
        // by is new.
        unsafe { talc.claim(base, size) }.map(drop).ok_or(())
    }
}

/// New pages with room for such a block, and one more for what the allocator keeps beside it.
fn grow(layout: Layout) -> Result<(*mut u8, usize), ()> {
    let pages = layout.size().saturating_add(layout.align()).div_ceil(PAGE) + 1;
    match memory_grow::<0>(pages) {
        usize::MAX => Err(()),
        before => Ok(((before * PAGE) as *mut u8, pages * PAGE)),
    }
}
