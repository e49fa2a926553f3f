//! What the node says of itself beside being there: what it runs out of, and whether it is going down.

use crate::eviction::pressure::Pressure;

/// The state that its conditions are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// What it runs out of.
    pub pressures: Vec<Pressure>,
    /// It ends its pods and then itself.
    pub is_shutting_down: bool,
}
