#![doc = include_str!("training.md")]
//!
//! [`RunBuilder::certify`]: crate::RunBuilder::certify
//! [`Run`]: crate::Run
//! [`set`]: crate::RunBuilder::set
//! [`Error`]: crate::Error
//! [`Summary::labels`]: crate::Summary
//! [`Reader`]: crate::data::text::ngram::Reader
//! [`Mixture`]: crate::data::text::mixture::Mixture
//! [`SampledClasses`]: crate::flow::sampled_classes::SampledClasses
