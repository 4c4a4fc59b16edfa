//! `sources`: which tables' changes are events, of which kind, and whose.

use clap::Args;
use hushnet_realtime::output;
use hushnet_realtime::store::attach::{self, SourceInForce};

use super::database::SourcesDatabase;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: SourcesDatabase,
}

pub(super) async fn run(Arguments { database }: Arguments) -> anyhow::Result<()> {
    let url = database.find()?;
    for source in attach::sources_in_force(&url).await? {
        let SourceInForce {
            kind,
            relation,
            audience,
            operations,
            fields,
            condition,
            changed,
            keys,
            wrong,
            recent,
            recent_bytes,
            recent_seconds,
        } = source;
        output::print_line(format_args!(
            "{kind}: {} of {relation}",
            operations.join(", ")
        ))?;
        if let Some(wrong) = wrong {
            output::print_line(format_args!(
                "  wrong: {wrong}; attach it again, or detach it"
            ))?;
        }
        output::print_line(format_args!("  users: {}", audience.trim()))?;
        if !keys.is_empty() {
            output::print_line(format_args!("  key: {}", keys.join(", ")))?;
        }
        if !fields.is_empty() {
            let only = if changed {
                ", of an update what has changed"
            } else {
                ""
            };
            output::print_line(format_args!("  fields: {}{only}", fields.join(", ")))?;
        }
        if let Some(condition) = condition {
            output::print_line(format_args!("  when: {}", condition.trim()))?;
        }
        if recent > 0 && recent_seconds > 0.0 {
            output::print_line(format_args!(
                "  lately: {:.2} events/s, {} bytes each in the log",
                recent as f64 / recent_seconds,
                recent_bytes / recent
            ))?;
        }
    }
    Ok(())
}
