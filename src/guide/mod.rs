//! Guides: [to train](training), [to extend](extending), [to understand](understanding).

pub mod extending;
pub mod glossary;
pub mod training;
pub mod understanding;
