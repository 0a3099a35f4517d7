//! Scopes: the permissions of a token.

use std::sync::Arc;

/// The scopes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Read and list blobs and blocks, and see statistics and metrics.
    Read,
    /// Put blobs and blocks.
    Write,
    /// Delete and restore blobs.
    Delete,
    /// Collect and verify.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 4] = [Scope::Read, Scope::Write, Scope::Delete, Scope::Admin];

    /// Its name in token files and JSON Web Tokens.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Delete => "delete",
            Scope::Admin => "admin",
        }
    }

    /// The scope of this name.
    pub(super) fn named(word: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.name() == word)
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub fn all() -> Scopes {
        Scope::ALL.into_iter().fold(Scopes::default(), Scopes::with)
    }

    /// The set with this scope added.
    #[must_use]
    pub fn with(self, scope: Scope) -> Scopes {
        Scopes(self.0 | 1 << scope as u8)
    }

    /// Whether the set has this scope.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }

    /// Parses names separated by commas or spaces; `None` if one is unknown.
    pub fn parse(text: &str) -> Option<Scopes> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        words
            .map(Scope::named)
            .try_fold(Scopes::default(), |scopes, scope| scope.map(|scope| scopes.with(scope)))
    }
}

/// The name and the scopes that a valid credential grants.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) name: Arc<str>,
    pub(super) scopes: Scopes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_words() {
        let some = Scopes::parse("read,write").unwrap();
        assert!(some.has(Scope::Read) && some.has(Scope::Write) && !some.has(Scope::Delete));
        assert_eq!(Scopes::parse("read write delete admin"), Some(Scopes::all()));
        assert_eq!(Scopes::parse("read,root"), None);
        assert_eq!(Scopes::parse(""), Some(Scopes::default()));
    }
}
