//! I want to extend: one file, in a crate of one's own, and nothing of the trainer touched.
//!
//! # In ten minutes
//!
//! ```sh
//! onward new my-rule --kind layer   # or goodness, sampler, architecture, data
//! cd my-rule
//! cargo run --release -- train progressive --set layer=my_rule --epochs 5
//! ```
//!
//! The new crate has the plugin in `src/lib.rs`, a program of three lines that is `onward` with the plugin in it, and a
//! test that holds the plugin to the trials of [`conformance`](crate::conformance).
//!
//! # Which of the traits
//!
//! | what is new                                      | the trait                                   | copy                        |
//! |--------------------------------------------------|---------------------------------------------|-----------------------------|
//! | how good an activity is                          | [`GoodnessFn`](crate::GoodnessFn)           | `sum_squares`, `projection` |
//! | what a layer computes, how its weights change    | [`LocalLayer`](crate::LocalLayer)           | `dense`, `conv`             |
//! | negative views, or labels in the input           | [`NegativeSampler`](crate::NegativeSampler) | `label`, `hybrid_images`    |
//! | who feeds whom, how often, and what is read out  | [`Architecture`](crate::Architecture)       | `progressive`, `recurrent`  |
//! | examples                                         | none: build a [`DataSet`](crate::data::DataSet) | `digits`, `folder`      |
//!
//! The smallest one that will do is the right one: a rule that updates weights without a gradient is a layer with a
//! `learn` of its own, not an architecture; one without negatives is a layer or a goodness, and the sampler `plain`. An
//! architecture of stacked layers is a [`Stack`](crate::wiring::stack::Stack) with some sixty lines around it, most of them the same
//! everywhere: `onward new --kind architecture` writes them.
//!
//! # Four things to keep to
//!
//! - Make every variable through [`BuildContext::vars`](crate::BuildContext::vars): then it is seeded, saved, restored and listed.
//! - Draw everything random from [`Step::stream`](crate::Step::stream): then a run repeats itself, and one that was
//!   stopped goes on as if it had not been.
//! - Change variables in `learn` alone, and through the [`Optimiser`](crate::Optimiser) that you are given; `forward` and
//!   `scores` change nothing.
//! - Do not look at labels that a batch hides, and say by `is_supervised` whether you look at all.
//!
//! The trials find out who does not. What they cannot find out is whether the rule is the paper's: compute a few numbers
//! by hand, or by the authors' program, and assert them.
//!
//! # A layer, from nothing to a run
//!
//! ```
//! use onward::candle_core::Tensor;
//! use onward::candle_nn::{linear, Linear, Module};
//! use onward::{conformance, Input, LocalLayer, Result, Run, BuildContext, Step};
//!
//! onward::settings! {
//!     /// A dense layer of smooth units, `a = z·σ(z)`, `z = x·Wᵀ + b`: `(V·B, …)` to `(V·B, N)`.
//!     pub struct Smooth {
//!         /// How many units; the architecture's `hidden` if it is not set here.
//!         units: Option<usize> = None, in 1..;
//!     }
//! }
//!
//! struct Layer(Linear);
//!
//! impl LocalLayer for Layer {
//!     // Enough: it learns by the gradient through itself alone. A closed form in `learn` is faster.
//!     fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
//!         Ok(self.0.forward(&input.join()?.flatten_from(1)?)?.silu()?)
//!     }
//! }
//!
//! onward::register! {
//!     dyn LocalLayer, "smooth", "dense, smooth units (an example)",
//!     |settings: Smooth, context| {
//!         let units = context.units_or(settings.units)?;
//!         Ok(Box::new(Layer(linear(context.inputs(), units, context.vars.builder())?)))
//!     }
//! }
//!
//! let run = Run::builder("progressive").set("layer", "smooth").set("hidden", vec![50, 50]);
//! assert_eq!(run.build()?.architecture().net().blocks.len(), 2);
//! conformance::of_plugin("layer", "smooth").assert_passed();
//! # Ok::<(), onward::Error>(())
//! ```
//!
//! # When it breaks
//!
//! A plugin is somebody else's code to whoever uses it. If it panics, or gives a tensor of another shape than its trait
//! says, or numbers that are not finite for some that are, then the run ends with an [`Error`](crate::Error) that has
//! the kind, the name and the package of the plugin. What a user can set wrongly is yours to refuse, with
//! [`Error::Unfit`](crate::Error::Unfit): what was found, what was expected, what to do.
//!
//! # Names and versions
//!
//! Two crates with a plugin of one name and kind cannot be linked together, and the error names both. A crate that no
//! program mentions is not linked at all: `use my_plugins as _;`. What a new version of onward may change of the traits
//! is said in `UPDATING.md`.
