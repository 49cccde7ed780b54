//! I want to understand: the way of the data, what is local about it, and where to read on.
//!
//! # The way of the data
//!
//! ```text
//! data set ─▶ Batch ─▶ NegativeSampler ─▶ Views ─▶ block 1 ─▶ Input ─▶ block 2 ─▶ … ─▶ readout ─▶ scores
//!                                         positive, negative   │
//!                                         (neutral: for heads) a block: LocalLayer + GoodnessFn + Loss + Optimiser
//! ```
//!
//! One direction. A sampler makes several *views* of every example: a positive one that a layer should find good, a
//! negative one that it should not. A [`Block`](crate::Block) lets its layer compute an *activity* `a`, asks its goodness
//! function how good that is, `g(a)`, grades that with its loss, say `log(1 + e^−(g − θ))` for a positive view, and gives
//! the layer the gradient of the loss with respect to `a`. There it ends: the layer changes its own variables, and passes
//! `a` on, detached and normalised, so that the next layer cannot read the goodness off its length.
//!
//! A prediction is read out by trying every label and summing the goodness (*search*), or by a softmax upon the activities
//! (*head*), which reaches no block.
//!
//! # What is local, and how one knows
//!
//! A step of one block changes no variable of another, and what it learns does not depend on whether the others learn in
//! the same step. That is not left to good will: what a block passes on is detached, its optimiser may change the
//! variables below its own place only, all views of a step see the weights from before the step, and the trial `local
//! run` of [`conformance`](crate::conformance) compares bits, for every architecture, layer, goodness and sampler.
//!
//! # Who owns what
//!
//! | file                                                                    | owns                                      |
//! |-------------------------------------------------------------------------|-------------------------------------------|
//! | [`config`](crate::plugin::config)                                               | defaults, then preset, file, `key=value`  |
//! | [`registry`](crate::plugin::registry), [`settings`](mod@crate::settings)        | names, and what can be set                |
//! | [`run`](crate::run) and the trainer                                     | epochs, batches, events, checkpoints      |
//! | [`architecture`](crate::contract::architecture), [`stack`](crate::wiring::stack)          | who feeds whom                            |
//! | [`block`](crate::contract::block), [`loss`](crate::contract::loss), [`optim`](crate::optim) | one step of one layer                     |
//! | [`views`](crate::flow::views), [`input`](crate::flow::input)                        | what enters; shared parts are multiplied once |
//! | [`seed`](crate::flow::step), [`vars`](crate::flow::vars)                            | everything random, everything learned     |
//! | [`ops`](crate::kernels), [`linear`](crate::modules::linear)                          | candle's operations, and the same in one pass |
//!
//! The trainer knows no rule, no layer and no data set; an architecture knows no rule. Methods are an open set, of
//! plugins; losses and optimisers are a closed one, of data.
//!
//! # Why a run repeats itself
//!
//! There is no generator whose state would have to be saved. Everything random is drawn from `(seed, purpose, step)`, so
//! that a run which goes on from a checkpoint draws what it would have drawn; work is divided among threads by rows and
//! never within a sum, so that their number does not matter.
//!
//! # Why it is fast
//!
//! Autograd finds the gradient of the input as well, only for it to be thrown away. The built-in layers take the gradient
//! with respect to the activity, which is cheap, and form that of their weights in closed form: one product forward, one
//! for the update, and the momentum is part of it. The loss of a view that is far on the right side of the threshold is flat
//! to the last bit; its row of the gradient is zero, and the product leaves it out, which late in a training may be most rows.
//! No layer waits for the lesson of another, so several learn at a time.
//!
//! # To read on
//!
//! Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", 2022 (<https://arxiv.org/abs/2212.13345>).
//! Every plugin cites its paper: `onward list`.
