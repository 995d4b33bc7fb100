//! An error with everything behind it, on one line: for messages that outlive the error itself.

use std::error::Error;

/// `what: why: why that`. What a message says of its source already is not said twice.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Example {
        #[error("outer")]
        Outer(#[source] Box<Example>),
        #[error("middle: {0}")]
        Middle(#[source] Box<Example>),
        #[error("inner")]
        Inner,
    }

    #[test]
    fn every_cause_is_named_once() {
        let error = Example::Outer(Box::new(Example::Middle(Box::new(Example::Inner))));
        assert_eq!(causes(&error), "outer: middle: inner");
    }
}
