//! What a caught panic says.

use std::any::Any;

/// The message of a panic, for the log.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn the_message_of_each_kind_of_panic_is_found() {
        let fixed = catch_unwind(|| panic!("fixed")).unwrap_err();
        assert_eq!(panic_message(&*fixed), "fixed");
        let made = catch_unwind(|| panic!("made of {}", 2)).unwrap_err();
        assert_eq!(panic_message(&*made), "made of 2");
        let other = catch_unwind(|| std::panic::panic_any(7)).unwrap_err();
        assert_eq!(panic_message(&*other), "no message");
    }
}
