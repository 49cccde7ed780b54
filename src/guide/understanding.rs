//! Understanding: the path of a batch, what local means, and where the code is.
//!
//! # The path of a batch
//!
//! ```text
//! data set → Batch → NegativeSampler → Views → block 1 → Input → block 2 → … → readout → scores
//!                                              │
//!                                              a block: LocalLayer + GoodnessFn + Loss + Optimiser
//! ```
//!
//! 1. The trainer cuts a [`Batch`](crate::Batch) from the data set.
//! 2. The sampler makes *views* of every example: positive views, which a layer should
//!    find good, and negative views, which it should not. They are one
//!    [`Input`](crate::Input) with [`Targets`](crate::Targets), together
//!    [`Views`](crate::Views).
//! 3. The layer of block 1 computes the *activity* `a` of all views. The goodness
//!    function measures its goodness `g(a)`, and the loss grades that, for example
//!    `log(1 + e^(θ − g))` for a positive view ([`Block::grade`](crate::Block::grade)).
//! 4. The layer gets the gradient of the loss with respect to `a` and changes its own
//!    variables with its own optimiser ([`Block::follow`](crate::Block::follow)).
//! 5. The activity, detached and normalised, is the input of block 2
//!    ([`Block::pass_on`](crate::Block::pass_on)). Normalised, because block 2 could
//!    otherwise read the goodness from the length of its input.
//!
//! A [`Stack`](crate::wiring::stack::Stack) computes the activities of a few blocks (3
//! and 5) and then lets these blocks learn at the same time (4).
//!
//! A prediction comes from a *readout*. *Search* puts every label into the input and sums
//! the goodness. A *head* is a softmax of the activities; no gradient of it reaches a
//! block. *Goodness* sums scores per class, for a goodness that has them.
//!
//! # What local means here
//!
//! A step of one block changes no variable of another block. What a block learns does not
//! depend on whether other blocks learn in the same step. This holds by construction: the
//! input of a block is detached, and an optimiser refuses variables of another block. The
//! trial `local run` of [`conformance`](crate::conformance) also compares the bits, for
//! every architecture, layer, goodness and sampler.
//!
//! In three built-in architectures a signal does come back from a layer to one below it:
//! a gradient crosses one layer in `trifecta`, the goodness of the other layers is in the
//! loss of `layer_collaboration`, and `backprop` is one block with a whole network in it.
//! `onward certify` measures this for any rule.
//!
//! # Where the code is
//!
//! | room | owns |
//! |---|---|
//! | [`contract`](crate::contract) | the four traits; block, head, loss |
//! | [`flow`](crate::flow) | batch, input, views, targets, step, variables |
//! | [`wiring`](crate::wiring) | the stack: chains of blocks, shortcuts, order |
//! | [`modules`](crate::modules) | parts of layers: linear, convolution, local fields |
//! | [`optim`](crate::optim) | optimisers, schedules, the update of a variable |
//! | [`kernels`](crate::kernels) | matrix products and element-wise passes |
//! | [`settings`](mod@crate::settings) | the settings of a plugin |
//! | [`plugin`](crate::plugin) | registry, configuration, checks around plugins |
//! | [`data`](crate::data) | data sets, file formats, text and tokenizers |
//! | [`run`](crate::run) | trainer, evaluation, checkpoints, observers |
//! | [`conformance`](crate::conformance) | trials for plugins |
//!
//! Rules are an open set: any crate adds some. Losses and optimisers are a closed set.
//!
//! # Why a run repeats itself
//!
//! There is no generator whose state has to be saved. All random numbers are drawn from
//! `(seed, purpose, index)`, where the index is a step or an epoch, so a resumed run
//! draws the numbers that it would have drawn. Work is divided among threads by rows,
//! never within a sum, so the number of threads changes no bit.
//!
//! # Why it is fast
//!
//! - Autograd also computes the gradient of the input, which no other layer needs. The
//!   built-in layers compute the gradient of their weights in closed form: one product
//!   forward, one product for the update, which includes the momentum.
//! - Views share their pixels, so the product of layer 1 is computed once for all views.
//! - Late in training the loss of most views is flat, and their rows of the gradient are
//!   zero. The product skips such rows.
//! - Layers do not wait for each other's update, so several learn at the same time.
//!
//! # Further reading
//!
//! Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations", 2022
//! (<https://arxiv.org/abs/2212.13345>). `onward list` cites the paper of every plugin.
