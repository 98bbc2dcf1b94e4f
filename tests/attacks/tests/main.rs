//! The attack suite: what one caller, tenant or push service can do to the others, which is nothing.
//!
//! Each file is one kind of attack. Every test starts the released program's code as a process of its own, with a
//! victim tenant that sends at the same time: the victim's pushes must all arrive, at no more than one and a half times
//! their usual time, the attacker must get a clear error code, and the process must stay within its memory bound.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod copies;
mod harness;
mod hosts;
mod log;
mod memory;
mod permission;
mod shares;
mod time;
mod work;
