//! Runs of the built-in architectures: training, results, saving, resuming and files.

mod bound;
mod context;
mod embedded;
mod export;
mod folder;
mod framing;
mod golden;
mod idle;
mod initial;
mod layers;
mod locality;
mod mixture;
mod mutated;
mod numbers;
mod patience;
mod presets;
mod probe;
mod ranks;
mod recurrent;
mod recurrent_maps;
mod refused_ranks;
mod shallow;
mod text;
mod training;
