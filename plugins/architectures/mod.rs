//! Architectures: who feeds whom, and what is read out.

mod backprop;
mod nlp;
mod progressive;
mod recurrent;
