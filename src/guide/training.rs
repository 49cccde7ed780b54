//! I want to train: name what there is, set what differs, look at what came of it.
//!
//! # By the program
//!
//! ```sh
//! onward list                                    # what can be named
//! onward show progressive                        # its settings, their defaults and ranges
//! onward train progressive --data mnist --set 'hidden=[2000,2000]' --seed 1 --out my-run
//! onward resume my-run                           # if it was stopped, or killed
//! onward evaluate my-run
//! onward predict my-run photo-of-a-seven.jpg
//! onward picture my-run --out my-run.png         # examples, their views, features of the first layer
//! onward tokenize book.txt --kind bpe --vocab 1000 --out tokenizer.json
//! onward train nlp --data text:book.txt --set tokenizer=tokenizer.json --out my-text
//! onward generate my-text --prompt "The fox " --tokens 200
//! ```
//!
//! # From Rust
//!
//! A [`Run`](crate::Run) is the same thing; the keys that `--set` takes, [`set`](crate::RunBuilder::set) takes. A program
//! links the plugins that it names with `use the_plugins as _;`.
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
//! // Any closure can watch; it cannot disturb.
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
//! // Scores of examples that nobody has seen: here the first two of the test part.
//! let batch = run.data().test.batch(&[0, 1], None)?;
//! let scores = run.scores(batch.examples().clone(), &summary.test.readout)?;
//! assert_eq!(scores.dims(), [2, 10]);
//! # Ok::<(), onward::Error>(())
//! ```
//!
//! # What wins
//!
//! A setting has its default. Above it stands the architecture's first preset, then what the data set suggests for itself
//! (`onward show digits`: 12 epochs); or, above both, the preset that `--preset NAME` asks for, `none` for no preset.
//! Then come a file (`--config`) and what is set by itself (`--data`, `--epochs`, `--set`), the last one first. All of it is
//! checked before anything is built: a value out of its range, or a setting that does not exist, is an
//! [`Error`](crate::Error) with the key, where it came from, and what would be right. The complete result is written to
//! the run's `config.toml`, which repeats the run.
//!
//! # What a number is worth
//!
//! The readout that the validation part prefers is the one whose test error is reported; the test part is looked at once.
//! The same seed gives the same bits, at any number of threads, on the same kind of processor and by the same version; so
//! a difference between two runs is one of their settings, and a difference between two settings is to be seen over
//! several seeds. [`Summary::labels`](crate::Summary) says whether any label has reached a layer.
//!
//! # If it does not learn
//!
//! - *The loss stays where it began, or the goodness of both kinds of views stays the same.* The threshold is far from
//!   the goodness: leave `theta` unset, or raise `temperature`.
//! - *`the loss became NaN`.* Lower `lr`, or raise `temperature`.
//! - *The head is good, the search is bad.* The layers find features, but not labels: is a label in the input at all
//!   (`sampler = "label_overlay"`), and are the negatives hard?
//! - *It learns, then stops.* `schedule` falls with the epochs: give it more of them, rather than resuming at the end.
