//! Guides: [training], [extending], [understanding], [several machines](machines), and a
//! [glossary].

pub mod extending;
pub mod glossary;
pub mod machines;
pub mod training;
pub mod understanding;
