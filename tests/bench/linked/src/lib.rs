//! What the harness in `tests/bench` measures of this workspace's code itself, apart from the released program.
//! A package of its own: it takes minutes to link, and the harness does not.

pub mod codec;
pub mod native;
