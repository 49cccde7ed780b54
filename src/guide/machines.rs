#![doc = include_str!("machines.md")]
//!
//! [`RunBuilder::team`]: crate::RunBuilder::team
//! [`run::ranks`]: crate::run::ranks
//! [`Stack`]: crate::wiring::stack::Stack
//! [`Architecture::staged`]: crate::Architecture::staged
