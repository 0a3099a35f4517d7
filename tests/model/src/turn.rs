//! A step of one of the small models: its process, its name, and the resulting state.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn<S> {
    /// Empty for a step that concerns every process.
    who: &'static str,
    number: usize,
    what: &'static str,
    pub(crate) to: S,
}

impl<S> Turn<S> {
    pub(crate) fn of(who: &'static str, number: usize, what: &'static str, to: S) -> Turn<S> {
        Turn { who, number, what, to }
    }

    pub(crate) fn of_all(what: &'static str, to: S) -> Turn<S> {
        Turn::of("", 0, what, to)
    }
}

impl<S> fmt::Display for Turn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.who.is_empty() {
            return write!(f, "{}", self.what);
        }
        write!(f, "{} {} {}", self.who, self.number, self.what)
    }
}
