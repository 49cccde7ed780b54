//! The wrapper around every plugin: faults become errors with the plugin's name and
//! package.
//!
//! If a plugin panics, or returns a tensor of another shape than documented, or values
//! that are not finite for finite input, the error names the plugin.
//! [`plugin::build`](crate::plugin::build) wraps everything that it builds. Facts about a
//! plugin, such as the number of its classes, are read once when it is built.
//!
//! The wrapper also hides labels from a sampler that does not declare that it uses them.

mod architecture;
mod examples;
mod goodness;
mod layer;
mod sampler;

use std::panic::{catch_unwind, AssertUnwindSafe};

use candle_core::{CpuStorage, Storage, Tensor};

use crate::contract::build_context::BuildContext;
use crate::error::{panic_message, Error, Located, Result};
use crate::flow::input::{Input, Values};
use crate::flow::vars::Vars;
use crate::kernels::wide;
use crate::plugin::registry::Info;

/// A kind of plugin that can be wrapped.
pub trait Checkable {
    /// Wraps a plugin, so that its faults become errors. `called` is its name in
    /// messages.
    ///
    /// # Errors
    /// [`Error::Plugin`] for invalid facts or a panic.
    fn checked(built: Box<Self>, called: String, context: &BuildContext) -> Result<Box<Self>>;
}

/// The name of a plugin in messages.
pub(crate) fn called(kind: &str, info: &Info) -> String {
    format!("{kind} {} (package {})", info.name, info.package)
}

/// Runs a method of a plugin. A panic is an error, and an error about tensors gets the
/// plugin's name.
pub(crate) fn attempt<R>(called: &str, work: impl FnOnce() -> Result<R>) -> Result<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(error @ (Error::Tensor(_) | Error::Shape { .. }))) => {
            Err(error).at(|| called.into())
        }
        Ok(result) => result,
        Err(panic) => Err(fault(
            called,
            format!("panicked: {}", panic_message(&*panic)),
        )),
    }
}

fn fault(called: &str, problem: String) -> Error {
    Error::Plugin {
        plugin: called.into(),
        problem,
        cause: None,
    }
}

/// A plugin, its name in messages, and the facts about it that were read when it was
/// built.
struct Checked<T: ?Sized, F> {
    called: String,
    /// The scope of the plugin's variables.
    vars: Vars,
    facts: F,
    inner: Box<T>,
}

impl<T: ?Sized, F> Checked<T, F> {
    fn new(
        inner: Box<T>,
        called: String,
        context: &BuildContext,
        facts: impl FnOnce(&T) -> Result<F>,
    ) -> Result<Self> {
        let facts = attempt(&called, || facts(&inner))?;
        Ok(Self {
            called,
            vars: context.vars.clone(),
            facts,
            inner,
        })
    }

    fn attempt<R>(&self, work: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        attempt(&self.called, || work(&self.inner))
    }

    fn attempt_mut<R>(&mut self, work: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        attempt(&self.called, || work(&mut self.inner))
    }

    fn fault(&self, problem: String) -> Error {
        fault(&self.called, problem)
    }

    /// Whether no variable of the plugin is beyond [`LARGE`].
    fn has_tame_variables(&self) -> bool {
        self.vars.all().iter().all(|(_, var)| is_tame(var))
    }
}

/// Refuses a tensor of another shape than `expected`.
fn has_shape(called: &str, what: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(fault(
        called,
        format!("returned {what} of shape {found:?}, expected {expected:?}"),
    ))
}

/// Numbers beyond this limit soon overflow, which is not a fault of the plugin.
const LARGE: f64 = 1e15;

/// Whether no number of a tensor is beyond [`LARGE`].
fn is_tame(tensor: &Tensor) -> bool {
    is_within(tensor, LARGE as f32)
}

fn is_finite(tensor: &Tensor) -> bool {
    is_within(tensor, f32::MAX)
}

/// Whether all numbers are between `−limit` and `limit`. Only contiguous `f32` tensors on
/// the CPU are checked, at the cost of reading them once.
fn is_within(tensor: &Tensor, limit: f32) -> bool {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        return true;
    };
    // No early exit within a chunk, so that the compiler can vectorise the loop.
    let is_within = |piece: &[f32]| {
        piece
            .iter()
            .fold(true, |all, value| all & (value.abs() <= limit))
    };
    wide(|| values[start..end].chunks(4096).all(is_within))
}

/// Whether no number of an input's parts and scales is beyond [`LARGE`].
fn is_tame_input(input: &Input) -> bool {
    input.parts().iter().all(|part| {
        let values = match &part.values {
            Values::Dense { matrix, .. } => is_tame(matrix),
            Values::OneHot { strength, .. } => strength.abs() <= LARGE,
            Values::Sparse { entries, .. } => is_tame(entries),
            Values::Zeros { .. } => true,
        };
        values && part.scale.as_ref().is_none_or(is_tame)
    })
}
