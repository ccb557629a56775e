//! An interner: one copy of a value that many objects share, such as the labels of a DaemonSet's pods.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashSet;

/// The shared values. Those that nothing else refers to any more are dropped from time to time, when a value is added.
#[derive(Debug)]
pub struct Interner<T: ?Sized> {
    values: HashSet<Arc<T>>,
    sweep_at: usize,
}

/// The number of values below which unused ones are not dropped.
const SMALL: usize = 1024;

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: SMALL }
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// Returns the shared copy of `value`, and makes it if there is none.
    pub fn intern<'v, Q>(&mut self, value: &'v Q) -> Arc<T>
    where
        Q: ?Sized + Eq + Hash,
        Arc<T>: Borrow<Q> + From<&'v Q>,
    {
        if let Some(shared) = self.values.get(value) {
            return shared.clone();
        }
        self.insert(value.into())
    }

    /// Returns the shared copy of `value`, which is cloned only if there is none.
    pub fn intern_cloned(&mut self, value: &T) -> Arc<T>
    where
        T: Clone,
    {
        match self.values.get(value) {
            Some(shared) => shared.clone(),
            None => self.insert(Arc::new(value.clone())),
        }
    }

    fn insert(&mut self, shared: Arc<T>) -> Arc<T> {
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = (self.values.len() * 2).max(SMALL);
        }
        self.values.insert(shared.clone());
        shared
    }
}
