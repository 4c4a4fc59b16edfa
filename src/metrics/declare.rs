//! The macro that makes [`Metrics`](super::Metrics) from the declarations of the series.

/// Makes the struct `Metrics` with one public field for each declared series. A declaration reads
/// `field: Kind = "name" by "label";` and has the help text as its doc comment.
macro_rules! declare_metrics {
    ($(
        $(#[doc = $help:literal])+
        $field:ident: $kind:ty = $name:literal $(by $($label:literal),+)?;
    )+) => {
        /// All series, each as a field to count with. One `Metrics` is shared by the whole service.
        pub struct Metrics {
            recorder: Recorder,
            $( $(#[doc = $help])+ pub $field: $kind, )+
        }

        impl Metrics {
            /// Registers every series, at zero.
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

            /// Copies every value to the recorder.
            fn expose(&self) {
                $( Series::expose(&self.$field); )+
            }
        }
    };
}

pub(super) use declare_metrics;
