//! Extending: a new rule is one file in your own crate. The trainer does not change.
//!
//! # In ten minutes
//!
//! ```sh
//! onward new my-rule --kind layer   # or goodness, sampler, architecture, data
//! cd my-rule
//! cargo run --release -- train progressive --set layer=my_rule --epochs 5
//! ```
//!
//! The new crate has the plugin in `src/lib.rs`, the program `onward` with this plugin in
//! it, and a test that runs the trials of [`conformance`](crate::conformance).
//!
//! # Which trait
//!
//! | what is new | trait | start from a copy of |
//! |---|---|---|
//! | a score of an activity, or a loss | [`GoodnessFn`](crate::GoodnessFn) | `goodness/sum_squares.rs` |
//! | a score per class, graded by the labels | [`GoodnessFn`](crate::GoodnessFn) | `goodness/projection.rs` |
//! | a loss of your own that reads labels | [`GoodnessFn`](crate::GoodnessFn) | `goodness/predsim.rs` |
//! | a layer, or how its weights change | [`LocalLayer`](crate::LocalLayer) | `layers/dense.rs` |
//! | negative views, or labels in the input | [`NegativeSampler`](crate::NegativeSampler) | `samplers/label.rs` |
//! | the wiring of blocks, their order, readouts | [`Architecture`](crate::Architecture) | `architectures/progressive.rs` |
//! | a data set | none: return a [`DataSet`](crate::data::DataSet) | `examples/07_new_data.rs` |
//!
//! The paths are those in `plugins/`, but for the last one. Choose the smallest trait that is enough:
//!
//! - Weights change without a gradient, or by a closed form at the end of an epoch: a
//!   layer with its own `learn` or `epoch_ended`, which names its class in
//!   [`rule`](crate::LocalLayer::rule). `rules/pepita.rs` has the first,
//!   `rules/forward_projection.rs` the second, with
//!   [`LeastSquares`](crate::modules::least_squares::LeastSquares).
//! - The loss is not a function of each row's goodness (two thresholds, pairs of rows):
//!   a goodness with its own [`grade`](crate::GoodnessFn::grade). It gets the labels in
//!   [`Targets`](crate::Targets), and says so by
//!   [`uses_labels`](crate::GoodnessFn::uses_labels).
//! - No negative views: any of these, with the sampler `plain`.
//! - Stacked layers with another order of learning: an architecture around a
//!   [`Stack`](crate::wiring::stack::Stack). `onward new my-rule --kind architecture`
//!   writes one.
//!
//! [`preset!`](crate::preset) adds the settings of a paper to an architecture, in the
//! file of the rule: `onward train progressive --preset my_rule`.
//!
//! # Four rules
//!
//! 1. Make every variable with [`BuildContext::vars`](crate::BuildContext::vars). It is
//!    then seeded, saved and restored.
//! 2. Draw the random numbers of a step from [`Step::stream`](crate::Step::stream). A run
//!    then repeats itself, and a resumed run ends as if it had not stopped.
//! 3. Change learned variables in `learn`, with the [`Optimiser`](crate::Optimiser) that
//!    you are given. State and closed forms also change in `epoch_ended` and `refresh`.
//! 4. Return from `uses_labels` whether the plugin reads labels. If not, it gets none.
//!    The default of a sampler is `true`, that of a layer `false`.
//!
//! The trials find plugins that break these rules. They cannot find out whether a rule is
//! that of the paper: compute a few numbers by hand, or with the authors' program, and
//! assert them.
//!
//! # A layer, from nothing to a run
//!
//! ```
//! use onward::candle_core::Tensor;
//! use onward::candle_nn::{linear, Linear, Module};
//! use onward::{conformance, Input, LocalLayer, Result, Run, Step};
//!
//! onward::settings! {
//!     /// A dense layer of smooth units, `a = z·σ(z)`, `z = x·Wᵀ + b`: `(V·B, …)` to `(V·B, N)`.
//!     pub struct Smooth {
//!         /// Number of units; default: from `hidden` of the architecture.
//!         units: Option<usize> = None, in 1..;
//!     }
//! }
//!
//! struct Layer(Linear);
//!
//! impl LocalLayer for Layer {
//!     // This is enough: the default `learn` uses autograd within this layer.
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
//! A layer or goodness with [`graph`](crate::LocalLayer::graph) can be exported.
//!
//! # A layer that is fast
//!
//! Measure first: `onward bench progressive,layer=smooth progressive` prints the time
//! of a step of both networks, and the share of the machine's best speed that their
//! matrix products reach. A layer with a far lower share than the built-in one loses
//! its time in one of these places:
//!
//! - *A gradient that is not used.* A layer needs the gradient of its weights. Candle's
//!   `matmul` and `conv2d` also compute that of the input, a third product of the same size.
//! - *Element-wise operations.* Candle's run on one thread, and going back through one
//!   takes several passes over memory.
//! - *Candle's convolution and pooling*, which are slow on a CPU.
//! - *Waiting for a GPU*: `to_vec1`, `to_scalar` and the like.
//!
//! These blocks are fast, and candle's autograd goes back through them:
//!
//! | instead of candle's | use |
//! |---|---|
//! | `matmul`, `linear` | [`kernels::matmul`](crate::kernels::matmul()) |
//! | `conv2d`, `max_pool2d` | [`conv2d`](crate::modules::conv::conv2d) |
//! | `relu` | [`kernels::leaky_relu`](crate::kernels::leaky_relu()) |
//! | `(y * gradient)?.sum_all()?.backward()` | [`kernels::backward`](crate::kernels::backward()) |
//!
//! A step of a layer made of them takes 1.3 to 2.5 times as long as that of the
//! built-in one of its shape, in candle's own operations 4 to 14 times
//! (`cargo bench --bench step`). A closed form in `learn` gains the rest:
//! [`Linear`](crate::Linear), [`Conv`](crate::Conv) and
//! [`LocallyConnected`](crate::modules::locally_connected::LocallyConnected) have a forward
//! pass and an `update` for a gradient that you compute. The same trials check the layer
//! then.
//!
//! # When a plugin fails
//!
//! If a plugin panics, returns a tensor of a wrong shape, or returns numbers that are not
//! finite, the run ends with an [`Error`](crate::Error) that has the kind, name and
//! package of the plugin. Refuse settings that do not fit together with
//! [`Error::Unfit`](crate::Error::Unfit): what was found, what was expected, what to do.
//!
//! # Names and versions
//!
//! Two linked crates cannot register the same name for the same kind; the error names
//! both crates. A crate that no program mentions is not linked: write `use my_plugins as
//! _;`. `UPDATING.md` says what a new version may change in the traits.
