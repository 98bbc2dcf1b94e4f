//! Its allocator, which the host asks for the place of every argument, lies.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use pushlet_guests::*;

pub struct Allocator;

/// What it answers from now on; 0: a real place. Set at the end of a call, so that the next one's arguments
/// are the first to meet it.
static ANSWER: AtomicUsize = AtomicUsize::new(0);
const FOR_EVER: usize = 1;

pub struct Liar;

// SAFETY: none. The component's sandbox has to hold.
unsafe impl GlobalAlloc for Liar {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match ANSWER.load(Ordering::Relaxed) {
            0 => unsafe { System.alloc(layout) },
            FOR_EVER => spin(),
            place => std::ptr::without_provenance_mut(place),
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if ANSWER.load(Ordering::Relaxed) == 0 {
            unsafe { System.dealloc(place, layout) }
        }
    }
}

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static LIAR: Liar = Liar;

impl Guest for Allocator {
    fn check_application(application: Application) -> Result<(), Rejection> {
        let answer = match task(&application) {
            "for_ever" => FOR_EVER,
            "past_the_end" => 0xffff_fff0,
            "crooked" => 0x10003,
            _ => 0,
        };
        ANSWER.store(answer, Ordering::Relaxed);
        Ok(())
    }
}

export!(Allocator);
