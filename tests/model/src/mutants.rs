//! The mutants of each model: rules that are left out, which its bounds must catch.

/// Declares a model's `Mutant`, and `MUTANTS`: each mutant, the bounds that catch it, and a description.
macro_rules! mutants {
    ($($mutant:ident $bounds:literal $what:literal,)*) => {
        /// A rule that is left out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Mutant { $($mutant,)* }

        /// Every mutant, the bounds that catch it, and a description.
        pub(crate) const MUTANTS: &[(Mutant, &str, &str)] = &[$((Mutant::$mutant, $bounds, $what),)*];
    };
}

pub(crate) use mutants;
