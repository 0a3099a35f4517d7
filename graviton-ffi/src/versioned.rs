//! Structures that say their own size in front, so that a later version of the library can have longer ones: a program goes on
//! with a library that is newer than its header, and with an older one as long as it asks for nothing that this does not know.

use std::mem::MaybeUninit;

use graviton_core::Result;

use crate::pointer::{check, invalid, null};

/// A structure that says its own size in front, so that a later version can be longer. Fields are only ever added, behind the
/// others, and 0 means what there was before them.
///
/// # Safety
/// `repr(C)`, begins with a `usize`, and is valid for any bytes that a caller may put there, and for zeros.
pub(crate) unsafe trait Versioned: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// How long it was in earlier versions, if it was shorter. To be added to when a field is.
    const EARLIER: &'static [usize] = &[];
}

/// No structure is longer; what says so was not initialised.
const LONGEST: usize = 4096;

/// How long the caller's structure is.
///
/// # Safety
/// Null or misaligned, or points to a structure at least as long as its first field says.
unsafe fn their_size<T: Versioned>(pointer: *const T) -> Result<usize> {
    check(pointer, T::NAME)?;
    // SAFETY: not null, aligned, and it begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    let later = size > size_of::<T>() && size <= LONGEST && size.is_multiple_of(align_of::<T>());
    if later || size == size_of::<T>() || T::EARLIER.contains(&size) {
        return Ok(size);
    }
    Err(invalid(format!(
        "the struct_size of a {} is {size}, and this version knows {}",
        T::NAME,
        size_of::<T>()
    ))
    .with_advice("initialise it with its _INIT macro"))
}

/// A structure from the caller; `None` for null. Of one of an earlier version the rest is 0. Of one of a later version the
/// rest must be 0: what is set there is not known here, and must not be passed over.
///
/// # Safety
/// Null, misaligned, or points to a structure at least as long as its first field says.
pub(crate) unsafe fn versioned<T: Versioned>(pointer: *const T) -> Result<Option<T>> {
    if pointer.is_null() {
        return Ok(None);
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: so many bytes are there by the contract, and any of them and zeros are a value by that of the trait.
    unsafe {
        let size = their_size(pointer)?;
        let known = size.min(size_of::<T>());
        let bytes = pointer.cast::<u8>();
        value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes, known);
        if (known..size).any(|place| bytes.add(place).read() != 0) {
            return Err(invalid(format!("a {} sets what this version does not know", T::NAME)).with_advice(
                "use the library of the header that the program was compiled with, or a later one",
            ));
        }
        Ok(Some(value.assume_init()))
    }
}

/// A structure to be filled in, as far as both sides know it.
pub(crate) struct Report<T> {
    place: *mut T,
    size: usize,
}

/// The place of a structure to be filled in; `None` for null.
///
/// # Safety
/// As [`versioned`], to be written for as long as the result is used.
pub(crate) unsafe fn versioned_out<T: Versioned>(pointer: *mut T) -> Result<Option<Report<T>>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the same contract.
    let size = unsafe { their_size(pointer)? };
    Ok(Some(Report { place: pointer, size }))
}

/// The same for one that must be there.
///
/// # Safety
/// As [`versioned_out`].
pub(crate) unsafe fn versioned_needed<T: Versioned>(pointer: *mut T, name: &str) -> Result<Report<T>> {
    // SAFETY: the same contract.
    unsafe { versioned_out(pointer) }?.ok_or_else(|| null(name))
}

impl<T: Versioned> Report<T> {
    /// All but the size, which stays theirs.
    pub(crate) fn set(self, value: &T) {
        let (size, front) = (self.size.min(size_of::<T>()), size_of::<usize>());
        // SAFETY: checked when it was made, and valid to write by the contract there.
        unsafe {
            let (from, to) = (std::ptr::from_ref(value).cast::<u8>(), self.place.cast::<u8>());
            to.add(front).copy_from_nonoverlapping(from.add(front), size - front);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graviton_core::Code;

    /// As it was in a first version.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Old {
        struct_size: usize,
        number: u32,
        flag: i32,
    }

    /// With what a second one added.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct New {
        struct_size: usize,
        number: u32,
        flag: i32,
        limit: u64,
    }

    // SAFETY: begins with its size, and numbers are valid for any bytes.
    unsafe impl Versioned for Old {
        const NAME: &'static str = "old";
    }

    // SAFETY: as above.
    unsafe impl Versioned for New {
        const NAME: &'static str = "new";
        const EARLIER: &'static [usize] = &[size_of::<Old>()];
    }

    /// A program's structure, as this library reads it.
    fn read<T: Versioned, U>(theirs: &U) -> Result<T> {
        // SAFETY: it is as long as it says, in these tests.
        unsafe { versioned(std::ptr::from_ref(theirs).cast::<T>()) }.map(Option::unwrap)
    }

    /// What the program finds after this library has filled its structure in.
    fn filled<T: Versioned, U>(value: &T, mut theirs: U) -> U {
        // SAFETY: as above.
        let report = unsafe { versioned_out((&raw mut theirs).cast::<T>()) };
        report.unwrap().unwrap().set(value);
        theirs
    }

    #[test]
    fn a_program_that_is_older_than_the_library_gets_what_it_knows_and_defaults_for_the_rest() {
        let old = Old { struct_size: size_of::<Old>(), number: 7, flag: 1 };
        let new = New { struct_size: size_of::<Old>(), number: 7, flag: 1, limit: 0 };
        // What lies behind it is somebody else's.
        assert_eq!(read::<New, _>(&[old, old]).unwrap(), new);
        let report = New { struct_size: size_of::<New>(), number: 8, flag: 0, limit: 9 };
        let expected = Old { struct_size: size_of::<Old>(), number: 8, flag: 0 };
        assert_eq!(filled(&report, [old, old]), [expected, old]);
    }

    #[test]
    fn a_program_that_is_newer_may_not_ask_for_what_the_library_does_not_know() {
        let mut new = New { struct_size: size_of::<New>(), number: 7, flag: 1, limit: 0 };
        assert_eq!(read::<Old, _>(&new).unwrap(), Old { struct_size: size_of::<New>(), number: 7, flag: 1 });
        new.limit = 1 << 63;
        assert_eq!(read::<Old, _>(&new).unwrap_err().code(), Code::InvalidArgument);
        // What it does not know in a report stays as it was.
        let report = Old { struct_size: size_of::<Old>(), number: 8, flag: 0 };
        assert_eq!(filled(&report, new), New { number: 8, flag: 0, ..new });
    }

    #[test]
    fn sizes_that_no_version_has_are_refused() {
        for size in [0, 1, 8, 15, 17, 20, 23, 25, 31, LONGEST + 8, usize::MAX] {
            let theirs = New { struct_size: size, number: 0, flag: 0, limit: 0 };
            assert_eq!(read::<New, _>(&theirs).unwrap_err().code(), Code::InvalidArgument, "{size}");
        }
        // SAFETY: null is for nothing.
        assert!(unsafe { versioned::<New>(std::ptr::null()) }.unwrap().is_none());
    }
}
