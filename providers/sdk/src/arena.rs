//! Memory for the many small blocks of a call. Taking and freeing one takes a dozen instructions: blocks are cut off one
//! after the other, small ones that were freed are found by their size, and all starts again once none is left, which
//! is after each call of a provider that keeps nothing.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr;

/// Bytes: sizes are multiples of it, and so are addresses.
const STEP: usize = 16;
/// Sizes of blocks that are used again before all are freed: up to 256 bytes.
const SIZES: usize = 16;

/// `SIZE` bytes of it.
pub struct Arena<const SIZE: usize> {
    memory: UnsafeCell<Memory<SIZE>>,
    /// Where the bytes begin that were never taken, or freed again.
    next: Cell<usize>,
    /// Blocks that are taken.
    taken: Cell<usize>,
    /// Freed blocks before `next`, a list for each size.
    free: [Cell<*mut FreeBlock>; SIZES],
}

#[repr(C, align(16))]
struct Memory<const SIZE: usize>(MaybeUninit<[u8; SIZE]>);

struct FreeBlock {
    next: *mut FreeBlock,
}

// SAFETY: a component has one thread.
#[cfg(target_arch = "wasm32")]
unsafe impl<const SIZE: usize> Sync for Arena<SIZE> {}

impl<const SIZE: usize> Arena<SIZE> {
    pub const fn new() -> Self {
        Self {
            memory: UnsafeCell::new(Memory(MaybeUninit::uninit())),
            next: Cell::new(0),
            taken: Cell::new(0),
            free: [const { Cell::new(ptr::null_mut()) }; SIZES],
        }
    }

    /// Returns true if the block is one of the arena's.
    pub fn has(&self, block: *mut u8) -> bool {
        // One comparison: what lies before it is far behind it here.
        self.offset(block) < SIZE
    }

    /// Takes a block; null: there is no room, or it is to be aligned more than any here.
    pub fn take(&self, layout: Layout) -> *mut u8 {
        let size = rounded(layout.size());
        if let Some(list) = self.list(size)
            && !list.get().is_null()
            && layout.align() <= STEP
        {
            let block = list.get();
            // SAFETY: what is in a list is a free block, and nobody else uses it.
            list.set(unsafe { (*block).next });
            self.taken.set(self.taken.get() + 1);
            return block.cast();
        }
        let start = self.next.get();
        if layout.align() > STEP || size > SIZE - start {
            return ptr::null_mut();
        }
        self.next.set(start + size);
        self.taken.set(self.taken.get() + 1);
        // SAFETY: `start` is within the memory.
        unsafe { self.start().add(start) }
    }

    /// Frees a block.
    ///
    /// # Safety
    /// It was taken here, with this size, and is not used any more.
    pub unsafe fn free(&self, block: *mut u8, size: usize) {
        let size = rounded(size);
        self.taken.set(self.taken.get() - 1);
        let offset = self.offset(block);
        if self.taken.get() == 0 {
            self.next.set(0);
            self.free.iter().for_each(|list| list.set(ptr::null_mut()));
        } else if offset + size == self.next.get() {
            self.next.set(offset);
        } else if let Some(list) = self.list(size) {
            let block: *mut FreeBlock = block.cast();
            // SAFETY: the block is large enough and aligned, and it is the list's from now on.
            unsafe { block.write(FreeBlock { next: list.get() }) };
            list.set(block);
        }
    }

    /// Makes a block larger or smaller without moving it. Returns false if it must be moved.
    pub fn resize(&self, block: *mut u8, old: usize, new: usize) -> bool {
        let (old, new) = (rounded(old), rounded(new));
        let offset = self.offset(block);
        if offset + old == self.next.get() && new <= SIZE - offset {
            self.next.set(offset + new);
            return true;
        }
        // What is cut off is not used until all blocks are freed.
        new <= old
    }

    fn list(&self, size: usize) -> Option<&Cell<*mut FreeBlock>> {
        self.free.get((size / STEP).wrapping_sub(1))
    }

