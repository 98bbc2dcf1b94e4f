//! The allocator of a component. A call makes some hundred small allocations: they are taken from an [`Arena`] that is
//! there from the start, since growing the memory costs the host two system calls for each instance, in which its
//! threads wait for each other. What does not fit into it comes from talc.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::memory_grow;
use core::ptr;

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

use crate::arena::Arena;

/// A page of WebAssembly, in bytes.
const PAGE: usize = 64 << 10;
/// Bytes of the arena.
const ARENA: usize = 2 * PAGE;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator { arena: Arena::new(), rest: TalcSyncCell::new_wasm(Engine) };

struct Allocator {
    arena: Arena<ARENA>,
    rest: TalcSyncCell<Engine, WasmBinning>,
}

// SAFETY: each block is handed back to the one of both that it came from.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.arena.take(layout);
        if !block.is_null() {
            return block;
        }
        // SAFETY: as for this function.
        unsafe { self.rest.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.arena.has(block) {
            // SAFETY: as for this function.
            unsafe { self.arena.free(block, layout.size()) }
        } else {
            // SAFETY: as for this function.
            unsafe { self.rest.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.arena.has(block) {
            // SAFETY: as for this function.
            return unsafe { self.rest.realloc(block, layout, size) };
        }
        if self.arena.resize(block, layout.size(), size) {
            return block;
        }
        // SAFETY: the caller says that this size is one of a layout. The old block is freed after it was copied.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.arena.free(block, layout.size());
            }
            moved
        }
    }
}

/// Where talc gets memory.
#[derive(Debug)]
struct Engine;

// SAFETY: nothing here allocates.
unsafe impl Source for Engine {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let (base, size) = grow(layout)?;
        // SAFETY: nobody else has these bytes: they are what the memory grew by.
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
