//! Loops compiled for the processor that the program finds itself on.

use std::sync::OnceLock;

use pulp::{Arch, NullaryFnOnce};

/// Runs a loop with the longest vectors of this processor.
///
/// It is compiled once for each kind of processor, so what it calls has to be inlined. A
/// closure of many lines is not: see [`Loop`]. The bits are those of any other kind of
/// vectors, since sums have a fixed order, and a product and a sum are not fused.
#[inline(always)]
pub(crate) fn wide<R>(work: impl FnOnce() -> R) -> R {
    arch().dispatch(work)
}

/// A loop of many lines; [`run`](Self::run) has to be `#[inline(always)]`.
pub(crate) trait Loop: Sized {
    fn run(self);

    /// Runs it as [`wide`] does.
    #[inline(always)]
    fn wide(self) {
        struct Forced<L>(L);

        impl<L: Loop> NullaryFnOnce for Forced<L> {
            type Output = ();

            #[inline(always)]
            fn call(self) {
                self.0.run();
            }
        }

        arch().dispatch(Forced(self));
    }
}

#[inline(always)]
fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(Arch::new)
}
