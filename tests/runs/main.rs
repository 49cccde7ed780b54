//! Runs of the built-in architectures: training, results, saving and resuming, files of
//! all kinds.

mod golden;
mod mutated;
mod recurrent;
mod text;
mod training;
