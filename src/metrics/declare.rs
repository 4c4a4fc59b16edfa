//! The macro that makes [`Metrics`](super::Metrics) of the declarations of its series.

/// Declares each series once: `field: Kind = "name" by "label"`, with the help text as the doc comment.
///
/// Makes the struct with a public field for each series, and what does something with all of them.
macro_rules! declare_metrics {
    ($(
        $(#[doc = $help:literal])+
        $field:ident: $kind:ty = $name:literal $(by $($label:literal),+)?;
    )+) => {
        /// Every series, as a field to count with. Shared by everything that counts.
        pub struct Metrics {
            recorder: Recorder,
            $( $(#[doc = $help])+ pub $field: $kind, )+
        }

        impl Metrics {
            /// Declares every series, at zero.
            #[must_use]
            pub fn new() -> Self {
                let recorder = Recorder::new();
                recorder.scope(|| Self {
                    $( $field: Series::declare(Declaration {
                        name: $name,
                        labels: &[$($($label),+)?],
                        help: concat!($($help),+),
                    }), )+
                    recorder: recorder.clone(),
                })
            }

            /// Tells the recorder every series' value.
            fn expose(&self) {
                $( Series::expose(&self.$field); )+
            }
        }
    };
}

pub(super) use declare_metrics;
