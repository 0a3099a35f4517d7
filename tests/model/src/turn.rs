//! A step of one of the small models: who takes it, what it is called, and the state that it leads to.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn<S> {
    /// Empty for what happens to everybody.
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
