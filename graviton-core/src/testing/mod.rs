//! Tests for backends.
