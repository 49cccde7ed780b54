//! Guides: [training], [extending], [understanding],
//! and a [glossary].

pub mod extending;
pub mod glossary;
pub mod training;
pub mod understanding;