    fn offset(&self, block: *mut u8) -> usize {
        block.addr().wrapping_sub(self.start().addr())
    }

    fn start(&self) -> *mut u8 {
        self.memory.get().cast()
    }
}

/// A layout's size is at most `isize::MAX`, so that this does not overflow.
fn rounded(size: usize) -> usize {
    (size + STEP - 1) & !(STEP - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 4096;

    /// A block, its size, and the byte that it is filled with.
    type Taken = (*mut u8, usize, u8);

    fn fill(block: *mut u8, size: usize, byte: u8) {
        // SAFETY: the block has this size.
        unsafe { block.write_bytes(byte, size) };
    }

    fn is_filled((block, size, byte): Taken) -> bool {
        // SAFETY: the block has this size, and was filled.
        (0..size).all(|index| unsafe { *block.add(index) } == byte)
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap_or(Layout::new::<u64>())
    }

    /// Numbers that repeat from run to run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end as u64) as usize
        }
    }

    #[test]
    fn blocks_keep_what_is_in_them_whatever_others_do() {
        let arena = Arena::<SIZE>::new();
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let mut taken: Vec<Taken> = Vec::new();
        let (mut refused, mut resized) = (0, 0);
        for step in 0..100_000 {
            let byte = step as u8;
            match numbers.below(5) {
                0 | 1 => {
                    let size = 1 + numbers.below(400);
                    let block = arena.take(layout(size));
                    if block.is_null() {
                        refused += 1;
                        continue;
                    }
                    assert!(block.addr().is_multiple_of(STEP) && arena.has(block));
                    fill(block, size, byte);
                    taken.push((block, size, byte));
                }
                2 if !taken.is_empty() => {
                    let index = numbers.below(taken.len());
                    let (block, old, byte) = taken[index];
                    let new = 1 + numbers.below(400);
                    if arena.resize(block, old, new) {
                        assert!(is_filled((block, old.min(new), byte)));
                        fill(block, new, byte);
                        taken[index].1 = new;
                        resized += 1;
                    }
                }
                _ if !taken.is_empty() => {
                    let (block, size, byte) = taken.swap_remove(numbers.below(taken.len()));
                    assert!(is_filled((block, size, byte)), "step {step}");
                    // SAFETY: it was taken with this size.
                    unsafe { arena.free(block, size) };
                }
                _ => {}
            }
            if step % 1000 == 0 {
                // As at the end of a call.
                for (block, size, byte) in taken.drain(..) {
                    assert!(is_filled((block, size, byte)));
                    // SAFETY: it was taken with this size.
                    unsafe { arena.free(block, size) };
                }
                assert_eq!((arena.next.get(), arena.taken.get()), (0, 0));
            }
        }
        assert!(refused > 100 && resized > 100, "{refused} {resized}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let arena = Arena::<SIZE>::new();
        assert!(arena.take(layout(SIZE + 1)).is_null());
        assert!(arena.take(layout(isize::MAX as usize - 7)).is_null());
        assert!(Layout::from_size_align(8, 32).is_ok_and(|wide| arena.take(wide).is_null()));
        let whole = arena.take(layout(SIZE));
        assert!(!whole.is_null() && arena.take(layout(1)).is_null());
        assert!(!arena.resize(whole, SIZE, SIZE + 1));
        let outside = &mut 0_u8;
        assert!(!arena.has(outside) && !arena.has(ptr::null_mut()));
    }

    #[test]
    fn small_blocks_are_used_again_and_the_last_one_grows_where_it_is() {
        let arena = Arena::<SIZE>::new();
        let [one, two, three] = [arena.take(layout(40)), arena.take(layout(40)), arena.take(layout(40))];
        // SAFETY: both were taken with this size.
        unsafe { arena.free(one, 40) };
        assert_eq!(arena.take(layout(33)), one);
        assert!(arena.resize(three, 40, 1000) && !arena.resize(two, 40, 1000));
        assert_eq!(arena.next.get(), 48 + 48 + 1008);
    }
}
