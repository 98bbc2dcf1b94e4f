//! Its allocator, which the host asks for the place of every argument, lies from the argument on that tells it to.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use pushlet_guests::*;

pub struct Allocator;

/// What it answers from now on; 0: a real place.
static ANSWER: AtomicUsize = AtomicUsize::new(0);
const FOR_EVER: usize = 1;
/// Place and length of the text that was last asked for. The host writes each argument before it asks for the place
/// of the next, so a text says what becomes of the arguments after the one that follows it. The settings are the last
/// argument of `check_application`, which is why that works.
static TEXT: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

pub struct Liar;

// SAFETY: none. The component's sandbox has to hold.
unsafe impl GlobalAlloc for Liar {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match ANSWER.load(Ordering::Relaxed) {
            0 => unsafe { real(layout) },
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

/// What the text that was last asked for demands.
unsafe fn lie() -> Option<usize> {
    let [place, length] = TEXT.each_ref().map(|part| part.load(Ordering::Relaxed));
    if place == 0 {
        return None;
    }
    match unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(place), length) } {
        b"for_ever" => Some(FOR_EVER),
        b"past_the_end" => Some(0xffff_fff0),
        b"crooked" => Some(0x10003),
        _ => None,
    }
}

unsafe fn real(layout: Layout) -> *mut u8 {
    let place = unsafe { System.alloc(layout) };
    if layout.align() == 1 {
        // SAFETY: the text before this one was written, and a component's memory never shrinks.
        if let Some(answer) = unsafe { lie() } {
            ANSWER.store(answer, Ordering::Relaxed);
        }
        let text = [place.expose_provenance(), layout.size()];
        TEXT.iter().zip(text).for_each(|(part, value)| part.store(value, Ordering::Relaxed));
    }
    place
}

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static LIAR: Liar = Liar;

impl Guest for Allocator {}

export!(Allocator);
