//! What the node says of itself beside being there: what it runs out of, which images it has, and whether it is going down.

use crate::eviction::pressure::Pressure;
use crate::image_gc::shown::Shown;

/// The state that its status is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// What it runs out of.
    pub pressures: Vec<Pressure>,
    /// It ends its pods and then itself.
    pub is_shutting_down: bool,
    /// The largest images on it.
    pub images: Vec<Shown>,
}
