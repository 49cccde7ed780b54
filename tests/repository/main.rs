//! The repository: rooms, dependencies and documents.

mod dependencies;
mod documents;
mod structure;
