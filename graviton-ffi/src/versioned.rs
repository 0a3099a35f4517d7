//! Structures that begin with their own size, so that they can grow in a later version of the library. A
//! program keeps working with a library that is newer than its header, and with an older one as long as it
//! uses nothing that the older one does not know.

use std::mem::MaybeUninit;

use graviton_core::Result;

use crate::pointer::{check, invalid, null};

/// A structure that begins with its own size, so that it can grow in a later version. New fields are only
/// added at the end, and 0 in them means the behaviour before them.
///
/// # Safety
/// The type is `repr(C)`, begins with a `usize`, and is valid for any bytes that a caller may put there, and
/// for zeros.
pub(crate) unsafe trait Versioned: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Its sizes in earlier versions, where it was shorter. Add the old size here when a field is added.
    const EARLIER: &'static [usize] = &[];
}

/// No structure is longer than this; a larger size means that the structure was not initialised.
const LONGEST: usize = 4096;

/// The size of the caller's structure.
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

/// A structure from the caller; `None` for null. If it is of an earlier version, the missing fields are 0. If
/// it is of a later version, its extra bytes must be 0: a value there is unknown here, and must not be
/// ignored.
///
/// # Safety
/// Null, misaligned, or points to a structure at least as long as its first field says.
pub(crate) unsafe fn versioned<T: Versioned>(pointer: *const T) -> Result<Option<T>> {
    if pointer.is_null() {
        return Ok(None);
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the pointer has this many bytes by the contract, and any bytes and zeros are a value by the
    // trait's contract.
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

/// The destination of a structure to be filled in; `None` for null.
///
/// # Safety
/// As [`versioned`], and valid to write for as long as the result is used.
pub(crate) unsafe fn versioned_out<T: Versioned>(pointer: *mut T) -> Result<Option<Report<T>>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the same contract.
    let size = unsafe { their_size(pointer)? };
    Ok(Some(Report { place: pointer, size }))
}

/// Like [`versioned_out`], for a structure that is required.
///
/// # Safety
/// As [`versioned_out`].
pub(crate) unsafe fn versioned_needed<T: Versioned>(pointer: *mut T, name: &str) -> Result<Report<T>> {
    // SAFETY: the same contract.
    unsafe { versioned_out(pointer) }?.ok_or_else(|| null(name))
}

impl<T: Versioned> Report<T> {
    /// Writes everything except the size, which stays the caller's.
    pub(crate) fn set(self, value: &T) {
        let (size, front) = (self.size.min(size_of::<T>()), size_of::<usize>());
        // SAFETY: checked on creation, and valid to write by the contract there.
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

    /// The structure in a first version.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Old {
        struct_size: usize,
        number: u32,
        flag: i32,
    }

    /// The structure with the fields that a second version added.
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

    /// The program's structure after this library has filled it in.
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
        // The bytes behind it do not belong to the structure.
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
        // Fields that it does not know stay unchanged in a report.
        let report = Old { struct_size: size_of::<Old>(), number: 8, flag: 0 };
        assert_eq!(filled(&report, new), New { number: 8, flag: 0, ..new });
    }

    #[test]
    fn sizes_that_no_version_has_are_refused() {
        for size in [0, 1, 8, 15, 17, 20, 23, 25, 31, LONGEST + 8, usize::MAX] {
            let theirs = New { struct_size: size, number: 0, flag: 0, limit: 0 };
            assert_eq!(read::<New, _>(&theirs).unwrap_err().code(), Code::InvalidArgument, "{size}");
        }
        // SAFETY: null is allowed.
        assert!(unsafe { versioned::<New>(std::ptr::null()) }.unwrap().is_none());
    }
}
