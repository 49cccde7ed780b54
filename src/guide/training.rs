//! Training: choose an architecture, change settings, read the result.
//!
//! # From the command line
//!
//! ```sh
//! onward list                             # all plugins
//! onward show progressive                 # its settings, their defaults and ranges
//! onward train progressive --data mnist --set 'hidden=[2000,2000]' --seed 1 --out my-run
//! onward resume my-run                    # after Ctrl-C or a crash
//! onward evaluate my-run
//! onward evaluate my-run --data folder:new-photos --split all
//! onward predict my-run photo-of-a-seven.jpg
//! onward picture my-run --out my-run.png  # examples, views, features of the first layer
//! onward export my-run --out net.onnx     # the network for other programs
//! onward tokenize book.txt --kind bpe --vocab 1000 --out tokenizer.json
//! onward train nlp --data text:book.txt --set tokenizer=tokenizer.json --out my-text
//! onward generate my-text --prompt "The fox " --tokens 200
//! ```
//!
//! # Data of your own
//!
//! - `--data folder:DIR`: pictures as `DIR/<class>/<picture>`, or in parts as
//!   `DIR/train/<class>/…`, `DIR/test/…` and, if you like, `DIR/val/…`.
//! - `--data idx:DIR`: the files of MNIST by their names, plain or packed (`.gz`):
//!   `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`,
//!   `t10k-labels-idx1-ubyte`.
//! - `--data mnist`, `fashion-mnist`, `cifar-10`: the files in a folder of this name in
//!   `--data-dir DIR` or `$ONWARD_DATA`, or a download with the feature `hub`.
//! - `--data text:FILE`: one text, or with `data.validation` and `data.test` three.
//! - Any other form: a plugin, as in `examples/07_new_data.rs`.
//!
//! `onward show folder` says how the parts are divided, and how pictures are resized.
//!
//! # Watching a run
//!
//! Every epoch and every evaluation is a line of `metrics.jsonl`: losses, goodness of
//! both views, learning rates, errors by readout. `--log csv` also writes them as a
//! table, `metrics.csv`; `--log tensorboard` as events, which
//! `tensorboard --logdir runs` shows. `--set evaluate_training=1000` also evaluates 1000
//! training examples, and `--set evaluate_all_every=5` every
//! fifth epoch by the slow readouts too. `--tui` shows curves in the terminal, in a
//! program that was built with `--features tui`. `--until N` stops after N epochs;
//! `onward resume` continues the run.
//!
//! # Many runs
//!
//! ```sh
//! onward compare progressive progressive:predsim,dropout=0.2 --data mnist --seeds 1..3 --epochs 10
//! onward compare progressive backprop --data mnist --multiply-adds 5e12   # or --minutes 10
//! onward sweep progressive --data mnist --grid lr=0.01,0.03 --grid layer.dropout=0,0.1 --epochs 10
//! onward sweep progressive --data mnist --random 27 --range lr=0.001..0.1 --epochs 27 --halving
//! onward evaluate my-run --layers         # a probe on each layer
//! onward page my-run other-run            # one HTML file: curves, layers, predictions, pictures
//! onward plot my-run --out plots          # the same charts as files, SVG or PNG
//! onward certify progressive --data mnist # measured: does a signal come back to a block?
//! onward bench progressive                # time of a step, and its share of the best product
//! ```
//!
//! `compare` trains every method on every data set with every seed, each run in a
//! process of its own, and writes one table: validation and test, the class of the
//! rule, time, memory, energy where the machine tells it, and the multiply-adds (MACs) of
//! training for one example. Backpropagation, with one
//! classifier or with one for each layer, and layers that stay random are in every
//! table. With `--epochs`, `--minutes` or `--multiply-adds` all runs have the same budget;
//! without one, each has the epochs of its preset. A method is
//! `ARCHITECTURE:PRESET,KEY=VALUE,…`. A method that fails is a row with its reason.
//! After an interruption, run the same command again to continue. With `--jobs 4` four
//! small runs are trained at a time.
//!
//! `sweep` varies the settings of one method, chooses by the validation part, and shows
//! the test result of the best one alone. With `--halving` all combinations train for a
//! few epochs, the best third of them for three times as many, and so on.
//!
//! `certify` changes the variables of one block after the other, and compares bit by bit
//! what that changes in the update of the others
//! ([`RunBuilder::certify`](crate::RunBuilder::certify)).
//!
//! # Starting from weights
//!
//! `--set init=RUN`, or a file of safetensors, sets every variable that has the same
//! name; the others stay random. A model that was changed elsewhere comes back this way:
//! the names and shapes are those of `model.safetensors`, as any program for that format
//! shows them, without its metadata (the header's key `onward`).
//!
//! # From Rust
//!
//! A [`Run`](crate::Run) does the same. [`set`](crate::RunBuilder::set) takes the keys
//! that `--set` takes. Plugins of another crate are found once the program has
//! `use that_crate as _;`.
//!
//! ```
//! use onward::run::observe::Event;
//! use onward::Run;
//!
//! let mut run = Run::builder("progressive")
//!     .data("digits")
//!     .set("hidden", vec![60])
//!     .set("layer", "dense")
//!     .set("layer.dropout", 0.1)
//!     .set("epochs", 2)
//!     .build()?;
//!
//! // Any closure can watch a run. It cannot change it.
//! let mut losses = Vec::new();
//! let mut watch = |event: &Event<'_>| {
//!     if let Event::EpochEnded { reports, .. } = event {
//!         losses.push(reports[0].1.loss);
//!     }
//! };
//! let summary = run.fit(&mut watch)?;
//! assert_eq!(losses.len(), 2);
//! assert!(losses[1] < losses[0]);
//!
//! // Scores of new examples: here the first two of the test part.
//! let batch = run.data().test.batch(&[0, 1], None)?;
//! let scores = run.scores(batch.examples().clone(), &summary.test.readout)?;
//! assert_eq!(scores.dims(), [2, 10]);
//! # Ok::<(), onward::Error>(())
//! ```
//!
//! # From Python
//!
//! The package `onward` has the program and the library:
//! `onward.train("progressive", data="mnist")`, or
//! `onward.train("progressive", (x, y))` with arrays; scores, activities and weights
//! come back as arrays. Goodness functions, layers, samplers and data sets can be
//! written in Python. See `python/README.md`.
//!
//! # Products in bfloat16
//!
//! `--set precision=bf16` rounds the numbers of matrix products to 7 bits after the
//! point; sums, weights and updates keep 32 bits. On a CPU with AMX (Intel's Xeon since
//! 2023), where Linux permits its use, it is about twice as fast as `f32`;
//! `BENCHMARKS.md` has the figures, `RESULTS.md` the errors. A CPU with AVX-512 BF16
//! but without AMX, such as AMD's Zen 4, does the same with other bits; whether it is
//! faster there, `onward bench` says. Other CPUs refuse to train so, and use a trained
//! run in 32 bits. All runs of a process share it: while one trains, a run of another
//! precision is refused.
//!
//! # On a GPU
//!
//! `--device cuda` trains on a GPU, `--device auto` on one if there is one.
//! `--set precision=tf32` rounds the numbers of matrix products to 10 bits after the
//! point, `bf16` to 7. On MNIST `tf32` changes errors less than another seed does;
//! `RESULTS.md` has both. `bf16` pays for batches of some thousands, `tf32` for all.
//! The bits of a run repeat on one kind of card, and differ from those of the CPU.
//!
//! # Which value of a setting is used
//!
//! Every setting has a default. The sources below override it; a later source overrides
//! earlier ones:
//!
//! 1. the first preset of the architecture;
//! 2. what the chosen goodness needs: its first preset (`onward show predsim`: loss,
//!    sampler, optimiser);
//! 3. what the data set suggests (`onward show digits`: 12 epochs);
//! 4. the preset of `--preset NAME`, instead of 1 and above 3; `none` is no preset.
//!    Without it the data are looked at, and a line says what was chosen:
//!    `convolutional` for colour photographs; `book` for `text:FILE` of less than
//!    half a megabyte, else `corpus`, or `characters` with `tokenizer = "char"`. Settings
//!    that choose another network (`layer`, `goodness`, `sampler`, or `hidden` with another
//!    number of layers) turn this off.
//!    Colour photographs of `folder:` are read in colour, 32×32 pixels, with every preset,
//!    so that methods can be compared; `data.colour`, `data.height` and `data.width` set
//!    others;
//! 5. a file (`--config`);
//! 6. `--data`, `--epochs` and `--seed`;
//! 7. `--set`; of two values of one key, the last one is used. What has a flag is given
//!    by its flag or by `--set`, not by both.
//!
//! All settings are checked before anything is built. A value out of its range, or a
//! setting that does not exist, is an [`Error`](crate::Error) with the key, its source,
//! and the values that are allowed. The result is written to `config.toml` in the folder
//! of the run, and repeats the run.
//!
//! The checkpoints of a run have its settings, too. If `config.toml` is edited
//! afterwards, `resume`, `evaluate` and `predict` refuse it and name the setting. To
//! change one on purpose: `onward resume RUN --set lr=0.001`.
//!
//! # How to read a result
//!
//! The readout with the lowest validation error is the one whose test error is reported,
//! unless the setting `readout` names another one.
//! The test part is used once, at the end. Results repeat bit for bit with the same seed,
//! version and kind of processor, at any number of threads. So a difference between two
//! runs comes from their settings; whether a setting helps needs several seeds.
//! [`Summary::labels`](crate::Summary) says whether labels reached a layer.
//!
//! # Text: the network, counts, and both
//!
//! At the end of a training on text, these predictions stand side by side in the table,
//! in `summary.json` and in `onward score`:
//!
//! - the readouts of the network, such as *head*;
//! - `unigram`, the frequencies of the tokens;
//! - `kneser_ney_6`, n-grams of up to `data.ngram` tokens that were counted on the
//!   training part;
//! - `kneser_ney_6_adaptive`, the same n-grams, which go on counting in the text that
//!   they read: each token is predicted first, then counted. They know a new name after
//!   its first occurrence. See [`Reader`](crate::data::text::ngram::Reader);
//! - *mixture*, the best readout of the network mixed with the n-grams. It sees the
//!   window alone, so `data.window` should be at least `data.ngram` − 1;
//! - *adaptive*, the same with the n-grams that go on counting. It sees all of the text
//!   before the token.
//!
//! A mixture weighs the network and the counts by how much the counts know of the
//! context. It learns the weights on the validation part, never on the test part, so
//! its validation figure is a little too good. See
//! [`Mixture`](crate::data::text::mixture::Mixture) for the equation. *adaptive* and
//! `kneser_ney_6_adaptive` learn from the test text while they read it; compare them
//! with other models that do. In a single file the validation part consists of several
//! stretches, and counting starts again in each. So the weights of *adaptive* suit the
//! beginning of a text better than the end of a long one.
//!
//! `generate` with *adaptive* counts in the prompt, not in what it writes. `compare`
//! and `sweep` leave the mixtures out, since the counts are the same for all methods.
//!
//! The n-grams are a part of `model.safetensors` (3.8 MB for a text of 1.1 MB), so that
//! the mixtures need no training text later. `onward generate --readout head` writes
//! without them; with `--set mixture=false` they are counted for comparison alone.
//!
//! `onward train nlp --data text:tinyshakespeare.txt` takes a minute on two cores (2.131
//! bits per character on held-out text, *mixture* 2.107, *adaptive* 1.990). After
//! `--prompt ROMEO: --temperature 0.8` it begins like this, by the network alone
//! (`--readout head`), and by *adaptive*:
//!
//! ```text
//! ROMEO:
//! O, he is, my lord.
//!
//! MENENIUS:
//! upon youth, and reign,
//! And painted for some enemy a goodly gling a tabour of this?
//!
//! First Servingman:
//! The duke is something objects.
//! ```
//!
//! ```text
//! ROMEO:
//! O, let me see the writing.
//!
//! Nay, then, let's see
//! To brave Green, you
//! will no subjects, to make me assurance.
//!
//! CAMILLO:
//! I will not fall; not the duke.
//!
//! First Citizen:
//! How now, nurse, weeping up,
//! Although abroad;
//! ```
//!
//! # Long texts, many tokens
//!
//! In a vocabulary of more than 2048 tokens, the presets `book` and `corpus` compare
//! the tokens that follow the windows of a step with only 1024 others: half of these
//! are the most frequent ones, half are drawn at random
//! ([`SampledClasses`](crate::flow::sampled_classes::SampledClasses)). The losses that
//! are shown are those of this comparison. `--set samples=N` sets the number, 0 stands
//! for all. Evaluation and `generate` always compare all tokens, so bits per character
//! are exact.
//!
//! Each place of a window has a row of weights for every token in the first layer, so
//! windows of many tokens need much memory. A text of half a megabyte and more gets
//! windows of 6 byte pairs or words, or of 20 characters, if no other network is chosen.
//!
//! A text for which there is too little memory is kept in a temporary file in the cache
//! folder, and so are its tokens. A note says so; the bits are those of a training in
//! memory. The order of the examples stays in memory, four bytes for each, and so do the
//! counts of n-grams. For English in byte pairs or words, the counts take 12 times the size
//! of the text, and 6 times more for each token that `data.ngram` has above 6; in
//! characters less. A text whose counts would not fit is refused before the training.
//! `--set data.ngram_least=2` leaves out the n-grams that occur once, which are most of
//! them: the counts then take 2.5 times the size of the text. On WikiText-2 with 4096 byte
//! pairs they have 5 instead of 32 MB in the run, and 1.547 instead of 1.529 bits per
//! character. `onward train nlp --data text:FILE --dry-run` says how much the first steps
//! need and how long a training takes.
//!
//! # More images than memory
//!
//! Images of `idx:DIR` in plain files that would take more than half of the free memory
//! stay there: each batch is read when it is its turn, in the order that the seed gives,
//! so the bits are those of a training in memory. Packed files (`.gz`) must be unpacked
//! first. Pictures of `folder:DIR` are decoded once, into a temporary file in the cache
//! folder. A note says so.
//!
//! # If it does not learn
//!
//! - *The loss does not fall, or positive and negative goodness stay equal.* The
//!   threshold is far from the goodness. Leave `theta` unset, or raise `temperature`.
//! - *The loss became NaN.* Lower `lr`, or raise `temperature`.
//! - *The head is good, the search is bad.* The layers find features but no labels. Check
//!   that the input has a label (`sampler = "label_overlay"`).
//! - *The error stops falling.* `schedule` lowers the rate towards the last epoch. Train
//!   again with more epochs, or continue with `onward resume RUN --epochs N`. With
//!   `patience = N` a run ends by itself after N epochs without a better validation.
