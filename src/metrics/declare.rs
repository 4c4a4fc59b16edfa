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
            /// The kinds of events that are known by name.
            pub kinds: Arc<Kinds>,
            channels: Channels,
            $( $(#[doc = $help])+ pub $field: $kind, )+
        }

        impl Metrics {
            /// Registers every series, at zero. `kinds` and `channels` have the names of labels.
            #[must_use]
            pub fn of(kinds: Arc<Kinds>, channels: Channels) -> Self {
                let recorder = Recorder::new();
                recorder.scope(|| Self {
                    $( $field: Series::declare(Declaration {
                        name: $name,
                        labels: &[$($($label),+)?],
                        help: concat!($($help),+),
                    }), )+
                    recorder: recorder.clone(),
                    kinds,
                    channels,
                })
            }

            /// As [`Metrics::of`], for HushNet's own kinds and channels.
            #[must_use]
            pub fn new() -> Self {
                Self::of(Arc::default(), Channels::default())
            }

            /// Copies every value to the recorder.
            fn expose(&self) {
                $( Series::expose(&self.$field); )+
            }
        }
    };
}

pub(super) use declare_metrics;
