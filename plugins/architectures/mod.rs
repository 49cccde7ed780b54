//! Architectures: the wiring of blocks and the readouts.

mod backprop;
mod nlp;
mod progressive;
mod recurrent;
