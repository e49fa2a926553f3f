//! A set of paths, as a tree: what two paths have in common stands once.

use std::collections::BTreeMap;

use super::Element;

/// A set of paths. A path's ancestors are in the set only if they were put there: owning `.spec.replicas` is not owning
/// `.spec`. Iterates in the order of [`Element`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    nodes: BTreeMap<Element, Node>,
}

/// What a set holds at a place: the place itself, and what is below it. A set keeps no empty ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) member: bool,
    pub(super) below: FieldSet,
}

impl Node {
    /// The place alone.
    pub(super) fn leaf() -> Self {
        Self { member: true, below: FieldSet::default() }
    }

    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    /// Whether there is no path in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a path; the empty one is no field.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((last, ancestors)) = path.split_last() else { return };
        let mut set = self;
        for element in ancestors {
            set = &mut set.nodes.entry(element.clone()).or_default().below;
        }
        set.nodes.entry(last.clone()).or_default().member = true;
    }

    /// Whether the path itself is in the set.
    pub fn contains(&self, path: &[Element]) -> bool {
        let Some((last, ancestors)) = path.split_last() else { return false };
        let mut set = self;
        for element in ancestors {
            match set.nodes.get(element) {
                Some(node) => set = &node.below,
                None => return false,
            }
        }
        set.nodes.get(last).is_some_and(|node| node.member)
    }

    /// Every path, an ancestor before what is below it.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            if node.member {
                paths.push(prefix.clone());
            }
            node.below.collect_paths(prefix, paths);
            prefix.pop();
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.add(other);
        self
    }

    /// Adds what is in the other.
    pub fn add(&mut self, other: &Self) {
        for (element, node) in &other.nodes {
            match self.nodes.get_mut(element) {
                Some(own) => {
                    own.member |= node.member;
                    own.below.add(&node.below);
                }
                None => drop(self.nodes.insert(element.clone(), node.clone())),
            }
        }
    }

    /// What is in this one and not in the other. A path of the other takes nothing from what is below it.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    /// Takes out what is in the other.
    pub fn subtract(&mut self, other: &Self) {
        for (element, node) in &other.nodes {
            let Some(own) = self.nodes.get_mut(element) else { continue };
            own.member &= !node.member;
            own.below.subtract(&node.below);
            if own.is_empty() {
                self.nodes.remove(element);
            }
        }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let common = self.nodes.iter().filter_map(|(element, node)| {
            let theirs = other.nodes.get(element)?;
            let both = Node { member: node.member && theirs.member, below: node.below.intersection(&theirs.below) };
            (!both.is_empty()).then(|| (element.clone(), both))
        });
        Self { nodes: common.collect() }
    }

    /// Puts a node at a place where nothing is yet; an empty one is left out.
    pub(super) fn put(&mut self, element: Element, node: Node) {
        if !node.is_empty() {
            self.nodes.insert(element, node);
        }
    }

    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.nodes.get(element)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Element, &Node)> {
        self.nodes.iter()
    }
}

impl FromIterator<(Element, Node)> for FieldSet {
    fn from_iter<I: IntoIterator<Item = (Element, Node)>>(nodes: I) -> Self {
        Self { nodes: nodes.into_iter().filter(|(_, node)| !node.is_empty()).collect() }
    }
}
