//! Rules that are more than a goodness: each file has all that its rule needs.

mod forward_projection;
mod layer_collaboration;
mod pepita;
mod scff;
mod sigprop;
mod softhebb;
mod trifecta;
